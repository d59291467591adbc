"""The watcher of a host: hands it units, notices when it dies or hangs, and finds out who did it.

A batch that kills its host is tried again in halves, until one clip alone has killed two fresh
hosts: that clip has failed, the others are measured.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import IO, NoReturn

from pipeline.clip import Failed, Measurement
from pipeline.errors import InputError
from pipeline.lifeline import Child, rss_bytes, spawn
from pipeline.work import WAITING, Result, Task, Unit, Work

SICK_AFTER = 3
"""Crashes on different clips in a row that retire a worker."""

_IDLE_DEATHS = 5
"""Deaths in a row outside of any measuring after which the host counts as broken."""


class StageError(Exception):
    """A stage raised: a bug or a sick machine. The text is the host's traceback."""


@dataclass(slots=True)
class _Attempt:
    """How one hand-over of tasks ended. at_stake: the clips measured when the host died."""

    cause: str | None = None
    stage: str = ""
    at_stake: list[str] = field(default_factory=list)
    fresh: bool = False
    tail: str = ""


class Host:
    """One child process with the models of a pass; restarted whenever it dies.

    decoders: children of the child.
    """

    def __init__(self, work: Work, decoders: int = 1) -> None:
        self._work = work
        self._decoders = decoders
        self._child: Child | None = None
        self._connection: Connection | None = None
        self._log: IO[bytes] | None = None
        self._closed_batches = 0
        self._streak = 0

    def start(self) -> None:
        """Loads the models ahead of the first unit. Raises StageError when that fails."""
        attempt = _Attempt()
        for _ in range(_IDLE_DEATHS):
            if self._start(attempt):
                return
        raise StageError(
            f"the host died {_IDLE_DEATHS} times while it started: {self._why(attempt)}"
        )

    def run(self, unit: Unit, stopping: Callable[[], bool]) -> Result:
        """Measures the clips of a unit; returns early, with what is done, once `stopping()`.

        Raises StageError when a stage raises or the host cannot be kept alive, and InputError
        when a stage finds something for the user to mend.
        """
        started = time.monotonic()
        result = Result()
        known = {task.clip.clip_id: task for task in unit.tasks}
        groups: deque[list[str]] = deque([list(known)])
        fresh_deaths: Counter[str] = Counter()
        idle_deaths = 0
        while groups and not stopping() and not result.sick:
            group = [clip_id for clip_id in groups.popleft() if clip_id not in result.fates]
            if not group:
                continue
            before = len(result.fates)
            attempt = self._attempt([known[clip_id] for clip_id in group], result, known, stopping)
            if attempt.cause is None:
                self._watch_streak(result, unit, before)
                continue
            left = [c for c in group if c not in result.fates and c not in attempt.at_stake]
            groups.appendleft(left)
            if not attempt.at_stake:
                idle_deaths += 1
                if idle_deaths >= _IDLE_DEATHS:
                    raise StageError(f"the host died {idle_deaths} times: {self._why(attempt)}")
                continue
            idle_deaths = 0
            groups.extendleft(reversed(self._blame(attempt, fresh_deaths, result)))
            self._watch_streak(result, unit, before)
        result.seconds = time.monotonic() - started
        return result

    def close(self) -> None:
        """Kills the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _why(self, attempt: _Attempt) -> str:
        """What it died of outside of any measuring, with the last line that it said."""
        limits = self._work.limits
        causes = {
            "memory": f"its memory passed {limits.memory_gib:g} GiB (engine.limits.memory_gib)",
            "timeout": "it was silent for longer than engine.limits allows (setup_s, decode_s)",
        }
        cause = causes.get(attempt.cause or "", "it crashed")
        return f"{cause}; {attempt.tail}" if attempt.tail else cause

    def _blame(
        self, attempt: _Attempt, fresh_deaths: Counter[str], result: Result
    ) -> list[list[str]]:
        """The groups to try next; a clip that is alone and was guilty twice is settled instead."""
        if len(attempt.at_stake) > 1:
            half = len(attempt.at_stake) // 2
            return [attempt.at_stake[:half], attempt.at_stake[half:]]
        clip_id = attempt.at_stake[0]
        # A crash counts in a fresh host only: the machine may have killed a seasoned one.
        fresh_deaths[clip_id] += attempt.fresh or attempt.cause != "crash"
        if fresh_deaths[clip_id] < 2:
            return [[clip_id]]
        cause = attempt.cause or "crash"
        message = f"killed two hosts in {attempt.stage} ({cause}) {attempt.tail}".strip()
        result.add(clip_id, attempt.stage, Failed(cause, message))
        result.fates[clip_id] = "failed"
        return []

    def _watch_streak(self, result: Result, unit: Unit, before: int) -> None:
        """Retires itself after several clips in a row that crashed here for the first time."""
        crashed = result.crashed()
        for clip_id in list(result.fates)[before:]:
            self._streak = self._streak + 1 if clip_id in crashed else 0
        result.sick = not unit.second_try and self._streak >= SICK_AFTER

    def _attempt(
        self,
        tasks: Sequence[Task],
        result: Result,
        known: dict[str, Task],
        stopping: Callable[[], bool],
    ) -> _Attempt:
        """Hands tasks to the host and follows it until it is done or dead."""
        attempt = _Attempt()
        if not self._start(attempt):
            return attempt
        assert self._connection is not None
        attempt.fresh = self._closed_batches == 0
        try:
            self._connection.send(tasks)
        except (BrokenPipeError, ConnectionResetError):
            return self._lost(attempt, "crash")
        while True:
            cause, message = self._hear(attempt, stopping)
            if cause is not None:
                return self._lost(attempt, cause)
            if message[0] == "done":
                return attempt
            self._note(message, attempt, result, known)
            if message[0] == "settled" and stopping():
                self.close()  # it would go on; what it has told is safe
                return attempt

    def _note(
        self, message: tuple, attempt: _Attempt, result: Result, known: dict[str, Task]
    ) -> None:
        """What the host says of the clips at stake, of outcomes, of clips that are done."""
        match message:
            case ("open", stage, ids):
                attempt.stage, attempt.at_stake = stage, ids
            case ("decoded", seconds):
                result.spent[WAITING] += seconds
            case ("measured", stage, outcomes, seconds):
                self._closed_batches += 1
                attempt.at_stake, attempt.fresh = [], False
                result.spent[stage] += seconds
                for clip_id, outcome in outcomes:
                    result.add(clip_id, stage, outcome)
                    if isinstance(outcome, Measurement):
                        known[clip_id] = known[clip_id].knowing(stage, outcome.values)
            case ("settled", fates):
                result.fates.update(fates)
            case _:
                _give_up(message)

    def _start(self, attempt: _Attempt) -> bool:
        """A child with its stages set up; False when it died on the way."""
        if self._child is not None and self._child.alive():
            return True
        self.close()
        ours, theirs = socket.socketpair()
        self._log = os.fdopen(os.memfd_create("host-log"), "w+b")
        self._child = spawn("pipeline.host_main", [theirs.fileno()], stderr=self._log)
        theirs.close()
        self._connection = Connection(ours.detach())
        self._closed_batches = 0
        try:
            self._connection.send((self._work, self._decoders))
        except (BrokenPipeError, ConnectionResetError):
            self._lost(attempt, "crash")
            return False
        cause, message = self._hear(attempt, lambda: False, self._work.limits.setup_s)
        if cause is not None:
            self._lost(attempt, cause)
            return False
        if message[0] != "ready":
            _give_up(message)
        return True

    def _hear(
        self, attempt: _Attempt, stopping: Callable[[], bool], deadline_s: float | None = None
    ) -> tuple[str | None, tuple]:
        """The next message, or why the host has to go: crash, timeout, memory or stop."""
        assert self._connection is not None
        assert self._child is not None
        limits = self._work.limits
        if deadline_s is None:
            measuring = limits.measure_s * len(attempt.at_stake)
            deadline_s = measuring or 3 * limits.decode_s + limits.measure_s
        until = time.monotonic() + deadline_s
        while not self._connection.poll(0.2):
            if time.monotonic() > until:
                return "timeout", ()
            if rss_bytes(self._child.pid) > limits.memory_gib * 2**30:
                return "memory", ()
            if stopping() and not attempt.at_stake:
                return "stop", ()
        try:
            return None, self._connection.recv()
        except (EOFError, ConnectionResetError):
            return "crash", ()

    def _lost(self, attempt: _Attempt, cause: str) -> _Attempt:
        attempt.cause = cause
        if self._log is not None:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            attempt.tail = lines[-1][:200] if lines else ""
        self.close()
        return attempt


def _give_up(message: tuple) -> NoReturn:
    """The host's last word."""
    kind, text = message
    raise InputError(text) if kind == "refused" else StageError(text)
