"""The parity gate of a training: what it is to look at, by the run file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from jobs.train_settings import TrainRun
from jobs.train_subject import TINY_BASE, Subject, fitting
from model.stock import Read, stored
from model.weights import init_tiny_base
from training.checkpoint import find
from training.course import Course
from training.objective import noise_schedule
from training.parity import parity, refuse
from training.parity_case import Case
from training.step import Training
from training.world import World


def gate(
    run: TrainRun, subject: Subject, course: Course, training: Training, folder: Path
) -> Callable[[bool], None]:
    """Told whether the run goes on from a checkpoint, it does the checks that are due then.

    The worker that leads says what comes of them. Raises InputError when one fails.
    """
    from_scratch = run.base == TINY_BASE
    case = Case(
        model=subject.model,
        base=run.base if from_scratch else find(run.base),
        from_scratch=from_scratch,
        stored=_fresh(run, subject) if from_scratch else lambda: stored(find(run.base)),
        training=training,
        trained=dict(training.optimizer.parameters),
        weights=subject.weights,
        course=course,
        loop=run.loop,
        optimizer=run.optimizer,
        dataset=subject.dataset,
        schedule=noise_schedule(run.snr_shift),
        snr_shift=run.snr_shift,
        folder=folder,
        rounded=run.compute.compile or run.compute.shard_base,
    )

    def check(resumed: bool) -> None:
        refuse(parity(case, _line(training.world), resumed))

    return check


def _fresh(run: TrainRun, subject: Subject) -> Callable[[], AbstractContextManager[Read]]:
    """The weights of a base that no file holds yet: drawn once more."""

    @contextmanager
    def drawn() -> Iterator[Read]:
        weights = init_tiny_base(run.loop.seed, fitting(subject.dataset)).state_dict()
        yield weights.__getitem__

    return drawn


def _line(world: World) -> Callable[[str], None]:
    def say(line: str) -> None:
        if world.leads:
            print(line, flush=True)

    return say
