"""What a generation is to show: held-out samples of a run, and what its run file asks for."""

from __future__ import annotations

import io
import json
import logging
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from jobs.generate_settings import GenerateRun, WishSettings
from jobs.generator import Wish
from jobs.train_settings import TrainRun
from jobs.wish_file import read_wishes
from pipeline import storage
from pipeline.errors import InputError
from pipeline.reference import open_reference
from pipeline.shard_reader import ShardReader
from stages.sample import SampleSettings
from training.dataset import LatentDataset
from training.held_out import split

_log = logging.getLogger(__name__)

_FEW_WORDS = 20  # design, "Sampling": CogVideoX was trained on long captions


def wishes_of(run: GenerateRun, training: TrainRun | None, sample: SampleSettings) -> list[Wish]:
    """All of them, their pictures ready. Raises InputError when there is none, or one is bad.

    training: whose held-out samples are taken, None where there is none.
    """
    asked = [
        wish if wish.name else _named(wish, number) for number, wish in enumerate(run.wishes, 1)
    ]
    if run.prompts:
        asked.extend(read_wishes(run.prompts))
    _check_names(asked)
    shown = next((wish.reference for wish in asked if wish.reference), None)
    if shown and training and training.adapter == "none":
        raise InputError(
            f"found the reference {shown} and the training {training.name!r}, which has no adapter "
            "that could read it; name a training of an adapter, or leave references out"
        )
    held_out = [] if training is None else _held_out(run, training)
    wishes = [*held_out, *_asked(asked, run, sample)]
    if not wishes:
        raise InputError("found no video to make; wanted held_out above 0, prompts or [[wishes]]")
    _warn_of_short(wishes)
    return wishes


def _named(wish: WishSettings, number: int) -> WishSettings:
    return replace(wish, name=f"wish{number}")


def _check_names(asked: Sequence[WishSettings]) -> None:
    """Evaluation takes videos of one name for videos of one subject."""
    pictures: dict[str, str] = {}
    for wish in asked:
        known = pictures.setdefault(wish.name, wish.reference)
        if known != wish.reference:
            raise InputError(
                f"name {wish.name!r}: found the references {known or 'none'} and "
                f"{wish.reference or 'none'}, wanted one; give each its own name"
            )


def _asked(
    asked: Sequence[WishSettings], run: GenerateRun, sample: SampleSettings
) -> Iterator[Wish]:
    size = sample.video.width, sample.video.height
    pictures: dict[str, np.ndarray] = {}
    for wish in asked:
        if wish.reference and wish.reference not in pictures:
            picture = open_reference(wish.reference, size, sample.reference)
            pictures[wish.reference] = picture
        yield Wish(
            wish.name,
            wish.prompt,
            wish.entity,
            pictures.get(wish.reference),
            wish.negative_prompt or run.negative_prompt,
            run.seeds if wish.seed is None else (wish.seed,),
        )


def _held_out(run: GenerateRun, training: TrainRun) -> Iterator[Wish]:
    """Samples that were never trained on, of as many subjects as possible."""
    if run.held_out == 0:
        return
    latents = LatentDataset(training.latents or storage.join(run.out, "latents"))
    _, held = split(training.loop.seed, latents.source_ids, training.held_out.share)
    shards = storage.join(run.out, "shards")
    samples = ShardReader(shards)
    numbers = {key: number for number, key in enumerate(samples.index["key"].to_pylist())}
    of_source = {latents.source_ids[number]: latents.keys[number] for number in reversed(held)}
    for key in list(of_source.values())[: run.held_out]:
        if key not in numbers:
            raise InputError(
                f"{shards}: found no sample {key}, which the latents name; build the "
                "latents of these shards"
            )
        _, members = samples[numbers[key]]
        about = json.loads(members["json"])
        picture = np.asarray(Image.open(io.BytesIO(members["reference.png"])).convert("RGB"))
        entity = about["facts"]["entities"]["phrase"]
        yield Wish(key, about["caption"], entity, picture, run.negative_prompt, run.seeds)


def _warn_of_short(wishes: Sequence[Wish]) -> None:
    for prompt in dict.fromkeys(wish.prompt for wish in wishes):
        words = len(prompt.split())
        if words < _FEW_WORDS:
            _log.warning(
                "the prompt '%s' has %d words; the base was trained on long captions, so %d or "
                "more make better videos",
                textwrap.shorten(prompt, 80, placeholder=" ..."),
                words,
                _FEW_WORDS,
            )
