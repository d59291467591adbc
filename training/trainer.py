"""The loop: from latents to trained weights, to be stopped at any step and started again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import FOLDER, Checkpoints, State, Weights, restore
from training.course import FREE, Course, LoopSettings
from training.measured import NONE
from training.metrics import Metrics, TrainingProgress
from training.speed import Work, memory
from training.step import DivergedError, Example, Training
from training.track import Tracker

_AHEAD = 2
"""Optimizer steps whose samples are read before they are wanted."""
_MOVED = 1e-3
"""How far the loss without a reference may move, relatively; exactly 0 is seen on a CPU."""


@dataclass(frozen=True, slots=True)
class Report:
    """step: optimizer steps done; done: all that were asked for; checkpoint: the last one."""

    step: int
    done: bool
    checkpoint: Path | None


@dataclass(frozen=True, slots=True)
class Told:
    """What else a run tells of itself. open_trackers: of a run that goes on from this step.

    reference_weight: of the network's last batch, None where it does not know.
    """

    work: Work = Work()
    reference_weight: Callable[[], float | None] = lambda: None
    open_trackers: Callable[[int], Sequence[Tracker]] = lambda step: ()


class Trainer:
    """Trains in one folder: `metrics.jsonl` and `checkpoints/`."""

    def __init__(
        self,
        folder: Path,
        training: Training,
        weights: Weights,
        course: Course,
        settings: LoopSettings,
        identity: Mapping[str, Any],
        told: Told | None = None,
    ) -> None:
        """weights: what is stored of the network. identity: all settings that the numbers depend
        on, and what was trained from and on: a checkpoint of another one is refused.
        """
        self._told = told or Told()
        self._training, self._weights, self._course = training, weights, course
        self._settings = settings
        self._identity = {key: value for key, value in identity.items() if key not in FREE}
        self._checkpoints = Checkpoints(folder / FOLDER, settings.keep)
        self._metrics = Metrics(folder, self._told.open_trackers)
        self._constants: dict[str, float] = {}

    def run(self, stop: Callable[[], bool], progress: Callable[[int], TrainingProgress]) -> Report:
        """Goes on from the last checkpoint until all steps are done, or `stop` says so.

        progress: made with the number of steps left. Raises InputError when the checkpoint is
        another run's, DivergedError when the loss is not finite any more.
        """
        with closing(self._metrics):
            return self._run(stop, progress)

    def _run(self, stop: Callable[[], bool], progress: Callable[[int], TrainingProgress]) -> Report:
        first = self._resume()
        last = max(first, self._settings.steps)
        if first == 0:
            self._metrics.write({"step": 0, **self._held_out()})
        step = saved = first
        with progress(last - first) as shown, closing(self._examples(first, last)) as examples:
            for batches in examples:
                if stop():
                    break
                step += 1
                loss = self._step(step, batches)
                shown.show(loss)
                if step % self._settings.checkpoint_every == 0:
                    self._save(step)
                    saved = step
        if step != saved:
            self._save(step)
        return Report(step, step >= self._settings.steps, self._checkpoints.latest())

    def _step(self, step: int, batches: Sequence[Sequence[Example]]) -> float:
        began = time.monotonic()
        loss, norm = self._training.step(step - 1, batches)
        took = time.monotonic() - began
        values: dict[str, Any] = {
            "step": step,
            "loss": loss,
            "lr": self._training.optimizer.rate(step - 1),
            "grad_norm": norm,
            **self._told.work.speed(sum(map(len, batches)), took),
            **memory(self._training.device),
        }
        weight = self._told.reference_weight()
        if weight is not None:
            values["reference_weight"] = weight
        if step % self._course.held_out.settings.every == 0 or step == self._settings.steps:
            values |= self._held_out()
        self._metrics.write(values)
        return loss

    def _resume(self) -> int:
        """Puts back the last checkpoint. Returns the optimizer steps done."""
        latest = self._checkpoints.latest()
        step = 0
        if latest is not None:
            state = restore(latest, self._identity, self._weights, self._training.optimizer.restore)
            step, self._constants = state.step, dict(state.constants)
        self._metrics.rewind(step if latest else -1)
        return step

    def _save(self, step: int) -> None:
        state = State(step, self._constants, self._identity)
        self._checkpoints.save(state, self._weights, self._training.optimizer.state())

    def _held_out(self) -> dict[str, float]:
        course = self._course
        measured = course.held_out.measure(
            self._training.losses,
            self._settings.batch,
            course.with_reference,
            self._told.reference_weight,
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

    def _examples(self, first: int, last: int) -> Generator[list[list[Example]]]:
        """The batches of each optimizer step from `first` to `last`, read ahead by threads."""
        settings, per_step = self._settings, self._settings.batch * self._settings.accumulate
        waiting: deque[Future[Example]] = deque()
        upcoming = iter(range(first * per_step, last * per_step))
        with ThreadPoolExecutor(settings.readers) as pool:
            try:
                for _ in range(first, last):
                    while len(waiting) < (1 + _AHEAD) * per_step:
                        position = next(upcoming, None)
                        if position is None:
                            break
                        waiting.append(pool.submit(self._course.example, settings, position))
                    examples = [waiting.popleft().result() for _ in range(per_step)]
                    yield [
                        examples[at : at + settings.batch]
                        for at in range(0, per_step, settings.batch)
                    ]
            finally:
                pool.shutdown(cancel_futures=True)
