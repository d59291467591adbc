"""Stage: the one interface between how clips move and what is found out about them."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.clip import Clip, Facts, Outcome
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames
from pipeline.weights import Weights


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker of a stage takes. batch: clips handed to `measure` at once."""

    cpus: float = 1.0
    gpus: float = 0.0
    batch: int = 1


class Source(ABC):
    """One kind of fact about clips: where it is kept, its columns, and what is asked of them."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised when the numbers change: a test with stored values fails if they change without it."""
    columns: ClassVar[pa.Schema]
    """What one measurement records."""
    filters: ClassVar[Mapping[str, Filter]] = {}
    """Default thresholds, by column; a run file changes single ones."""
    needs: tuple[str, ...] = ()
    """Sources whose facts it reads."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers, as JSON values."""

    def read_for(self, measures: Collection[str]) -> Collection[str]:
        """The columns that a verdict about these measures reads."""
        return measures


class Stage(Source):
    """Finds out one kind of fact about clips, about each clip by itself.

    The constructor takes settings only, is cheap and picklable, and runs on the driver; weights are
    loaded in `setup`, once per worker.
    """

    frames: FrameRequest | None = None
    """Which frames it wants; all requests of a pass are served by one decode."""
    resources: Resources = Resources()

    def weights(self) -> Sequence[Weights]:
        """What `setup` loads; a job looks for it before it starts a worker."""
        return ()

    def check(self) -> None:
        """Raises InputError when what it needs besides weights is not there: a server, a key."""
        return

    def setup(self) -> None:
        """Loads weights; runs once in every host, before the first clip."""
        return

    @abstractmethod
    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """One outcome per clip, in order. frames[i] is None exactly when the stage asks for none.

        An exception is a bug or a sick machine: it stops the job. A clip that cannot be measured is
        `Failed`.
        """


def fingerprints(stages: Sequence[Source]) -> dict[str, str]:
    """The address of each stage's facts: 12 hex digits over name, version, settings and needs.

    stages: in their fixed order, so that what a stage needs stands before it.
    """
    prints: dict[str, str] = {}
    for stage in stages:
        made_of = {
            "stage": stage.name,
            "version": stage.version,
            "settings": stage.settings(),
            "needs": {need: prints[need] for need in stage.needs},
        }
        text = json.dumps(made_of, sort_keys=True, default=str)
        prints[stage.name] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return prints
