"""The child process that owns the models: loads them once, then measures unit after unit.

Before each call of a stage it announces which clips are at stake, so that whoever watches knows on
whom it died. Decoding runs ahead in a child of its own.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from multiprocessing.connection import Connection
from typing import TypeVar

import pyarrow as pa

from pipeline.clip import Failed, Measurement, Outcome
from pipeline.decoder import Decoder
from pipeline.errors import InputError
from pipeline.filters import first_rejection
from pipeline.frames import Frames, joined
from pipeline.lifeline import die_with_parent
from pipeline.stage import Stage
from pipeline.work import Fate, Task, Work

AHEAD = 2
"""Clips decoded or being decoded beyond those that are measured now."""

Say = Callable[[tuple], None]


class Measuring:
    """Runs units through the stages of a pass. say: sends one message to the watcher."""

    def __init__(self, work: Work, say: Say) -> None:
        self._work = work
        self._say = say
        limits = work.limits
        self._decoder = Decoder(limits.decode_s, int(limits.memory_gib * 2**30))
        leading = list(takewhile(lambda stage: stage.frames is None, work.stages))
        self._leading, self._rest = leading, list(work.stages[len(leading) :])
        if any(stage.frames is not None for stage in self._rest):
            self._decoder.start()

    def run(self, tasks: Sequence[Task]) -> None:
        """Stages without frames first, for all clips; then the others, decoding ahead."""
        alive: list[Task] = []
        for batch in _batches(tasks, _batch_size(self._leading)):
            runs = [_Run(task, [None] * len(self._leading)) for task in batch]
            self._take(self._leading, runs)
            alive += [run.task for run in runs if run.fate is None]
            self._settle([run for run in runs if run.fate or not self._rest])
        for runs in _batches(self._decoded(alive), _batch_size(self._rest)):
            self._take(self._rest, runs)
            self._settle(runs)

    def _settle(self, runs: Sequence[_Run]) -> None:
        self._say(("settled", {run.task.clip.clip_id: run.fate or "kept" for run in runs}))

    def _take(self, stages: Sequence[Stage], runs: Sequence[_Run]) -> None:
        """Each stage in turn, on the clips that still need it."""
        for position, stage in enumerate(stages):
            for run in runs:
                run.skip_if_known(stage, self._work)
            batch = [run for run in runs if run.fate is None and not run.knows(stage)]
            if not batch:
                continue
            ids = [run.task.clip.clip_id for run in batch]
            self._say(("open", stage.name, ids))
            outcomes = stage.measure(
                [run.task.clip for run in batch],
                [run.frames[position] for run in batch],
                [run.task.facts for run in batch],
            )
            outcomes = [_as_recorded(stage, outcome) for outcome in outcomes]
            if len(outcomes) != len(batch):
                raise RuntimeError(
                    f"stage {stage.name} gave {len(outcomes)} outcomes for {len(batch)} clips"
                )
            self._say(("measured", stage.name, list(zip(ids, outcomes, strict=True))))
            for run, outcome in zip(batch, outcomes, strict=True):
                run.learn(stage, outcome, self._work)

    def _decoded(self, tasks: Sequence[Task]) -> Iterator[_Run]:
        """The clips with their frames, in order; a clip that cannot be decoded has failed."""
        wanted = {task.clip.clip_id: self._wanted(task) for task in tasks}
        todo = iter(tasks)
        ordered: list[Task] = []
        while True:
            for task in islice(todo, AHEAD + 1 - len(ordered)):
                ordered.append(task)
                stages = wanted[task.clip.clip_id]
                if stages:
                    requests = [r for stage in stages if stage.frames for r in stage.frames.each()]
                    self._decoder.order(task.clip.clip_id, task.clip.path, requests)
            if not ordered:
                return
            task = ordered.pop(0)
            stages = wanted[task.clip.clip_id]
            frames: list[Frames] | Failed = self._decoder.next()[1] if stages else []
            if isinstance(frames, Failed):
                clip_id = task.clip.clip_id
                self._say(("measured", stages[0].name, [(clip_id, frames)]))
                self._say(("settled", {clip_id: "failed"}))
                continue
            served = iter(frames)
            yield _Run(
                task,
                [
                    joined(s.frames, served) if s.frames and s in stages else None
                    for s in self._rest
                ],
            )

    def _wanted(self, task: Task) -> list[Stage]:
        return [s for s in self._rest if s.frames is not None and s.name not in task.facts]


class _Run:
    """One clip on its way through the stages. frames: one entry per stage."""

    def __init__(self, task: Task, frames: Sequence[Frames | None]) -> None:
        self.task = task
        self.frames = frames
        self.fate: Fate | None = None

    def knows(self, stage: Stage) -> bool:
        return stage.name in self.task.facts

    def skip_if_known(self, stage: Stage, work: Work) -> None:
        """A measurement of an earlier run counts as if it were taken now."""
        if self.fate is None and self.knows(stage):
            self._judge(stage, work)

    def learn(self, stage: Stage, outcome: Measurement | Failed, work: Work) -> None:
        if isinstance(outcome, Failed):
            self.fate = "failed"
            return
        self.task = self.task.knowing(stage.name, outcome.values)
        self._judge(stage, work)

    def _judge(self, stage: Stage, work: Work) -> None:
        if work.measure_all:
            return
        rejection = first_rejection(work.filters.get(stage.name, {}), self.task.facts[stage.name])
        if rejection is not None:
            self.fate = "failed" if rejection.failed else "rejected"


def _as_recorded(stage: Stage, outcome: Outcome) -> Outcome:
    """The outcome with the types of the stage's columns, as it will be read from the ledger.

    So the next stage sees the same numbers whether it runs now or in another process tomorrow.
    """
    if isinstance(outcome, Failed):
        return outcome
    table = pa.RecordBatch.from_pylist([dict(outcome.values)], schema=stage.columns)
    return Measurement(table.to_pylist()[0])


def _batch_size(stages: Sequence[Stage]) -> int:
    return max((stage.resources.batch for stage in stages), default=32)


_Item = TypeVar("_Item")


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def main() -> None:
    """Work in, then units in and messages out, until the socket closes."""
    fd, lifeline, parent = map(int, sys.argv[1:])
    die_with_parent(lifeline, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(fd)
    try:
        work: Work = connection.recv()
        measuring = Measuring(work, connection.send)
        for stage in work.stages:
            stage.setup()
        connection.send(("ready",))
        while True:
            measuring.run(connection.recv())
            connection.send(("done",))
    except EOFError:
        return
    except InputError as error:
        connection.send(("refused", str(error)))  # a full disk, a folder without permission
        raise
    except Exception:
        # A bug or a sick machine, not a bad clip: the watcher stops the job with this.
        connection.send(("broken", traceback.format_exc()))
        raise


if __name__ == "__main__":
    main()
