"""What every worker of a training does: opens what is trained, and runs the loop over it."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from jobs.train_parity import gate
from jobs.train_settings import TrainRun
from jobs.train_subject import Subject, open_subject
from jobs.train_validation import validation
from model.compute import prepare
from model.flops import SampleSize, sizes, step_flops, tokens
from model.hardware import peak
from pipeline import storage
from pipeline.config import dump
from training.checkpoint import flat
from training.course import FREE, Course
from training.dataset import ENCODERS, LatentDataset
from training.deterministic import make_deterministic
from training.held_out import hold_out, split
from training.metrics import TrainingProgress
from training.objective import noise_schedule
from training.speed import Work
from training.step import DivergedError, Training
from training.stored import at_hand
from training.track import check_trackers, open_trackers
from training.trainer import Told, Trainer
from training.world import World

_ELSEWHERE = ("out", "name", "latents", "text", "base", "threads")
"""Keys that say where things are: what they hold is in the identity of a run instead."""
_HOW = ("compute", "launch", "track", "validation")
"""Tables that change no more of the numbers than their rounding, or only show them."""


def changeless(run: TrainRun) -> dict[str, Any]:
    """The settings that the numbers of a training depend on, by dotted key."""
    return {
        key: value
        for key, value in flat(run).items()
        if key.partition(".")[0] not in (*_ELSEWHERE, *_HOW) and key not in FREE
    }


def place_of(run: TrainRun) -> str:
    """Where a training lies: its folder, or a url."""
    return storage.join(run.out, run.name)


def work(run: TrainRun, world: World, stop: Callable[[], int]) -> int:
    """The exit code: 0 when all steps are done, 1 when the loss is not a number any more, 128 and
    the number of the signal when one said so. stop: the number of a signal that this worker heard,
    else 0. Raises InputError, ModelError: in every worker when in one.
    """
    place, loop = place_of(run), run.loop
    with ExitStack() as held:
        with world.together():
            folder, saved = held.enter_context(at_hand(place, loop.keep, loop.keeps))
        return _work(run, world, stop, folder, saved)


def _work(
    run: TrainRun,
    world: World,
    stop: Callable[[], int],
    folder: Path,
    saved: Callable[[Path], None],
) -> int:
    place = place_of(run)
    if run.threads:
        torch.set_num_threads(run.threads)
    if run.deterministic:
        make_deterministic()
    with world.together():
        check_trackers(run.track)
        dataset = LatentDataset(run.latents or storage.join(run.out, "latents"))
        subject = open_subject(run, dataset, world.device)
        trainer = _trainer(run, folder, subject, world, saved)
        if world.leads:
            storage.write(storage.join(place, "config.toml"), dump(run).encode())
            print(_said(run, place, subject, world), flush=True)
    with world.together():
        prepare(subject.model, run.compute)

    def progress(steps: int) -> TrainingProgress:
        if world.leads:
            return TrainingProgress(run.name, steps, storage.join(place, "status.json"))
        return TrainingProgress(run.name, steps, None, stream=io.StringIO())

    try:
        report = trainer.run(stop, progress)
    except DivergedError as error:
        _say(world, f"error: {error}")
        return 1
    if not report.done:
        _say(
            world, f"{place}: stopped after step {report.step}; the same command goes on from here"
        )
        return 128 + report.stopped_by
    last = "" if report.checkpoint is None else report.checkpoint.relative_to(folder).as_posix()
    weights = storage.join(place, last)
    _say(world, f"{place}: step {report.step} of {run.loop.steps} done; weights in {weights}")
    return 0


def _trainer(
    run: TrainRun, folder: Path, subject: Subject, world: World, saved: Callable[[Path], None]
) -> Trainer:
    dataset, model = subject.dataset, subject.model
    numbers, aside = split(run.loop.seed, dataset.source_ids, run.held_out.share)
    with_entity = run.adapter != "none" and run.adapter.erae.train
    held = (aside, dataset.source_ids, dataset.__getitem__, run.held_out)
    course = Course(
        dataset,
        numbers,
        hold_out(run.loop.seed, *held, with_entity, watched=run.adapter != "none"),
        subject.null_text,
        with_reference=run.adapter != "none",
        with_entity=with_entity,
    )
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    training = Training(model, trained, noise_schedule(run.snr_shift), run.optimizer, world)
    identity, place = _identity(run, subject), place_of(run)
    lasting = place if storage.local(place) is None else str(folder.resolve())
    told = Told(
        _cost(subject),
        model.reference_weight,
        partial(open_trackers, folder, lasting, run.track, run.name, identity),
        validation(run, subject, course, place, world),
        saved,
        place,
    )
    parity = gate(run, subject, course, training, folder)
    return Trainer(folder, training, subject.weights, course, run.loop, identity, told, parity)


def _cost(subject: Subject) -> Work:
    """Of one sample, and what this device can do at most."""
    sample, base = subject.dataset[0], sizes(subject.model.transformer)
    frames, _, height, width = sample.video.shape
    size = SampleSize(frames, height, width, len(sample.reference))
    adapter = subject.model.adapter
    flops = step_flops(base, adapter, size).model
    weight = next(subject.model.transformer.parameters())
    return Work(tokens(base, adapter, size), flops, peak(weight.device, weight.dtype))


def _identity(run: TrainRun, subject: Subject) -> dict[str, Any]:
    """All that the numbers of this training depend on, by dotted key."""
    dataset = subject.dataset  # its id stands for all that its latents were made with
    encoders = {f"latents.{what}": dataset.made_with[what] for what in ENCODERS}
    return {**changeless(run), **encoders, "dataset": dataset.dataset_id, "base": subject.base}


def _said(run: TrainRun, place: str, subject: Subject, world: World) -> str:
    what = "all weights" if run.adapter == "none" else f"an adapter of rank {run.adapter.rank}"
    weights = sum(p.numel() for p in subject.model.parameters() if p.requires_grad)
    who = f", {world.size} workers" if world.size > 1 else ""
    return (
        f"{place}: trains {what} ({weights:,}) on {len(subject.dataset)} samples of dataset "
        f"{subject.dataset.dataset_id[:12]}, {run.loop.global_batch} a step{who}"
    )


def _say(world: World, line: str) -> None:
    if world.leads:
        print(line, flush=True)
