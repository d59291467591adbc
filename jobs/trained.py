"""What samples are drawn with: a training of the run folder, or the file of an adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from jobs.generate_settings import GenerateRun
from jobs.train_settings import TrainRun
from model.adapted import Adapted
from model.adapter_file import (
    ADAPTER,
    AdapterHeader,
    adapter_file,
    load_adapter,
    read_header,
)
from model.config import switched
from model.extra_frame import open_model
from model.fp8 import store_in_fp8
from model.pipeline import CustomVideoXPipeline
from model.weights import Base, identify_base, load_base
from pipeline import storage
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.reference import VERSION as REFERENCE_VERSION
from stages.encoders import LatentsSettings, open_codec, open_text
from stages.resize import RULE
from training.checkpoint import find, is_checkpoint, read_state
from training.dataset import ENCODERS


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left. base: hub name or folder; adapter: its file, None for the base alone.

    made_with: fingerprints of the codec and the text encoder of its latents.
    """

    base: str
    adapter: Path | None
    made_with: Mapping[str, str]
    null_text: Literal["empty", "zeros"]
    snr_shift: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Fingerprints of all that is loaded; adapter: None for the base alone."""

    base: str
    adapter: str | None
    codec: str
    text: str
    snr_shift: float


Opened = tuple[CustomVideoXPipeline, Weights]


def of_training(run: GenerateRun) -> tuple[TrainRun, Trained]:
    """The training of the run folder, and its last checkpoint."""
    place = storage.join(run.out, run.training)
    own, checkpoint = storage.join(place, "config.toml"), Path(find(place))
    if not storage.exists(own) or not is_checkpoint(checkpoint):
        raise InputError(
            f"{place}: found no checkpoint; run `python -m jobs.train` first, or name an adapter"
        )
    training = load(own, TrainRun)
    known = read_state(checkpoint).settings
    trains_base = training.adapter == "none"
    return training, Trained(
        str(checkpoint) if trains_base else find(training.base),
        None if trains_base else checkpoint / ADAPTER,
        {what: known[f"latents.{what}"] for what in ENCODERS},
        training.null_text,
        training.snr_shift,
    )


def open_training(
    run: GenerateRun, trained: Trained, latents: LatentsSettings, text_place: str
) -> Opened:
    """Raises ModelError or InputError when something is not there or does not fit together."""
    if run.offload != "none":  # the encoders come to the GPU when they work
        latents = replace(latents, placement=replace(latents.placement, device="cpu"))
    codec, text = open_codec(latents), open_text(latents, text_place)
    encoders = {"codec": codec.fingerprint(), "text": text.fingerprint()}
    _check_encoders(trained, encoders)
    base = identify_base(trained.base)
    pipe = CustomVideoXPipeline(
        _model(trained, run, latents, base),
        codec,
        text,
        null_text=trained.null_text,
        snr_shift=trained.snr_shift,
        size=(latents.width, latents.height),
    )
    return _placed(pipe, run, base, trained.adapter)


def named_base(run: GenerateRun) -> str:
    """Of a run with an adapter: the run's, or the one that the adapter says it was trained on."""
    return find(run.base or read_header(_adapter(run)).base.name)


def _adapter(run: GenerateRun) -> Path:
    """The file that the run names; of a training's folder that of its last checkpoint."""
    return adapter_file(Path(find(run.adapter)))


def open_adapter(run: GenerateRun) -> Opened:
    """The file that the run names, on `named_base`. Raises ModelError or InputError."""
    file, base = _adapter(run), named_base(run)
    _check_rules(file, read_header(file).made_with)
    pipe = CustomVideoXPipeline.from_pretrained(
        base,
        file,
        codec=run.codec or None,
        text_encoder=run.text or None,
        dtype=_dtype(run),
        fp8_storage=run.base_dtype == "fp8_storage",
        snr_shift=_own_snr_shift(Path(base)),
        tab=run.tab,
        erae=run.erae,
    )
    return _placed(pipe, run, identify_base(base), file)


def _own_snr_shift(base: Path) -> float | None:
    """Of a base that we trained; None where its scheduler says it."""
    return read_state(base).settings["snr_shift"] if is_checkpoint(base) else None


def _placed(pipe: CustomVideoXPipeline, run: GenerateRun, base: Base, file: Path | None) -> Opened:
    adapter = None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    encoders = pipe.codec.fingerprint(), pipe.text_encoder.fingerprint()
    weights = Weights(base.fingerprint, adapter, *encoders, pipe.snr_shift)
    if not torch.cuda.is_available():
        return pipe, weights
    match run.offload:
        case "none":
            pipe.to("cuda")
        case "model":
            pipe.enable_model_cpu_offload()
        case "layers":
            pipe.enable_sequential_cpu_offload()
    return pipe, weights


def _model(trained: Trained, run: GenerateRun, latents: LatentsSettings, base_id: Base) -> Adapted:
    """On the CPU."""
    config = None
    if trained.adapter is not None:
        header = read_header(trained.adapter)
        _check_size(trained.adapter, header, latents)
        _check_rules(trained.adapter, header.made_with)
        config = switched(header.config, run.tab, run.erae)
    base = load_base(trained.base, _dtype(run))
    if run.base_dtype == "fp8_storage":
        store_in_fp8(base)
    model = open_model(base, config)
    if trained.adapter is not None:
        load_adapter(model, trained.adapter, base_id)
    return model


def _dtype(run: GenerateRun) -> torch.dtype:
    return torch.float32 if run.base_dtype == "f32" else torch.bfloat16


def _check_encoders(trained: Trained, found: Mapping[str, str]) -> None:
    for what, here in found.items():
        if trained.made_with[what] != here:
            raise InputError(
                f"{trained.adapter or trained.base}: was trained on latents of the {what} "
                f"{trained.made_with[what]}, this run's is {here}; name that one under [latents] "
                "of the run file, or train again"
            )


def _check_size(file: Path, header: AdapterHeader, latents: LatentsSettings) -> None:
    """An adapter that does not say its size is taken for what it says."""
    size = latents.width, latents.height
    if header.size not in (None, size):
        raise InputError(
            f"{file}: was trained at {'x'.join(map(str, header.size))}, this run's latents are "
            f"{latents.width}x{latents.height}; set that size under [latents] of the run file, or "
            "train again"
        )


def _check_rules(file: Path, made_with: Mapping[str, str]) -> None:
    """An adapter that does not say how its pictures were made is taken for what it says."""
    rule = made_with.get("reference_version", str(REFERENCE_VERSION))
    if rule != str(REFERENCE_VERSION):
        raise InputError(
            f"{file}: was trained on reference pictures of version {rule}, they are made by "
            f"version {REFERENCE_VERSION} now; make samples and latents again and train on those, "
            "or use the code that it was trained with"
        )
    resize = made_with.get("resize", RULE)
    if resize != RULE:
        raise InputError(
            f"{file}: was trained on pictures resized by {resize}, the rule is {RULE} now; make "
            "latents again and train on those, or use the code that it was trained with"
        )
