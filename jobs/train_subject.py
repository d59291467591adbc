"""What a run file trains: a base, an adapter on it or none, and the latents that both must fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from jobs.curation import recorded
from jobs.order import recorded_text
from jobs.train_settings import TrainRun
from model.adapted import Adapted
from model.config import OWN, TINY, AdapterConfig, TransformerConfig
from model.extra_frame import open_model
from model.fp8 import store_in_fp8
from model.text import TextEncoder
from model.weights import Base, identify_base, init_tiny_base, load_base
from pipeline import storage
from pipeline.errors import InputError
from training.checkpoint import Weights, find, is_checkpoint, read_state
from training.dataset import ENCODERS, LatentDataset
from training.weights import AdapterWeights, BaseWeights

TINY_BASE = "tiny"
"""Of a run file: a base of random weights, to be trained from scratch."""
_FP8 = "fp8_storage"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is trained, on what."""

    dataset: LatentDataset
    model: Adapted
    weights: Weights
    base: str
    null_text: Tensor


def open_subject(run: TrainRun, dataset: LatentDataset, device: torch.device) -> Subject:
    """Loads the base and puts the adapter on it. Raises InputError, ModelError."""
    adapter = None if run.adapter == "none" else run.adapter
    if adapter is not None and adapter.erae.train and adapter.erae.layers != OWN:
        raise InputError(
            f'adapter.erae.train: found true with erae.layers = "{adapter.erae.layers}", whose '
            f'region is of the step before, and training has none; set layers to "{OWN}", or train '
            "to false"
        )
    if adapter is None and run.base_dtype == _FP8:
        raise InputError(
            f'base_dtype: found "{_FP8}" without an adapter; weights that learn need their bits: '
            'set it to "f32"'
        )
    if run.base == TINY_BASE and adapter is not None:
        raise InputError(
            f'base: found "{TINY_BASE}" and an adapter; train the tiny base first, with adapter = '
            '"none", and name its folder here'
        )
    if run.base == TINY_BASE:
        base = Base(TINY_BASE, "", f"random weights of seed {run.loop.seed}")
        transformer = init_tiny_base(run.loop.seed, fitting(dataset))
    else:
        place = find(run.base)
        _check_base(run, place, dataset)
        base = identify_base(place)
        if storage.local(run.base) is None:  # what lies here goes with this process
            base = replace(base, name=run.base)
        trains_base = adapter is None or run.base_dtype == "f32"
        transformer = load_base(place, torch.float32 if trains_base else torch.bfloat16)
        if device.type == "cpu":
            _move_out_of_the_file(transformer)
        if run.base_dtype == _FP8:
            store_in_fp8(transformer)
    _check_sizes(run, transformer.config, dataset)
    model = open_model(transformer, adapter, run.loop.seed)
    model.to(device)
    weights = (
        BaseWeights(model)
        if adapter is None
        else AdapterWeights(model, base, {"dataset": dataset.dataset_id, **dataset.made_with})
    )
    return Subject(dataset, model, weights, base.fingerprint, _null_text(run, adapter, dataset))


def _move_out_of_the_file(base: nn.Module) -> None:
    """The weights lie in the mapped file, where no address is a multiple of 64 as it is elsewhere,
    and a CPU's matrix product may round otherwise for that: 2e-7 were seen in v.
    """
    for weight in base.parameters():
        weight.data = weight.data.clone()


def fitting(dataset: LatentDataset) -> TransformerConfig:
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
