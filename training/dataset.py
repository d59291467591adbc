"""Latents of samples, read from their shards.

Shapes: T latent frames, C channels, H and W the latents' height and width, L text tokens of
width D.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.bias import entity_mask
from pipeline import storage
from pipeline.errors import InputError
from pipeline.latents_file import FORMAT, Part, parse
from pipeline.shard_reader import ShardReader
from pipeline.shards import INDEX
from training.order import normal

MEMBER = "safetensors"
"""A sample of latents has this one member."""

ENCODERS = ("codec", "text")
"""Of `Latents.made_with`: fingerprints, there in all latents."""

_PICTURES = ("width", "height", "resize", "interval", "reference_version", "augment")
"""Of `Latents.made_with`: sizes in pixels, frames between frames, and the rules of the pictures."""

_DTYPES = {"F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True, slots=True)
class Latents:
    """One sample. video: (T, C, H, W), reference: (1, C, H, W), text: (L, D), all fp32.

    caption, entity: the prompt and the phrase in it that names the subject; entity_tokens: its
    token numbers. made_with: ENCODERS, and of the pictures width and height in pixels, interval and
    the rules they were made by, as far as the latents say them; the same in a whole dataset.
    std: of the posterior whose mean `video` is, None where it is 0. variants: (k, C, H, W), other
    views of the reference, None where there are none.
    """

    key: str
    source_id: str
    video: Tensor
    reference: Tensor
    text: Tensor
    caption: str
    entity: str
    entity_tokens: tuple[int, ...]
    made_with: Mapping[str, str]
    std: Tensor | None = None
    variants: Tensor | None = None

    def drawn(self, name: str) -> Tensor:
        """(T, C, H, W) fp32: the latents of the posterior that belong to this name."""
        if self.std is None:
            return self.video
        noise = torch.from_numpy(normal(f"posterior/{name}", self.std.shape))
        return torch.addcmul(self.video, self.std, noise)

    def view(self, chance: float) -> Tensor:
        """(1, C, H, W) fp32: the reference or one of its variants. chance: in [0, 1), decides."""
        if self.variants is None:
            return self.reference
        number = int(chance * (1 + len(self.variants)))
        return self.variants[number - 1 : number] if number else self.reference

    def entity_mask(self) -> Tensor:
        """(L,) bool, True at the entity's tokens."""
        return entity_mask([self.entity_tokens], len(self.text))[0]


class LatentDataset:
    """The samples of a folder of latents, by number, in the order of their keys.

    So a dataset that is cut into other shards is trained on in the same order. Raises InputError
    when there are none, or when a sample was made with another codec, text encoder, size, interval
    or rule of the reference than the first.
    """

    def __init__(self, url: str) -> None:
        if not storage.exists(storage.join(url, INDEX)):
            raise InputError(f"{url}: found no latents; run `python -m jobs.latents` first")
        self._reader = ShardReader(url)
        if len(self._reader) == 0:
            raise InputError(f"{url}: the index of latents is empty; loosen the filters of the run")
        keys = self._reader.index["key"].to_pylist()
        sources = self._reader.index["source_id"].to_pylist()
        self._numbers = sorted(range(len(keys)), key=keys.__getitem__)
        self.url = url
        self.dataset_id = self._reader.dataset_id
        self.keys = [keys[number] for number in self._numbers]
        self.source_ids = [sources[number] for number in self._numbers]
        self._first = self._read(0)

    @property
    def made_with(self) -> Mapping[str, str]:
        """See `Latents`."""
        return self._first.made_with

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Latents:
        """Reads one sample alone; safe to call from threads."""
        sample = self._read(number)
        for what in (*ENCODERS, *_PICTURES):
            found, wanted = sample.made_with.get(what), self._first.made_with.get(what)
            if found != wanted:
                raise InputError(
                    f"{self.url}: sample {sample.key} has the {what} {found}, others {wanted}; "
                    "make the latents again"
                )
        if sample.video.shape != self._first.video.shape:
            raise InputError(
                f"{self.url}: sample {sample.key} has latents of {tuple(sample.video.shape)}, "
                f"others {tuple(self._first.video.shape)}; make the latents again"
            )
        return sample

    def _read(self, number: int) -> Latents:
        key, members = self._reader.views(self._numbers[number])
        if MEMBER not in members:
            raise InputError(
                f"{self.url}: sample {key} holds {', '.join(sorted(members))} and no latents; "
                "name the folder that `python -m jobs.latents` wrote"
            )
        return unpack(f"{self.url}: sample {key}", self.source_ids[number], members[MEMBER])


def unpack(where: str, source_id: str, blob: bytes | memoryview) -> Latents:
    """One sample from its safetensors blob. Raises InputError, which begins with `where`."""
    try:
        about, parts = parse(blob)
        if about.get("format") != FORMAT:
            raise InputError(
                f"{where}: found latents of the format {about.get('format', 'before 3')}, wanted "
                f"{FORMAT}; make them again: python -m jobs.latents"
            )
        return Latents(
            key=about["key"],
            source_id=source_id,
            video=_frames_first(parts["video"]),
            reference=_frames_first(parts["reference"]),
            text=_stored(parts["text"]).to(torch.float32, copy=True),
            caption=about["caption"],
            entity=about["entity"],
            entity_tokens=tuple(json.loads(about["entity_tokens"])),
            made_with={
                **{what: about[what] for what in ENCODERS},
                **{what: about[what] for what in _PICTURES if what in about},
            },
            std=_frames_first(parts["video_std"]) if "video_std" in parts else None,
            variants=_frames_first(parts["variants"]) if "variants" in parts else None,
        )
    except (struct.error, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{where}: damaged latents: {error}; make the latents again") from error


def _frames_first(part: Part) -> Tensor:
    """(C, T, H, W) as stored to (T, C, H, W) fp32, copied once."""
    stored = _stored(part).transpose(0, 1)
    return torch.empty(stored.shape, dtype=torch.float32).copy_(stored)


def _stored(part: Part) -> Tensor:
    """Where it lies in the file, to be read alone."""
    numbers = np.frombuffer(part.content, _DTYPES[part.dtype])
    # DLPack, since torch warns of every other view of bytes that may not be written to.
    return torch.from_dlpack(numbers).view(part.shape)
