"""Latents of samples, read from their shards.

Shapes: T latent frames, C channels, H and W the latents' height and width, L text tokens of
width D.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from model.bias import entity_mask
from pipeline import storage
from pipeline.errors import InputError
from pipeline.shard_reader import ShardReader
from pipeline.shards import INDEX

MEMBER = "safetensors"
"""A sample of latents has this one member."""

ENCODERS = ("codec", "text")
"""Of `Latents.made_with`: fingerprints, there in all latents."""

_PICTURES = ("width", "height", "interval", "reference_version")
"""Of `Latents.made_with`: sizes in pixels, frames between frames, and the rule of the reference."""


@dataclass(frozen=True, slots=True)
class Latents:
    """One sample. video: (T, C, H, W), reference: (1, C, H, W), text: (L, D), all fp32.

    caption, entity: the prompt and the phrase in it that names the subject; entity_tokens: its
    token numbers. made_with: ENCODERS, and of the pictures width and height in pixels, interval
    and reference_version, as far as the latents say them; the same in a whole dataset.
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
        key, members = self._reader[self._numbers[number]]
        if MEMBER not in members:
            raise InputError(
                f"{self.url}: sample {key} holds {', '.join(sorted(members))} and no latents; "
                "name the folder that `python -m jobs.latents` wrote"
            )
        return unpack(f"{self.url}: sample {key}", self.source_ids[number], members[MEMBER])


def unpack(where: str, source_id: str, blob: bytes) -> Latents:
    """One sample from its safetensors blob. Raises InputError, which begins with `where`."""
    try:
        tensors = safetensors.torch.load(blob)
        about = metadata(blob)
        return Latents(
            key=about["key"],
            source_id=source_id,
            video=tensors["video"].float().transpose(0, 1).contiguous(),
            reference=tensors["reference"].float().transpose(0, 1).contiguous(),
            text=tensors["text"].float(),
            caption=about["caption"],
            entity=about["entity"],
            entity_tokens=tuple(json.loads(about["entity_tokens"])),
            made_with={
                **{what: about[what] for what in ENCODERS},
                **{what: about[what] for what in _PICTURES if what in about},
            },
        )
    except (SafetensorError, struct.error, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{where}: damaged latents: {error}; make the latents again") from error


def metadata(blob: bytes) -> Mapping[str, str]:
    """The words in the header of a safetensors file."""
    (size,) = struct.unpack("<Q", blob[:8])
    return json.loads(blob[8 : 8 + size]).get("__metadata__", {})
