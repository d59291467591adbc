"""The codec and the text encoder of a run's latents, from its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.errors import InputError
from pipeline.weights import Weights
from stages.augment import AugmentSettings
from stages.networks.placement import Placement
from stages.resize import resized

if TYPE_CHECKING:  # every job reads these settings, and only few of them want the networks
    import torch

    from model.codec import Codec, Posterior
    from model.text import TextEncoder

DCT, TINY = "dct", "tiny"
"""The codec and the text encoder that need no weights from anywhere."""


@dataclass(frozen=True, slots=True)
class LatentsSettings:
    """How samples become latents.

    codec: a hub name or a folder of CogVideoX's VAE, or "dct", which needs no weights. text: a hub
    name or a folder of a T5 encoder with its tokenizer, or "tiny": one made from the captions.
    width, height: what the samples are scaled to before. dtype: of the stored numbers. placement:
    of both encoders; its batch is of texts, videos are encoded one by one.
    """

    codec: str = "THUDM/CogVideoX-5b"  # the paper, section 6.1
    text: str = "THUDM/CogVideoX-5b"
    width: int = 720  # the paper, section 6.1: 480x720
    height: int = 480
    max_tokens: int = 226  # CogVideoX's own
    dtype: Literal["f16", "f32"] = "f16"  # ours: its step is far below the VAE's own error
    augment: AugmentSettings = AugmentSettings()
    placement: Placement = Placement(dtype="bf16", batch=8)  # bf16: as they lie on the hub

    def __post_init__(self) -> None:
        # 8 pixels are a latent and 2 latents a patch.
        if self.width < 16 or self.height < 16 or self.width % 16 or self.height % 16:
            raise InputError(
                f"latents: found {self.width}x{self.height}, wanted multiples of 16 pixels"
            )
        if self.max_tokens < 2:
            raise InputError(f"latents: found max_tokens {self.max_tokens}, wanted 2 or more")
        if self.placement.dtype == "f16":
            raise InputError(
                "latents.placement.dtype: found f16, in which T5 overflows; wanted bf16 or f32"
            )


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

    where = settings.placement
    try:
        if settings.codec == DCT:
            return DctCodec()
        return VaeCodec(settings.codec, where.torch_dtype, str(where.torch_device))
    except ModelError as error:
        raise InputError(f"latents.{error}") from error


def open_text(settings: LatentsSettings, place: str) -> TextEncoder:
    """The text encoder that lies there. Raises InputError when it cannot be loaded."""
    from model.errors import ModelError
    from model.text import TextEncoder

    where = settings.placement
    try:
        return TextEncoder(place, settings.max_tokens, where.torch_dtype, str(where.torch_device))
    except ModelError as error:
        raise InputError(f"latents.{error}") from error


def encode_video(codec: Codec, images: np.ndarray, size: tuple[int, int]) -> Posterior:
    """(1, 16, 1 + (N - 1) / 4, h, w) fp32 each, scaled.

    images: (N, H, W, 3) uint8 RGB; size: (width, height) that they get first.
    """
    import torch

    from model.pixels import from_rgb

    with torch.no_grad():
        return codec.encode(from_rgb(resized(images, size)))


def encode_pictures(codec: Codec, images: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """(16, 1 + (N - 1) / 4, h, w) fp32 on the CPU: the mode of the same; one for a reference."""
    return encode_video(codec, images, size).mode()[0].cpu()
