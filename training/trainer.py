"""The loop: from latents to trained weights, to be stopped at any step and started again.

Every worker of a world runs it, and all do the same step at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import InputError
from training.ahead import read_ahead
from training.checkpoint import FOLDER, Checkpoints, State, Weights, restore
from training.course import FREE, Course, LoopSettings
from training.diverged import Batches, Given, dump
from training.measured import NONE
from training.metrics import Metrics, TrainingProgress
from training.speed import Work, memory
from training.step import DivergedError, Example, Training
from training.track import Tracker
from training.validation import Validation

_AHEAD = 2
"""Optimizer steps whose samples are read before they are wanted."""
_MOVED = 1e-3
"""How far the loss without a reference may move, relatively; exactly 0 is seen on a CPU."""


@dataclass(frozen=True, slots=True)
class Report:
    """step: optimizer steps done; done: all that were asked for; checkpoint: the last one.

    stopped_by: the number of the signal that some worker heard, 0 for none.
    """

    step: int
    done: bool
    checkpoint: Path | None
    stopped_by: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What else a run tells of itself. open_trackers: of a run that goes on from this step.

    reference_weight: of the network's last batch, None where it does not know; validation: makes
    videos; saved: is given each checkpoint. place: where the folder will be found, "" for itself.
    """

    work: Work = Work()
    reference_weight: Callable[[], float | None] = lambda: None
    open_trackers: Callable[[int], Sequence[Tracker]] = lambda step: ()
    validation: Validation | None = None
    saved: Callable[[Path], None] = lambda checkpoint: None
    place: str = ""


class Trainer:
    """Trains in one folder, which all workers see: `metrics.jsonl` and `checkpoints/`."""

    def __init__(
        self,
        folder: Path,
        training: Training,
        weights: Weights,
        course: Course,
        settings: LoopSettings,
        identity: Mapping[str, Any],
        told: Told | None = None,
        parity: Callable[[bool], None] = lambda resumed: None,
    ) -> None:
        """weights: what is stored of the network. identity: all settings that the numbers depend
        on, and what was trained from and on: a checkpoint of another one is refused. parity: done
        before the first step, told whether the run goes on from a checkpoint; an InputError of it
        stops the run. Raises InputError when the workers cannot share a step.
        """
        self._folder = folder
        self._told, self._parity = told or Told(), parity
        self._training, self._weights, self._course = training, weights, course
        self._settings, self._world = settings, training.world
        self._share = settings.share(self._world.size)
        self._identity = {key: value for key, value in identity.items() if key not in FREE}
        self._checkpoints = Checkpoints(folder / FOLDER, settings.keep, settings.keeps)
        self._metrics = Metrics(folder, self._told.open_trackers)
        self._constants: dict[str, float] = {}

    def run(self, stop: Callable[[], int], progress: Callable[[int], TrainingProgress]) -> Report:
        """Goes on from the last checkpoint until all steps are done, or `stop` says so at one
        worker, with the number of a signal.

        progress: made with the number of steps in all. Raises InputError when the checkpoint is
        another run's, DivergedError when the loss is not finite any more.
        """
        with closing(self._metrics):
            return self._run(stop, progress)

    def _run(self, stop: Callable[[], int], progress: Callable[[int], TrainingProgress]) -> Report:
        resumed = self._resume()
        with self._world.together():
            self._parity(resumed.step > 0)
        step = saved = resumed.step
        last = max(step, self._settings.steps)
        if step == 0:
            self._write({"step": 0, **self._held_out()})
        stopped_by = 0
        samples = range(resumed.samples, self._position(resumed, last))
        with progress(last).after(step) as shown, closing(self._examples(samples)) as examples:
            while step < last:
                batches = self._next(examples, step, saved, resumed)
                stopped_by = self._world.highest(stop())
                if stopped_by:
                    break
                step += 1
                loss = self._step(step, self._position(resumed, step - 1), batches)
                shown.show(loss)
                if self._settings.saves(step):
                    self._save(step, self._position(resumed, step))
                    saved = step
        if step != saved:
            self._save(step, self._position(resumed, step))
        done = step >= self._settings.steps
        return Report(step, done, self._checkpoints.latest(), stopped_by)

    def _next(
        self, examples: Iterator[list[list[Example]]], step: int, saved: int, resumed: State
    ) -> list[list[Example]]:
        """What cannot be read costs no step that was done before."""
        try:
            with self._world.together():
                return next(examples)
        except InputError:
            if step != saved:
                self._save(step, self._position(resumed, step))
            raise

    def _position(self, resumed: State, step: int) -> int:
        """Samples that the run has seen after so many steps."""
        return resumed.samples + (step - resumed.step) * self._settings.global_batch

    def _step(self, step: int, position: int, batches: Sequence[Sequence[Example]]) -> float:
        began = time.monotonic()
        try:
            loss, norm = self._training.step(step - 1, batches)
        except DivergedError as error:
            place = self._dumped(step, position, batches, error)
            raise DivergedError(f"{error}; python -m jobs.repro {place} does it again") from error
        took = time.monotonic() - began
        values: dict[str, Any] = {
            "step": step,
            "loss": loss,
            "lr": self._training.optimizer.rate(step - 1),
            "grad_norm": norm,
            **self._told.work.speed(self._settings.global_batch, took, self._world.size),
            **memory(self._training.device),
        }
        weight = self._reference_weight()
        if weight is not None:
            values["reference_weight"] = weight
        if step % self._course.held_out.settings.every == 0 or step == self._settings.steps:
            values |= self._held_out()
        self._write(values)
        if self._told.validation is not None and self._told.validation.settings.due(step):
            self._validate(step, self._told.validation)
        return loss

    def _validate(self, step: int, validation: Validation) -> None:
        sampled = validation.sampled()
        with self._world.together():
            for key, sheet in validation.write(step, sampled).items():
                self._metrics.show(step, f"validation/{key}", sheet)

    def _resume(self) -> State:
        """Puts back the last checkpoint. Returns where the run stands."""
        latest = self._checkpoints.latest()
        state = State(0, 0, {}, {})
        with self._world.together():
            if latest is not None:
                state = restore(
                    latest, self._identity, self._weights, self._training.optimizer.restore
                )
        if not self._world.same(state.step):
            raise InputError(
                f"{self._checkpoints.folder}: the workers do not see the same checkpoints there; "
                "wanted a folder that all machines share"
            )
        self._constants = dict(state.constants)
        with self._world.together():
            if self._world.leads:
                self._metrics.rewind(state.step if latest else -1)
        return state

    def _save(self, step: int, samples: int) -> None:
        with self._world.together():
            if self._world.leads:
                state = State(step, samples, self._constants, self._identity)
                optimizer = self._training.optimizer.state()
                self._told.saved(self._checkpoints.save(state, self._weights, optimizer))

    def _write(self, values: Mapping[str, Any]) -> None:
        with self._world.together():
            if self._world.leads:
                self._metrics.write(values)

    def _held_out(self) -> dict[str, float]:
        course, batch = self._course, self._settings.batch
        measured = course.held_out.measure(
            lambda examples: self._training.shared_losses(examples, batch),
            batch * self._world.size,
            course.with_reference,
            self._reference_weight,
        )
        if course.with_reference:
            now = measured.mean(NONE)
            without = self._constants.setdefault("held_out_none", now)
            if not abs(now - without) <= _MOVED * without:
                raise DivergedError(
                    f"the loss without a reference was {without} and is {now}: it does not depend "
                    "on the adapter, so the base has changed; start a new run"
                )
        return {f"held_out_{name}": value for name, value in measured.numbers().items()}

    def _dumped(self, step: int, position: int, batches: Batches, error: DivergedError) -> str:
        """All that a step was made of, written by every worker; where it will be found."""
        rank = self._world.rank
        given = Given(step, rank, position + rank * self._share, batches)
        with self._world.together():
            weights = self._weights if self._world.leads else None
            written = dump(self._folder, error, given, weights)
        name = written.relative_to(self._folder).as_posix()
        return storage.join(self._told.place or str(self._folder), name)

    def _reference_weight(self) -> float | None:
        """Of the last batches of all workers: they all know it, or none does."""
        weight = self._told.reference_weight()
        return None if weight is None else self._world.total(weight) / self._world.size

    def _examples(self, positions: range) -> Generator[list[list[Example]]]:
        """One worker's batches of each optimizer step at these positions, read ahead by threads.

        Worker r has the r-th part of each step, so that what is drawn at a position is the same
        in every world.
        """
        settings, share = self._settings, self._share
        steps = range(
            positions.start + self._world.rank * share, positions.stop, settings.global_batch
        )
        read = partial(self._course.example, settings)
        mine = (first + at for first in steps for at in range(share))
        most = (1 + _AHEAD) * share
        with closing(read_ahead(read, mine, settings.readers, most)) as ahead:
            for _ in steps:
                yield [list(islice(ahead, settings.batch)) for _ in range(0, share, settings.batch)]
