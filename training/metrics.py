"""What a run tells while it trains: `metrics.jsonl`, and one line on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline import storage
from pipeline.errors import InputError
from pipeline.progress import Progress
from training.track import Tracker

FILE = "metrics.jsonl"
ANEW = (
    "samples_per_s",
    "tokens_per_s",
    "peak_share",
    "memory_resident_gib",
    "memory_allocated_gib",
    "memory_reserved_gib",
)
"""What is another number each time that the same step is done."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run, oldest first; a last line that a kill tore is left out.

    Raises InputError when another one is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_read(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]


class Metrics:
    """A line per optimizer step: step, loss, lr, grad_norm, reference_weight, samples_per_s,
    tokens_per_s, peak_share and memory as far as they are known; and, where measured, what
    `Measured.numbers` says, as held_out_*. Step 0 has the held-out losses alone.
    """

    def __init__(
        self,
        folder: Path,
        open_trackers: Callable[[int], Sequence[Tracker]] = lambda step: (),
    ) -> None:
        """open_trackers: of a run that goes on from this step."""
        self.path = folder / FILE
        self._open_trackers = open_trackers
        self._trackers: Sequence[Tracker] = ()

    def rewind(self, step: int) -> None:
        """Forgets what came after a step: the run does it again from there. -1 forgets all."""
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        storage.write(str(self.path), "".join(map(_line, kept)).encode())
        self.close()
        self._trackers = self._open_trackers(step)

    def write(self, values: Mapping[str, Any]) -> None:
        """Adds a line. Raises InputError when the disk is full."""
        try:
            with self.path.open("a") as file:
                file.write(_line(values))
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written: {error.strerror}; make room, and start the same "
                "command again"
            ) from error
        numbers = {name: value for name, value in values.items() if name != "step"}
        for tracker in self._trackers:
            tracker.write(values["step"], numbers)

    def show(self, step: int, name: str, picture: np.ndarray) -> None:
        """A (H, W, 3) uint8 RGB picture, for those that show pictures."""
        for tracker in self._trackers:
            tracker.show(step, name, picture)

    def close(self) -> None:
        """All is written when this returns."""
        for tracker in self._trackers:
            tracker.close()
        self._trackers = ()


class TrainingProgress(Progress):
    """Counts optimizer steps; `loss` is the last one's, smoothed as a running mean."""

    def __init__(
        self, name: str, total: int, status_url: str | None, stream: TextIO | None = None
    ) -> None:
        self.loss: float | None = None
        super().__init__(name, total, status_url, stream=stream)

    def show(self, loss: float) -> None:
        """One more step."""
        self.loss = loss if self.loss is None else 0.95 * self.loss + 0.05 * loss
        self.update()

    def status(self, state: str) -> dict[str, Any]:
        """What `status.json` says: `loss` in place of the counts of clips."""
        told = super().status(state)
        counts = ("kept", "rejected", "failed")
        return {key: told[key] for key in told if key not in counts} | {"loss": self.loss}

    def _counts(self) -> str:
        return "loss not known yet" if self.loss is None else f"loss {self.loss:.4f}"


def _read(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: damaged: {error}; remove that line") from error
    if not isinstance(values, dict) or "step" not in values:
        raise InputError(f"{where}: found no step in it; remove that line")
    return values


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"
