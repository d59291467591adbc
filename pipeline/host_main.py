"""The child process that owns the models: loads them once, then measures unit after unit.

Before each call of a stage it announces which clips are at stake, so that whoever watches knows on
whom it died. Decoding runs ahead in children of its own.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from multiprocessing.connection import Connection
from typing import TypeVar

import pyarrow as pa

from pipeline.clip import Failed, Measurement, Outcome
from pipeline.decoders import Decoders
from pipeline.errors import InputError
from pipeline.filters import first_rejection
from pipeline.frames import Frames, joined
from pipeline.lifeline import die_with_parent
from pipeline.stage import Stage
from pipeline.work import Fate, Task, Work

Say = Callable[[tuple], None]


class Measuring:
    """Runs units through the stages of a pass. say: sends one message to the watcher."""

    def __init__(self, work: Work, decoders: int, say: Say) -> None:
        self._work = work
        self._say = say
        self._steps = _steps(work)
        limits = work.limits
        self._batch_bytes = int(limits.frames_gib * 2**30)
        looking = [stage for stage in work.stages if stage.frames is not None]
        self._decoders = Decoders(
            decoders,
            _batch_size(looking) + decoders,  # a whole batch waits when one is measured
            self._batch_bytes,
            limits.decode_s,
            int(limits.memory_gib * 2**30),
        )
        if looking:
            self._decoders.start()

    def run(self, tasks: Sequence[Task]) -> None:
        """Step after step; a clip that passes one is decoded for the next at once."""
        alive = list(tasks)
        for task in alive:
            self._order(self._steps[0], task)
        for stages, following in zip_longest(self._steps, self._steps[1:]):
            passed: list[Task] = []
            for runs in self._batches(stages, self._decoded(stages, alive)):
                self._take(stages, runs)
                for run in runs:
                    if run.fate is None and following:
                        passed.append(run.task)
                        self._order(following, run.task)
                self._settle([run for run in runs if run.fate or not following])
                runs.clear()  # their frames go before the next ones are waited for
            alive = passed

    def _settle(self, runs: Sequence[_Run]) -> None:
        self._say(("settled", {run.task.clip.clip_id: run.fate or "kept" for run in runs}))

    def _take(self, stages: Sequence[Stage], runs: Sequence[_Run]) -> None:
        """Each stage in turn, on the clips that still need it, as many at once as it says."""
        for position, stage in enumerate(stages):
            for run in runs:
                run.skip_if_known(stage, self._work)
            needing = [run for run in runs if run.fate is None and not run.knows(stage)]
            for batch in _chunks(needing, stage.resources.batch):
                self._measure(position, stage, batch)

    def _measure(self, position: int, stage: Stage, batch: Sequence[_Run]) -> None:
        ids = [run.task.clip.clip_id for run in batch]
        self._say(("open", stage.name, ids))
        started = time.monotonic()
        outcomes = stage.measure(
            [run.task.clip for run in batch],
            [run.frames[position] for run in batch],
            [run.task.facts for run in batch],
        )
        seconds = time.monotonic() - started
        outcomes = [_as_recorded(stage, outcome) for outcome in outcomes]
        if len(outcomes) != len(batch):
            raise RuntimeError(
                f"stage {stage.name} gave {len(outcomes)} outcomes for {len(batch)} clips"
            )
        self._say(("measured", stage.name, list(zip(ids, outcomes, strict=True)), seconds))
        for run, outcome in zip(batch, outcomes, strict=True):
            run.learn(stage, outcome, self._work)

    def _order(self, stages: Sequence[Stage], task: Task) -> None:
        wanted = [stage.frames for stage in stages if _wants(stage, task)]
        requests = [each for request in wanted if request for each in request.each()]
        if requests:
            self._decoders.order(task.clip.path, requests)

    def _decoded(self, stages: Sequence[Stage], tasks: Iterable[Task]) -> Iterator[_Run]:
        """The clips with their frames, in order; a clip that cannot be decoded has failed."""
        for task in tasks:
            wanting = [stage for stage in stages if _wants(stage, task)]
            frames: list[Frames] | Failed = self._next() if wanting else []
            if isinstance(frames, Failed):
                clip_id = task.clip.clip_id
                self._say(("measured", wanting[0].name, [(clip_id, frames)], 0.0))
                self._say(("settled", {clip_id: "failed"}))
                continue
            served = iter(frames)
            yield _Run(
                task,
                [joined(s.frames, served) if s.frames and s in wanting else None for s in stages],
            )

    def _next(self) -> list[Frames] | Failed:
        started = time.monotonic()
        frames = self._decoders.next()
        self._say(("decoded", time.monotonic() - started))  # also tells that we are alive
        return frames

    def _batches(self, stages: Sequence[Stage], runs: Iterable[_Run]) -> Iterator[list[_Run]]:
        """As many clips as the stage with the largest batch takes, or as memory bears."""
        batch: list[_Run] = []
        size, held = _batch_size(stages), 0
        for run in runs:
            batch.append(run)
            held += run.size_bytes()
            if len(batch) == size or held >= self._batch_bytes:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch


class _Run:
    """One clip on its way through the stages. frames: one entry per stage."""

    def __init__(self, task: Task, frames: Sequence[Frames | None]) -> None:
        self.task = task
        self.frames = frames
        self.fate: Fate | None = None

    def knows(self, stage: Stage) -> bool:
        return stage.name in self.task.facts

    def size_bytes(self) -> int:
        """What its pixels take."""
        return sum(frames.size_bytes() for frames in self.frames if frames)

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


def _steps(work: Work) -> list[list[Stage]]:
    """Stages whose frames are read together (docs/decisions/010).

    First those that want none, then those that want the first picture alone, where that saves
    rejected clips the others; a stage never comes before one that it stands after.
    """
    steps: list[list[Stage]] = []
    deepest = -1
    for stage in work.stages:
        depth = 0 if stage.frames is None else 2
        if stage.frames is not None and stage.frames.is_opening() and not work.measure_all:
            depth = 1
        if depth > deepest:
            steps.append([])
            deepest = depth
        steps[-1].append(stage)
    return steps


def _wants(stage: Stage, task: Task) -> bool:
    return stage.frames is not None and stage.name not in task.facts


def _batch_size(stages: Sequence[Stage]) -> int:
    return max((stage.resources.batch for stage in stages), default=32)


_Item = TypeVar("_Item")


def _chunks(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def main() -> None:
    """Work in, then units in and messages out, until the socket closes."""
    fd, lifeline, parent = map(int, sys.argv[1:])
    die_with_parent(lifeline, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(fd)
    try:
        work, decoders = connection.recv()
        measuring = Measuring(work, decoders, connection.send)
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
