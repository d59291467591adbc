"""Missing clips -> units -> outcomes: the loop that all runners share. It knows no process.

A fleet has workers that take units and give back results, or get lost. Nothing is retried unseen:
lost units, unconfirmed crashes and stragglers are all issued again from here.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from pipeline.clip import Outcome
from pipeline.work import Fate, Result, Task, Unit

log = logging.getLogger(__name__)

DRAIN_S = 20.0
"""How long a stopping run waits for what is in flight (a spot machine's notice is 30 s or more)."""

_CRASHES = 10
_RECENT = 1000
"""More crashes than 1 % of the last 1,000 clips stop the job: that is a machine, not the corpus."""

_STRAGGLER = 3.0
"""A unit of so many times the median goes to an idle worker too, once the queue is empty."""


class SickClusterError(Exception):
    """Too many clips crash. Names the nodes that it happened on."""


@dataclass(frozen=True, slots=True)
class Finished:
    worker: str
    unit: Unit
    result: Result


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone, and with it whatever it had in flight."""

    worker: str


class Fleet(Protocol):
    """Workers behind one interface: a host here, or Ray actors with a host each."""

    def free(self) -> list[str]:
        """Workers that can take one more unit, emptiest first; a name stands for one more unit."""
        ...

    def idle(self) -> list[str]:
        """Workers with nothing to do."""
        ...

    def size(self) -> int:
        """How many workers are alive."""
        ...

    def submit(self, worker: str, unit: Unit) -> None: ...

    def wait(self, timeout_s: float) -> list[Finished | Lost]: ...

    def retire(self, worker: str) -> None:
        """Replaces the worker by a new one; its units in flight are lost without an event."""
        ...

    def drain(self) -> None:
        """Asks the workers to return what they have."""
        ...


@dataclass(slots=True)
class Batch:
    """What the loop hands on: outcomes to write, what became of the clips that are done, and what
    the worker spent its time on.
    """

    outcomes: list[tuple[str, str, Outcome]] = field(default_factory=list)
    fates: dict[str, Fate] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)


def cut(tasks: Iterable[Task], size: int) -> Iterator[Unit]:
    """Tasks in their order, `size` to a unit."""
    iterator = iter(tasks)
    number = 0
    while chunk := tuple(islice(iterator, size)):
        yield Unit(number, chunk)
        number += 1


class Loop:
    """One pass over the units.

    record: takes what came back; it may block, and so hold the feeding back. stopping: asked often;
    once true, nothing more is fed and what comes back within DRAIN_S is kept.
    """

    def __init__(
        self, fleet: Fleet, record: Callable[[Batch], None], stopping: Callable[[], bool]
    ) -> None:
        self._fleet = fleet
        self._record = record
        self._stopping = stopping
        self._again: deque[Unit] = deque()
        self._flying: dict[tuple[str, int], tuple[Unit, float]] = {}
        self._open: dict[str, str] = {}  # clip -> worker on which it crashed once, or ""
        self._durations: deque[float] = deque(maxlen=_RECENT)
        self._recent: deque[tuple[bool, str]] = deque(maxlen=_RECENT)
        self._next_number = 0

    def run(self, units: Iterable[Unit]) -> bool:
        """True when every clip is done, False when it was stopped before.

        Raises SickClusterError, and StageError when a stage raised.
        """
        source = iter(units)
        exhausted = False
        while not self._stopping():
            exhausted = self._feed(source, exhausted)
            if exhausted and not self._open:
                return True
            for event in self._fleet.wait(0.5):
                self._handle(event)
        self._drain()
        return exhausted and not self._open

    def _feed(self, source: Iterator[Unit], exhausted: bool) -> bool:
        """Gives every free worker a unit; True once the source has no more."""
        for worker in self._fleet.free():
            unit = self._take_again(worker)
            if unit is None and not exhausted:
                unit = next(source, None)
                exhausted = unit is None
                if unit is not None:
                    self._open.update({task.clip.clip_id: "" for task in unit.tasks})
                    unit = self._numbered(unit)
            if unit is not None:
                self._submit(worker, unit)
        if exhausted and not self._again:
            self._overtake()
        return exhausted

    def _take_again(self, worker: str) -> Unit | None:
        """A unit that has to be done again and may go to this worker."""
        for position, unit in enumerate(self._again):
            if worker not in unit.avoid or self._fleet.size() <= 1:
                del self._again[position]
                return unit
        return None

    def _overtake(self) -> None:
        """Gives late units to idle workers as well: the first outcome wins."""
        if not self._durations:
            return
        late = time.monotonic() - _STRAGGLER * max(statistics.median(self._durations), 1.0)
        copies: dict[int, int] = {}
        for _, number in self._flying:
            copies[number] = copies.get(number, 0) + 1
        waiting = [
            unit
            for (_, number), (unit, since) in sorted(self._flying.items(), key=lambda i: i[1][1])
            if since < late and copies[number] == 1
        ]
        for worker, unit in zip(self._fleet.idle(), waiting, strict=False):
            open_tasks = tuple(t for t in unit.tasks if t.clip.clip_id in self._open)
            self._submit(worker, replace(unit, tasks=open_tasks))

    def _submit(self, worker: str, unit: Unit) -> None:
        self._flying[worker, unit.number] = (unit, time.monotonic())
        self._fleet.submit(worker, unit)

    def _handle(self, event: Finished | Lost) -> None:
        if isinstance(event, Lost):
            self._reissue(event.worker)
            return
        unit, result = event.unit, event.result
        self._flying.pop((event.worker, unit.number), None)
        if not result.sick:
            self._durations.append(result.seconds)
        self._settle(event)
        if result.sick:
            log.warning("worker %s on %s crashes on everything: retired", event.worker, result.node)
            self._fleet.retire(event.worker)
            self._reissue(event.worker)

    def _settle(self, event: Finished) -> None:
        """Records what is certain; a first crash is tried once more, elsewhere if possible."""
        unit, result = event.unit, event.result
        doubted = set() if unit.second_try else result.crashed()
        batch = Batch(spent=result.spent)
        for clip_id, stage, outcome in result.outcomes:
            if clip_id in self._open and clip_id not in doubted:
                batch.outcomes.append((clip_id, stage, outcome))
        for clip_id, fate in result.fates.items():
            if clip_id in self._open and clip_id not in doubted:
                batch.fates[clip_id] = fate
                del self._open[clip_id]
                crashed = clip_id in result.crashed()
                self._recent.append((crashed, result.node))
        self._record(batch)
        self._stop_if_sick()
        self._retry(event, doubted)

    def _retry(self, event: Finished, doubted: set[str]) -> None:
        """Issues again what came back undone and what crashed for the first time."""
        left = [task for task in event.unit.tasks if task.clip.clip_id in self._open]
        elsewhere = any(number == event.unit.number for _, number in self._flying)
        undone = [] if elsewhere else [t for t in left if t.clip.clip_id not in doubted]
        crashed = [task for task in left if task.clip.clip_id in doubted]
        if undone:
            self._again.append(self._numbered(replace(event.unit, tasks=tuple(undone))))
        for task in crashed:
            if self._open[task.clip.clip_id] == "":
                self._open[task.clip.clip_id] = event.worker
                avoid = frozenset({event.worker})
                self._again.append(self._numbered(Unit(0, (task,), second_try=True, avoid=avoid)))

    def _reissue(self, worker: str) -> None:
        """What a lost worker had in flight goes back into the queue, unless a twin flies on."""
        for flying_worker, number in list(self._flying):
            if flying_worker != worker:
                continue
            unit, _ = self._flying.pop((flying_worker, number))
            if any(other == number for _, other in self._flying):
                continue
            tasks = tuple(t for t in unit.tasks if t.clip.clip_id in self._open)
            if tasks:
                self._again.append(self._numbered(replace(unit, tasks=tasks)))

    def _numbered(self, unit: Unit) -> Unit:
        self._next_number += 1
        return replace(unit, number=self._next_number)

    def _stop_if_sick(self) -> None:
        nodes: Sequence[str] = [node for crashed, node in self._recent if crashed]
        if len(nodes) > _CRASHES:
            where = ", ".join(sorted(set(nodes)))
            raise SickClusterError(
                f"{len(nodes)} of the last {len(self._recent)} clips crashed, on {where}: "
                "look at these machines, then start again; what was measured is kept"
            )

    def _drain(self) -> None:
        self._fleet.drain()
        until = time.monotonic() + DRAIN_S
        while self._flying and time.monotonic() < until:
            for event in self._fleet.wait(0.5):
                self._handle(event)
