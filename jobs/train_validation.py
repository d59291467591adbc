"""The validation videos of a training: with the codec that made its latents, if it is at hand."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from jobs.curation import recorded
from jobs.train_settings import TrainRun
from jobs.train_subject import Subject
from model.codec import Codec, DctCodec
from model.offload import visiting
from model.pixels import to_rgb
from pipeline.errors import InputError
from stages.encoders import open_codec
from training.course import Course
from training.validation import Decode, Validation, preview
from training.world import World

_log = logging.getLogger(__name__)


def validation(
    run: TrainRun, subject: Subject, course: Course, place: str, world: World
) -> Validation | None:
    """None where no videos are wanted. place: of the training."""
    if not run.validation.every:
        return None
    return Validation(
        place,
        subject.model,
        course.held_out.samples,
        course.null_text,
        run.validation,
        run.snr_shift,
        _decoder(run, subject, world),
        world,
    )


def _decoder(run: TrainRun, subject: Subject, world: World) -> Decode:
    """Says in a line why the videos are those of latents, where they are."""
    wanted = subject.dataset.made_with["codec"]
    try:
        codec = _codec(run, wanted)
    except InputError as error:
        if world.leads:
            _log.warning("validation shows latents, not pictures: %s", error)
        return preview

    @torch.no_grad()
    def decode(latents: Tensor) -> np.ndarray:
        with visiting(codec.networks, world.device):
            return to_rgb(codec.decode(latents.transpose(0, 1)[None].to(world.device))[0])

    return decode


def _codec(run: TrainRun, wanted: str) -> Codec:
    """On the CPU; it visits the GPU when it decodes. Raises InputError."""
    codec: Codec = DctCodec()
    if codec.fingerprint() != wanted:
        latents = recorded(run.out).latents
        codec = open_codec(replace(latents, placement=replace(latents.placement, device="cpu")))
    if codec.fingerprint() != wanted:
        raise InputError(
            f"the codec of {run.out} is {codec.fingerprint()}, the latents were made by {wanted}"
        )
    return codec
