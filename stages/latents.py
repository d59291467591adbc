"""Latents: what training reads of a sample, encoded once and named by what it is made of."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import storage, video
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.errors import InputError, StoreError
from pipeline.frames import Frames
from pipeline.sample_tar import LATENTS, pack, unpack
from pipeline.stage import Stage
from pipeline.weights import Weights

if TYPE_CHECKING:  # every job reads these settings, and only this pass wants the networks
    import torch

    from model.codec import Codec
    from model.text import TextEncoder

DCT, TINY = "dct", "tiny"
"""The codec and the text encoder that need no weights from anywhere."""


@dataclass(frozen=True, slots=True)
class LatentsSettings:
    """How samples become latents.

    codec: a hub name or a folder of CogVideoX's VAE, or "dct", which needs no weights. text: a hub
    name or a folder of a T5 encoder with its tokenizer, or "tiny": one made from the captions.
    width, height: what the samples are scaled to before. weights: what the encoders compute in;
    dtype: of the stored numbers.
    """

    codec: str = "THUDM/CogVideoX-5b"  # the paper, section 6.1
    text: str = "THUDM/CogVideoX-5b"
    width: int = 720  # the paper, section 6.1: 480x720
    height: int = 480
    max_tokens: int = 226  # CogVideoX's own
    weights: Literal["bf16", "f32"] = "bf16"  # as they lie on the hub
    dtype: Literal["f16", "f32"] = "f16"  # ours: its step is far below the VAE's own error

    def __post_init__(self) -> None:
        # 8 pixels are a latent and 2 latents a patch.
        if self.width < 16 or self.height < 16 or self.width % 16 or self.height % 16:
            raise InputError(
                f"latents: found {self.width}x{self.height}, wanted multiples of 16 pixels"
            )
        if self.max_tokens < 2:
            raise InputError(f"latents: found max_tokens {self.max_tokens}, wanted 2 or more")


class Latents(Stage):
    """Encodes video, reference and caption of a sample into one safetensors file.

    video (16, 1 + (F - 1) / 4, h, w) and reference (16, 1, h, w): modes of the codec, scaled; text
    (L, D); in its metadata the key, caption, entity with its token numbers, source_id, width and
    height in pixels, the fingerprints of codec and text, and from the sample its `interval` between
    frames and the `reference_version` that its picture was made by. It lies in a tar of its own, as
    shards hold it. Fails as `sample` when the sample is gone or damaged, `entity` when the phrase
    is not among the caption's tokens, `frames` when the codec takes no such number of them.
    """

    name: ClassVar[str] = "latents"
    version: ClassVar[int] = 2
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

    def settings(self) -> Mapping[str, Any]:
        """A tiny text encoder is made from the corpus, so its name says enough within a ledger."""
        return asdict(self._settings)

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
        return list(starmap(self._build, zip(clips, facts, strict=True)))

    def _build(self, clip: Clip, facts: Facts) -> Outcome:
        sample = facts["sample"]
        made_of = {
            "sample": sample["sha256"],
            "settings": self.settings(),
            "with": self._made_with,
            "version": self.version,
        }
        address = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        name = f"{address[:2]}/{address}.tar"
        url = storage.join(self._out, name)
        try:
            content = storage.read(url)
        except FileNotFoundError:
            made = self._made(clip, facts)
            if isinstance(made, Failed):
                return made
            content = made if storage.create(url, made) else storage.read(url)
        return Measurement(
            {
                "address": address,
                "name": name,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )

    def _made(self, clip: Clip, facts: Facts) -> bytes | Failed:
        """The tar of one sample's latents."""
        sample = facts["sample"]
        try:
            members = unpack(
                clip.clip_id, storage.read(storage.join(self._samples, sample["name"]))
            )
        except StoreError:
            raise
        except (FileNotFoundError, InputError) as error:
            return Failed("sample", f"its sample is missing or damaged: {error}")
        encoded = self._encode(clip, facts["entities"]["phrase"], members)
        if isinstance(encoded, Failed):
            return encoded
        return pack(clip.clip_id, {LATENTS[0]: encoded})

    def _encode(self, clip: Clip, phrase: str, members: Mapping[str, bytes]) -> bytes | Failed:
        """The safetensors file."""
        import torch
        from safetensors.torch import save

        from model.errors import ModelError

        note = json.loads(members["json"])
        caption, built_with = note["caption"], note["provenance"]["settings"]
        images = video.decode(members["mp4"])
        if (len(images) - 1) % self._codec.time_factor:
            wanted = f"1 more than a multiple of {self._codec.time_factor}"
            return Failed("frames", f"the sample has {len(images)} frames, wanted {wanted}")
        try:
            tokens = self._text.spans(caption, phrase)
        except ModelError as error:
            return Failed("entity", str(error))
        picture = np.asarray(Image.open(io.BytesIO(members["reference.png"])).convert("RGB"))
        size = self._settings.width, self._settings.height
        dtype = torch.float16 if self._settings.dtype == "f16" else torch.float32
        tensors = {
            "video": encode_pictures(self._codec, images, size),
            "reference": encode_pictures(self._codec, picture[None], size),
            "text": self._text.encode([caption])[0],
        }
        about = {
            "key": clip.clip_id,
            "caption": caption,
            "entity": phrase,
            "entity_tokens": json.dumps(tokens),
            "source_id": clip.source_id,
            **self._made_with,
            "width": str(size[0]),
            "height": str(size[1]),
            "interval": str(built_with["interval"]),
            "reference_version": str(built_with["reference_version"]),
        }
        stored = {name: t.to("cpu", dtype).contiguous() for name, t in tensors.items()}
        return _in_order(save(stored, about))


def _in_order(blob: bytes) -> bytes:
    """A safetensors file with the words of its header sorted: its writer shuffles them."""
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.dumps(json.loads(blob[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    padded = header.encode("ascii")
    padded += b" " * (-len(padded) % 8)  # the numbers stay aligned
    return struct.pack("<Q", len(padded)) + padded + blob[8 + size :]


def encoder_weights(settings: LatentsSettings) -> list[Weights]:
    """What codec and text encoder are loaded from, where they are not ours."""
    wanted = []
    if settings.codec != DCT:
        wanted.append(_weights(settings.codec, "latents.codec", "vae"))
    if settings.text != TINY:
        wanted.append(text_weights(settings.text, "latents.text"))
    return wanted


def text_weights(name: str, setting: str) -> Weights:
    """Of a text encoder, as a pipeline holds it."""
    return _weights(name, setting, "tokenizer", "text_encoder")


def _weights(name: str, setting: str, *parts: str) -> Weights:
    """Of these parts of a pipeline, or of the folder of one alone."""
    if Path(name, "config.json").is_file():
        return Weights(name, setting)
    return Weights(name, setting, files=tuple(f"{part}/*" for part in parts))


def open_codec(settings: LatentsSettings) -> Codec:
    """The codec of these settings. Raises InputError when it cannot be loaded."""
    from model.codec import DctCodec, VaeCodec
    from model.errors import ModelError

    try:
        if settings.codec == DCT:
            return DctCodec()
        return VaeCodec(settings.codec, _dtype(settings), _device())
    except ModelError as error:
        raise InputError(f"latents.{error}") from error


def open_text(settings: LatentsSettings, place: str) -> TextEncoder:
    """The text encoder that lies there. Raises InputError when it cannot be loaded."""
    from model.errors import ModelError
    from model.text import TextEncoder

    try:
        return TextEncoder(place, settings.max_tokens, _dtype(settings), _device())
    except ModelError as error:
        raise InputError(f"latents.{error}") from error


def _dtype(settings: LatentsSettings) -> torch.dtype:
    import torch

    return torch.bfloat16 if settings.weights == "bf16" else torch.float32


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def encode_pictures(codec: Codec, images: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(16, 1 + (N - 1) / 4, h, w) fp32 on the CPU: the mode of the codec, scaled.

    images: (N, H, W, 3) uint8 RGB, one for a reference; size: (width, height) that they get first.
    """
    import torch

    width, height = size
    if images.shape[1:3] != (height, width):
        shrinks = height * width < images.shape[1] * images.shape[2]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        images = np.stack([cv2.resize(image, size, interpolation=how) for image in images])
    pixels = torch.tensor(images).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        return codec.encode(pixels).mode()[0].cpu()
