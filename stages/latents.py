"""Latents: what training reads of a sample, encoded once and named by what it is made of."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import storage, video
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.errors import InputError, StoreError
from pipeline.frames import Frames
from pipeline.latents_file import FORMAT, in_order
from pipeline.sample_tar import LATENTS, pack, unpack
from pipeline.stage import Resources, Stage
from pipeline.weights import Weights
from stages.augment import augmented
from stages.encoders import (
    LatentsSettings,
    encode_pictures,
    encode_video,
    encoder_weights,
    open_codec,
    open_text,
)
from stages.networks.placement import numbers_of
from stages.resize import RULE

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class _Draft:
    """A sample that has been read and is not encoded yet."""

    clip: Clip
    url: str
    caption: str
    phrase: str
    tokens: list[int]
    images: np.ndarray
    picture: np.ndarray
    built_with: Mapping[str, Any]


class Latents(Stage):
    """Encodes video, reference and caption of a sample into one safetensors file.

    video, video_std (16, 1 + (F - 1) / 4, h, w): mean and standard deviation of the codec's
    posterior, untiled and scaled; without the second where it is 0 everywhere. reference (16, 1, h,
    w) and variants (16, k, h, w): modes, these of the augmented references, if any. text (L, D).
    In its metadata the format, key, caption, entity with its token numbers, source_id, width and
    height in pixels, the rule of resizing, the fingerprints of codec and text, how references were
    augmented, and from the sample its `interval` between frames and the `reference_version` that
    its picture was made by. It lies in a tar of its own, as shards hold it.

    Fails as `sample` when the sample is gone or damaged, `entity` when the phrase is not among the
    caption's tokens, `frames` when the codec takes no such number of them, `not_finite` when an
    encoder overflowed.
    """

    name: ClassVar[str] = "latents"
    version: ClassVar[int] = 3
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("address", pa.string()),
            ("name", pa.string()),
            ("bytes", pa.int64()),
            ("sha256", pa.string()),
        ]
    )
    needs = ("entities", "sample")

    def __init__(self, settings: LatentsSettings, text: str, samples: str, out: str) -> None:
        """text: where the text encoder really lies. samples, out: folders of the samples and of
        the latents; where they are changes nothing about them.
        """
        self._settings = settings
        self._text_place = text
        self._samples, self._out = samples, out
        self.resources = Resources(batch=settings.placement.batch)

    def settings(self) -> Mapping[str, Any]:
        """A tiny text encoder is made from the corpus, so its name says enough within a ledger."""
        augment = asdict(self._settings.augment) if self._settings.augment.variants else None
        return {**numbers_of(self._settings), "augment": augment, "resize": RULE}

    def weights(self) -> Sequence[Weights]:
        """Of both encoders, as far as they do not come from us."""
        return encoder_weights(self._settings)

    def setup(self) -> None:
        """Loads both encoders. Raises InputError when they cannot be."""
        cv2.setNumThreads(1)
        self._codec = open_codec(self._settings)
        self._text = open_text(self._settings, self._text_place)
        self._made_with = {
            "codec": self._codec.fingerprint(),
            "text": self._text.fingerprint(),
        }

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """One file per clip, there when this returns."""
        names = [self._name(each) for each in facts]
        urls = [storage.join(self._out, name) for name in names]
        drafts = {
            url: self._draft(clip, each, url)
            for url, clip, each in zip(urls, clips, facts, strict=True)
            if not storage.exists(url)
        }
        failed = {url: draft for url, draft in drafts.items() if isinstance(draft, Failed)}
        fresh = [draft for draft in drafts.values() if isinstance(draft, _Draft)]
        for draft, text in zip(fresh, self._texts([draft.caption for draft in fresh]), strict=True):
            encoded = self._encode(draft, text)
            if isinstance(encoded, Failed):
                failed[draft.url] = encoded
            else:
                storage.create(draft.url, pack(draft.clip.clip_id, {LATENTS[0]: encoded}))
        return [
            failed[url] if url in failed else _measured(name, storage.read(url))
            for name, url in zip(names, urls, strict=True)
        ]

    def _name(self, facts: Facts) -> str:
        """Of the tar: a hash of everything that decides what is in it."""
        made_of = {
            "sample": facts["sample"]["sha256"],
            "phrase": facts["entities"]["phrase"],
            "settings": self.settings(),
            "with": self._made_with,
            "format": FORMAT,
            "version": self.version,
        }
        address = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return f"{address[:2]}/{address}.tar"

    def _draft(self, clip: Clip, facts: Facts, url: str) -> _Draft | Failed:
        from model.errors import ModelError

        try:
            packed = storage.read(storage.join(self._samples, facts["sample"]["name"]))
            if hashlib.sha256(packed).hexdigest() != facts["sample"]["sha256"]:
                raise InputError("found other bytes than were built")
            members = unpack(clip.clip_id, packed)
        except StoreError:
            raise
        except (FileNotFoundError, InputError) as error:
            return Failed("sample", f"its sample is missing or damaged: {error}")
        note, phrase = json.loads(members["json"]), facts["entities"]["phrase"]
        images = video.decode(members["mp4"])
        if (len(images) - 1) % self._codec.time_factor:
            wanted = f"1 more than a multiple of {self._codec.time_factor}"
            return Failed("frames", f"the sample has {len(images)} frames, wanted {wanted}")
        try:
            tokens = self._text.spans(note["caption"], phrase)
        except ModelError as error:
            return Failed("entity", str(error))
        picture = np.asarray(Image.open(io.BytesIO(members["reference.png"])).convert("RGB"))
        built_with = note["provenance"]["settings"]
        return _Draft(clip, url, note["caption"], phrase, tokens, images, picture, built_with)

    def _texts(self, captions: Sequence[str]) -> list[torch.Tensor]:
        """(L, D) each. Always as many at once, so that no text's bits depend on its company."""
        size = self._settings.placement.batch
        texts: list[torch.Tensor] = []
        for at in range(0, len(captions), size):
            some = captions[at : at + size]
            texts += self._text.encode([*some, *[""] * (size - len(some))])[: len(some)]
        return texts

    def _encode(self, draft: _Draft, text: torch.Tensor) -> bytes | Failed:
        """The safetensors file."""
        import torch
        from safetensors.torch import save

        key, size = draft.clip.clip_id, (self._settings.width, self._settings.height)
        augment = self._settings.augment
        views = [augmented(draft.picture, f"{key}/{n}", augment) for n in range(augment.variants)]
        posterior = encode_video(self._codec, draft.images, size)
        tensors = {
            "video": posterior.mean[0],
            "video_std": posterior.std[0],
            "reference": encode_pictures(self._codec, draft.picture[None], size),
            "text": text,
        }
        if views:
            modes = [encode_pictures(self._codec, view[None], size) for view in views]
            tensors["variants"] = torch.cat(modes, dim=1)
        dtype = torch.float16 if self._settings.dtype == "f16" else torch.float32
        stored = {name: t.to("cpu", dtype).contiguous() for name, t in tensors.items()}
        for name, tensor in stored.items():
            if not tensor.isfinite().all():
                return Failed("not_finite", f"its {name} has numbers that are not finite")
        if not stored["video_std"].any():
            del stored["video_std"]
        return in_order(save(stored, self._about(draft)))

    def _about(self, draft: _Draft) -> dict[str, str]:
        about = {
            "format": FORMAT,
            "key": draft.clip.clip_id,
            "caption": draft.caption,
            "entity": draft.phrase,
            "entity_tokens": json.dumps(draft.tokens),
            "source_id": draft.clip.source_id,
            **self._made_with,
            "width": str(self._settings.width),
            "height": str(self._settings.height),
            "resize": RULE,
            "interval": str(draft.built_with["interval"]),
            "reference_version": str(draft.built_with["reference_version"]),
        }
        if self._settings.augment.variants:
            about["augment"] = json.dumps(asdict(self._settings.augment), sort_keys=True)
        return about


def _measured(name: str, content: bytes) -> Measurement:
    return Measurement(
        {
            "address": Path(name).stem,
            "name": name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    )
