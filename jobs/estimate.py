"""From a few clips to a corpus: hours, cost, yield and gigabytes, as arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.settings import PriceSettings
from pipeline.work import WAITING, WorkerKind

_Z = 1.96
"""Of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One pass over the clips of a dry run.

    todo: how many came to it; done: how many it did in the time there was; spent: seconds of its
    worker, see `Result.spent`.
    """

    name: str
    todo: int
    done: int
    spent: Mapping[str, float]

    def per_clip(self, clips: int) -> dict[str, float]:
        """Worker seconds per clip of the corpus, by what they go into. clips: of the dry run."""
        came = self.todo / clips
        return {what: s / self.done * came for what, s in self.spent.items()} if self.done else {}


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node of the cluster has for workers."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that are there at once: of each kind, how many."""

    kinds: tuple[tuple[WorkerKind, int], ...]

    @property
    def size(self) -> int:
        return sum(count for _, count in self.kinds)

    @property
    def cpus(self) -> float:
        return sum(kind.cpus * count for kind, count in self.kinds)

    @property
    def gpus(self) -> float:
        return sum(kind.gpus * count for kind, count in self.kinds)


def room(kind: WorkerKind, machines: Sequence[Machine]) -> int:
    """How many workers of a kind fit when they are alone."""
    total = 0
    for machine in machines:
        rooms = [int(machine.cpus // kind.cpus)] if kind.cpus else []
        rooms += [int(machine.gpus // kind.gpus)] if kind.gpus else []
        total += min(rooms, default=1)
    return total


def hours(seconds_per_clip: float, clips: int, crew: Crew) -> float:
    """Of a pass, while all workers are busy."""
    return seconds_per_clip * clips / max(crew.size, 1) / 3600


def cost(hours: float, crew: Crew, prices: PriceSettings) -> float:
    """What the machines cost for so long, as far as workers hold them."""
    return hours * (crew.cpus * prices.cpu_hour + crew.gpus * prices.gpu_hour)


def interval(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson's); (0, 1) of nothing."""
    if of == 0:
        return 0.0, 1.0
    share, square = hits / of, _Z * _Z
    middle = share + square / (2 * of)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    scale = 1 + square / of
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bound(seconds: Mapping[str, float]) -> str:
    """What the workers' time goes into: `decoding (waiting for frames 62%)`, or a stage."""
    total = sum(seconds.values())
    if not total:
        return ""
    what, most = max(seconds.items(), key=lambda item: item[1])
    share = f"{most / total:.0%} of the workers' time"
    if what == WAITING:
        return f"decoding: waiting for frames is {share}; more decoders, or CPUs, help"
    return f"{what}: {share}; decoding keeps up"
