"""Trains an adapter on a frozen base, or a base from scratch, on the latents of a run.

Started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.command import finish
from jobs.curation import recorded
from jobs.order import recorded_text
from jobs.train_settings import TrainRun
from model.adapted import Adapted
from model.config import OWN, TINY, AdapterConfig, TransformerConfig
from model.errors import ModelError
from model.extra_frame import open_model
from model.text import TextEncoder
from model.weights import Base, identify_base, init_tiny_base, load_base
from pipeline import storage
from pipeline.config import dump, load
from pipeline.errors import InputError
from pipeline.lease import Lease
from pipeline.stop import Stop
from training.checkpoint import Weights, find, flat, is_checkpoint, read_state
from training.course import Course
from training.dataset import ENCODERS, LatentDataset
from training.held_out import hold_out, split
from training.metrics import TrainingProgress
from training.objective import noise_schedule
from training.speed import Work
from training.step import DivergedError, Training
from training.track import check_trackers, open_trackers
from training.trainer import Told, Trainer
from training.weights import AdapterWeights, BaseWeights

_TINY = "tiny"
_ELSEWHERE = ("out", "name", "latents", "text", "base", "threads")
"""Keys that say where things are: what they hold is in the identity of a run instead."""


def main() -> int:
    """0 when all steps are done; 1 when the loss is not a number any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="RUN.toml", help="the run file of the training")
    parser.add_argument("--out", help="run folder")
    given = parser.parse_args()
    run = load(given.config, TrainRun, {"out": given.out})
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER, or out in the run file")
    stop = Stop()
    stop.listen()
    try:
        return _train(run, stop)
    except ModelError as error:
        raise InputError(str(error)) from error


def _train(run: TrainRun, stop: Stop) -> int:
    folder = storage.local(storage.join(run.out, run.name))
    if folder is None:
        raise InputError(f"{run.out}: a training writes to a local folder; name one with --out")
    check_trackers(run.track)
    with Lease(str(folder / "lease.json")):
        if run.threads:
            torch.set_num_threads(run.threads)
        subject = _open(run, LatentDataset(run.latents or storage.join(run.out, "latents")))
        trainer = _trainer(run, folder, subject)
        storage.write(str(folder / "config.toml"), dump(run).encode())
        print(_said(run, folder, subject), flush=True)

        def progress(left: int) -> TrainingProgress:
            return TrainingProgress(run.name, left, str(folder / "status.json"))

        try:
            report = trainer.run(stop, progress)
        except DivergedError as error:
            print(f"error: {error}", flush=True)
            return 1
    if not report.done:
        print(f"{folder}: stopped after step {report.step}; the same command goes on from here")
        return stop.exit_code
    print(f"{folder}: step {report.step} of {run.loop.steps} done; weights in {report.checkpoint}")
    return 0


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is trained, on what."""

    dataset: LatentDataset
    model: Adapted
    weights: Weights
    base: str
    null_text: Tensor


def _open(run: TrainRun, dataset: LatentDataset) -> _Subject:
    """Loads the base and puts the adapter on it. Raises InputError, ModelError."""
    adapter = None if run.adapter == "none" else run.adapter
    if adapter is not None and adapter.erae.train and adapter.erae.layers != OWN:
        raise InputError(
            f'adapter.erae.train: found true with erae.layers = "{adapter.erae.layers}", whose '
            f'region is of the step before, and training has none; set layers to "{OWN}", or train '
            "to false"
        )
    if run.base == _TINY and adapter is not None:
        raise InputError(
            f'base: found "{_TINY}" and an adapter; train the tiny base first, with adapter = '
            '"none", and name its folder here'
        )
    if run.base == _TINY:
        base = Base(_TINY, "", f"random weights of seed {run.loop.seed}")
        transformer = init_tiny_base(run.loop.seed, _fitting(dataset))
    else:
        place = find(run.base)
        _check_base(run, place, dataset)
        base = identify_base(place)
        trains_base = adapter is None or run.base_dtype == "f32"
        transformer = load_base(place, torch.float32 if trains_base else torch.bfloat16)
    _check_sizes(run, transformer.config, dataset)
    model = open_model(transformer, adapter, run.loop.seed)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    weights = (
        BaseWeights(model)
        if adapter is None
        else AdapterWeights(model, base, {"dataset": dataset.dataset_id, **dataset.made_with})
    )
    return _Subject(dataset, model, weights, base.fingerprint, _null_text(run, adapter, dataset))


def _trainer(run: TrainRun, folder: Path, subject: _Subject) -> Trainer:
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
    training = Training(model, trained, noise_schedule(run.snr_shift), run.optimizer)
    identity = _identity(run, subject)
    told = Told(
        Work(tokens=_tokens(run, subject)),
        model.reference_weight,
        partial(open_trackers, folder, run.track, run.name, identity),
    )
    return Trainer(folder, training, subject.weights, course, run.loop, identity, told)


def _tokens(run: TrainRun, subject: _Subject) -> int:
    """Of one sample: text, video, and the reference where there is one."""
    sample, patch = subject.dataset[0], subject.model.transformer.config["patch_size"]
    pictures = len(sample.video) + (run.adapter != "none") * len(sample.reference)
    return len(sample.text) + pictures * sample.video[0, 0].numel() // patch**2


def _identity(run: TrainRun, subject: _Subject) -> dict[str, Any]:
    """All that the numbers of this training depend on, by dotted key."""
    settings = {key: value for key, value in flat(run).items() if key not in _ELSEWHERE}
    dataset = subject.dataset  # its id stands for all that its latents were made with
    encoders = {f"latents.{what}": dataset.made_with[what] for what in ENCODERS}
    return {**settings, **encoders, "dataset": dataset.dataset_id, "base": subject.base}


def _fitting(dataset: LatentDataset) -> TransformerConfig:
    """The tiny base for latents of this size."""
    frames, _, height, width = dataset[0].video.shape
    tokens, dim = dataset[0].text.shape
    return replace(
        TINY,
        text_embed_dim=dim,
        max_text_seq_length=tokens,
        sample_width=width,
        sample_height=height,
        sample_frames=4 * (frames - 1) + 1,
    )


def _check_base(run: TrainRun, place: str, dataset: LatentDataset) -> None:
    """A base of ours knows what it was trained on, and whom it held out."""
    folder = storage.local(place)
    if folder is None or not is_checkpoint(folder):
        return
    known = read_state(folder).settings
    for key, value in (("loop.seed", run.loop.seed), ("held_out.share", run.held_out.share)):
        if known[key] != value:
            raise InputError(
                f"{key}: found {value}, the base {place} was trained with {known[key]}; give both "
                "the same, or subjects that are held out here were trained on there"
            )
    for what in ENCODERS:
        here, there = dataset.made_with[what], known[f"latents.{what}"]
        if there != here:
            raise InputError(
                f"{dataset.url}: these latents were made by the {what} {here}, the base {place} "
                f"was trained on {there}; make them again with that one, or train another base"
            )


def _check_sizes(run: TrainRun, config: Any, dataset: LatentDataset) -> None:
    sample = dataset[0]
    channels, dim = sample.video.shape[1], sample.text.shape[1]
    for what, here, wanted in (
        ("channels", channels, config["in_channels"]),
        ("numbers per text token", dim, config["text_embed_dim"]),
    ):
        if here != wanted:
            raise InputError(
                f"{dataset.url}: found latents of {here} {what}, the base {run.base} wants "
                f"{wanted}; make them with the base's own codec and text encoder"
            )


def _null_text(run: TrainRun, adapter: AdapterConfig | None, dataset: LatentDataset) -> Tensor:
    """(L, D) fp32: what stands for a dropped text."""
    like = dataset[0].text
    if (adapter.null_text if adapter else run.null_text) == "zeros":
        return torch.zeros_like(like)
    place = run.text or recorded_text(recorded(run.out))
    for dtype in (torch.float32, torch.bfloat16):
        encoder = TextEncoder(place, like.shape[0], dtype)
        if encoder.fingerprint() == dataset.made_with["text"]:
            return encoder.encode([""])[0].float().cpu()
    raise InputError(
        f"text: {place} is not the encoder that made the text of {dataset.url}; name that one, "
        "or make the latents again"
    )


def _said(run: TrainRun, folder: Path, subject: _Subject) -> str:
    what = "all weights" if run.adapter == "none" else f"an adapter of rank {run.adapter.rank}"
    weights = sum(p.numel() for p in subject.model.parameters() if p.requires_grad)
    return (
        f"{folder}: trains {what} ({weights:,}) on {len(subject.dataset)} samples of dataset "
        f"{subject.dataset.dataset_id[:12]}, {run.loop.batch * run.loop.accumulate} a step"
    )


if __name__ == "__main__":
    finish(main)
