"""What travels between the driver and a host: work, units, results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.bounds import Positive
from pipeline.clip import Clip, Facts, Measurement, Outcome
from pipeline.errors import InputError
from pipeline.filters import Filters
from pipeline.stage import Stage

Fate = Literal["kept", "rejected", "failed"]
"""What became of a clip in this pass."""

WAITING = "waiting for frames"
"""Stands beside the names of stages in `Result.spent`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one clip may take before its process is killed.

    decode_s: decoding one clip; measure_s: one clip in one stage; setup_s: loading all weights;
    memory_gib: resident memory of a host or a decoder. Ours: several times what the slowest clip of
    the corpora at hand takes. frames_gib: what waits decoded, and what one batch holds; ours: a
    clip of 10 s takes about 30 MB, so neither bounds a batch of 32.
    """

    decode_s: Positive = 120.0
    measure_s: Positive = 120.0
    setup_s: Positive = 900.0
    memory_gib: Positive = 8.0
    frames_gib: Positive = 1.0


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What one worker takes, and how many there are.

    decoders: clips that it decodes side by side, each on a CPU: as many as keep its networks busy.
    count: 0 fills the cluster as it is at the start.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    decoders: int = 1
    count: int = 0

    def __post_init__(self) -> None:
        if self.decoders < 1:
            raise InputError(f"workers.decoders: found {self.decoders}, wanted 1 or more")


@dataclass(frozen=True, slots=True)
class Work:
    """What the hosts of a pass do with every clip.

    stages: in their fixed order; filters: of all stages; measure_all: no stage is skipped because
    an earlier one rejected.
    """

    stages: tuple[Stage, ...]
    filters: Filters
    measure_all: bool = False
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Task:
    """One clip, with what is known of it: what its stages need, and earlier measurements."""

    clip: Clip
    facts: Facts = field(default_factory=dict)

    def knowing(self, stage: str, values: Mapping[str, Any]) -> Task:
        """The same clip with one more measurement."""
        return Task(self.clip, {**self.facts, stage: values})


@dataclass(frozen=True, slots=True)
class Unit:
    """The clips handed to a worker at once.

    second_try: clips that crashed another worker: a crash here is the clip's, not the machine's.
    avoid: workers that must not get this unit while there are others.
    """

    number: int
    tasks: tuple[Task, ...]
    second_try: bool = False
    avoid: frozenset[str] = frozenset()


@dataclass(slots=True)
class Result:
    """What came back of a unit.

    outcomes: new ones, in the order taken; fates: of the clips that are done; a clip of the unit
    that has none is to be done again. spent: seconds that the host's networks waited (`WAITING`)
    or worked, by stage. sick: this worker crashed on several clips in a row.
    """

    outcomes: list[tuple[str, str, Outcome]] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)
    seconds: float = 0.0
    spent: Counter[str] = field(default_factory=Counter)
    sick: bool = False
    node: str = ""

    def add(self, clip_id: str, stage: str, outcome: Outcome) -> None:
        self.outcomes.append((clip_id, stage, outcome))

    def crashed(self) -> set[str]:
        """The clips that killed their host or decoder."""
        return {
            clip_id
            for clip_id, _, outcome in self.outcomes
            if not isinstance(outcome, Measurement) and outcome.code == "crash"
        }
