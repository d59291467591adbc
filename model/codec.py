"""Video to latents and back: the CogVideoX VAE, and a transform without weights for the CPU.

B batch, F frames, H, W pixels; T = 1 + (F - 1) / 4 latent frames, h = H / 8, w = W / 8;
k latent channel; c colour, t frame, y, x pixel within one block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from torch import Tensor, nn

from model.errors import ModelError
from model.fingerprint import fingerprint

LATENT_CHANNELS = 16
TIME_FACTOR = 4
SPACE_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Posterior:
    """What encoding says about the latents: mean and std, (B, 16, T, h, w) float32, scaled."""

    mean: Tensor
    std: Tensor

    def mode(self) -> Tensor:
        """The likeliest latents; what a reference picture is encoded to."""
        return self.mean

    def sample(self, generator: torch.Generator) -> Tensor:
        """Latents drawn from it; the noise is float32 and made where the generator lives."""
        noise = torch.randn(
            self.mean.shape, generator=generator, device=generator.device, dtype=torch.float32
        )
        return self.mean + self.std * noise.to(self.mean.device)


class Codec(Protocol):
    """name: its kind; scaling_factor: what latents are multiplied by, inside encode and decode.

    networks: what has weights, and a device. frame_step: videos that are drawn have 1 more frame
    than a multiple of it.
    """

    name: str
    networks: tuple[nn.Module, ...]
    latent_channels: int
    time_factor: int
    frame_step: int
    space_factor: int
    scaling_factor: float

    def fingerprint(self) -> str:
        """Latents of codecs with the same one may be mixed."""
        ...

    def encode(self, video: Tensor) -> Posterior:
        """video: (B, 3, F, H, W) floating in [-1, 1], F = 1 + 4n, sides multiples of 8.

        Raises ModelError for another shape or dtype.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """latents: (B, 16, T, h, w), scaled. Returns (B, 3, F, H, W) float32 within [-1, 1].

        Raises ModelError for another shape.
        """
        ...


# Which coefficients are kept: (colour, time, down, across) frequencies, and the root mean square of
# each for pixels in [-1, 1], in the first frame and later. They are the 16 greatest of 192 (first
# frame) and of 768 (later blocks) on the 17 real clips of ../shared/clips: 25 frames at an interval
# of 3 from frame 3 on, resized to 128x192, all clips alike. Leaving any clip out changes one of
# them at most, and the clips come back at 27.5 dB on average. 14 are the same in both, so that a
# channel means one thing in every latent frame; the last two are the finest shapes of a still
# picture, or motion. The mean square is taken about zero, not about the mean: a video and its
# negative are taken for equally likely, and the map stays linear.
_Frequency = tuple[int, int, int, int]
_SHARED: tuple[tuple[_Frequency, float, float], ...] = (
    ((0, 0, 0, 0), 7.95, 15.12),
    ((1, 0, 0, 0), 2.01, 4.19),
    ((2, 0, 0, 0), 0.67, 1.38),
    ((0, 0, 0, 1), 1.31, 2.48),
    ((0, 0, 1, 0), 1.22, 2.39),
    ((0, 0, 1, 1), 0.62, 1.16),
    ((0, 0, 0, 2), 0.69, 1.24),
    ((0, 0, 2, 0), 0.63, 1.24),
    ((0, 0, 1, 2), 0.41, 0.72),
    ((0, 0, 2, 1), 0.40, 0.73),
    ((0, 0, 0, 3), 0.44, 0.77),
    ((0, 0, 3, 0), 0.43, 0.82),
    ((0, 0, 0, 4), 0.32, 0.60),
    ((1, 0, 0, 1), 0.34, 0.65),
)
_FIRST = {kept: rms for kept, rms, _ in _SHARED} | {(0, 0, 4, 0): 0.29, (0, 0, 2, 2): 0.29}
_LATER = {kept: rms for kept, _, rms in _SHARED} | {(0, 1, 0, 0): 1.49, (0, 2, 0, 0): 0.79}


class DctCodec:
    """Part of an orthogonal cosine transform over colour, time and space; has no weights.

    Blocks are 8x8 pixels of one frame for the first, of four frames after it, as a causal VAE sees
    them. The cosine transform of three colours is an opponent one: brightness, red against blue,
    green against both. Channels are scaled to a mean square of 1 on natural video, each by itself.
    """

    name = "dct"
    networks: tuple[nn.Module, ...] = ()
    latent_channels = LATENT_CHANNELS
    time_factor = TIME_FACTOR
    frame_step = TIME_FACTOR
    space_factor = SPACE_FACTOR
    scaling_factor = 1.0  # every channel has its own

    def __init__(self) -> None:
        self._first, self._first_rms = _basis(_FIRST, 1)
        self._later, self._later_rms = _basis(_LATER, TIME_FACTOR)

    def fingerprint(self) -> str:
        """Of the two tables."""
        return fingerprint({"codec": self.name, "tables": [[*_FIRST.items()], [*_LATER.items()]]})

    def encode(self, video: Tensor) -> Posterior:
        """See Codec; exact, so the posterior has no spread. float32 on the video's device."""
        _check_video(video)
        video = video.float()
        latents = torch.cat(
            [
                _analyse(video[:, :, :1], self._first / self._first_rms),
                _analyse(video[:, :, 1:], self._later / self._later_rms),
            ],
            dim=2,
        )
        return Posterior(latents, torch.zeros_like(latents))

    def decode(self, latents: Tensor) -> Tensor:
        """See Codec."""
        _check_latents(latents)
        latents = latents.float()
        video = torch.cat(
            [
                _synthesise(latents[:, :, :1], self._first * self._first_rms),
                _synthesise(latents[:, :, 1:], self._later * self._later_rms),
            ],
            dim=2,
        )
        return video.clamp(-1, 1)


def _cosines(length: int) -> Tensor:
    """The orthonormal DCT-II: (frequency, position) float64."""
    frequency = torch.arange(length, dtype=torch.float64)[:, None]
    position = torch.arange(length, dtype=torch.float64)[None, :]
    rows = torch.cos(math.pi * (2 * position + 1) * frequency / (2 * length))
    rows *= math.sqrt(2 / length)
    rows[0] /= math.sqrt(2)
    return rows


def _basis(kept: Mapping[_Frequency, float], frames: int) -> tuple[Tensor, Tensor]:
    """Orthonormal blocks (k, c, t, y, x) and the rms of their coefficients (k, 1, 1, 1, 1)."""
    colours, times, downs, acrosses = map(list, zip(*kept, strict=True))
    space = _cosines(SPACE_FACTOR)
    blocks = torch.einsum(
        "kc,kt,ky,kx->kctyx",
        _cosines(3)[colours],
        _cosines(frames)[times],
        space[downs],
        space[acrosses],
    )
    return blocks.float(), torch.tensor(list(kept.values())).view(-1, 1, 1, 1, 1)


def _analyse(video: Tensor, blocks: Tensor) -> Tensor:
    """(B, c, T*t, h*y, w*x) -> (B, k, T, h, w): the products with every block."""
    parts = video
    for axis, length in ((4, SPACE_FACTOR), (3, SPACE_FACTOR), (2, blocks.shape[2])):
        parts = parts.unflatten(axis, (video.shape[axis] // length, length))
    return torch.einsum("bcTthywx,kctyx->bkThw", parts, blocks.to(video.device))


def _synthesise(latents: Tensor, blocks: Tensor) -> Tensor:
    """(B, k, T, h, w) -> (B, c, T*t, h*y, w*x): the sum of the blocks."""
    parts = torch.einsum("bkThw,kctyx->bcTthywx", latents, blocks.to(latents.device))
    return parts.flatten(6, 7).flatten(4, 5).flatten(2, 3)


class VaeCodec:
    """The causal VAE of CogVideoX, by diffusers.

    Encodes untiled and decodes untiled, one sample at a time: its GroupNorm makes tiles another
    codec. What it computes in its dtype leaves as float32.
    """

    name = "vae"
    latent_channels = LATENT_CHANNELS
    time_factor = TIME_FACTOR
    frame_step = 2 * TIME_FACTOR  # of latent frames in pairs it makes 4 each, of the first too
    space_factor = SPACE_FACTOR

    def __init__(self, source: str, dtype: torch.dtype, device: str = "cpu") -> None:
        """source: hub name or folder of a pipeline, or a folder with the VAE alone.

        Raises ModelError when it is not there or not a VAE of CogVideoX.
        """
        self._vae = _load_vae(source, dtype, device)
        self._vae.enable_slicing()
        self.networks: tuple[nn.Module, ...] = (self._vae,)
        self.scaling_factor = float(self._vae.config["scaling_factor"])

    def fingerprint(self) -> str:
        """Of weights, dtype and what else changes the numbers."""
        config = self._vae.config
        wanted = ("act_fn", "norm_eps", "norm_num_groups", "scaling_factor")
        return fingerprint({"codec": self.name} | {key: config[key] for key in wanted}, self._vae)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Posterior:
        """See Codec."""
        _check_video(video)
        video = video.to(self._vae.device, self._vae.dtype)
        posterior = self._vae.encode(video, return_dict=False)[0]
        return Posterior(
            posterior.mean.float() * self.scaling_factor,
            posterior.std.float() * self.scaling_factor,
        )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See Codec."""
        _check_latents(latents)
        latents = 1 / self.scaling_factor * latents.float()  # in diffusers' order, to the bit
        latents = latents.to(self._vae.device, self._vae.dtype)
        video = cast(Tensor, self._vae.decode(latents, return_dict=False)[0])
        return video.float().clamp(-1, 1)


def _load_vae(source: str, dtype: torch.dtype, device: str) -> AutoencoderKLCogVideoX:
    alone = (Path(source) / "config.json").is_file()
    subfolder = None if alone else "vae"
    wanted = f"a CogVideoX VAE of {LATENT_CHANNELS} channels, alone or in its pipeline's folder"
    try:
        config = cast(Any, AutoencoderKLCogVideoX).load_config(source, subfolder=subfolder)
        kind, channels = config.get("_class_name"), config.get("latent_channels")
        if kind != AutoencoderKLCogVideoX.__name__ or channels != LATENT_CHANNELS:
            found = f"{kind} of {channels} channels"
            raise ModelError(f"codec: '{source}' is {found}; wanted {wanted}; name another")
        vae, loading = cast(Any, AutoencoderKLCogVideoX).from_pretrained(
            source,
            subfolder=subfolder,
            torch_dtype=dtype,
            use_safetensors=True,  # nothing is unpickled
            output_loading_info=True,
        )
    except OSError as error:
        raise ModelError(
            f"codec: found nothing at '{source}'; wanted {wanted}; download it, or name another"
        ) from error
    if loading["missing_keys"]:  # diffusers only warns
        raise ModelError(f"codec: weights are missing at '{source}'; wanted {wanted}; copy it anew")
    return vae.to(device).eval().requires_grad_(False)


def _check_video(video: Tensor) -> None:
    b, c, f, h, w = video.shape if video.ndim == 5 else (0, 0, 0, 0, 0)
    whole = f % TIME_FACTOR == 1 and h % SPACE_FACTOR == 0 and w % SPACE_FACTOR == 0
    if b == 0 or c != 3 or h == 0 or w == 0 or not whole or not video.is_floating_point():
        raise ModelError(
            f"codec: found a video of {tuple(video.shape)} {video.dtype}; wanted (B, 3, F, H, W) "
            f"floating, F one more than a multiple of {TIME_FACTOR}, H and W multiples of "
            f"{SPACE_FACTOR}; cut and resize it"
        )


def _check_latents(latents: Tensor) -> None:
    if latents.ndim != 5 or latents.shape[1] != LATENT_CHANNELS or latents.shape[2] == 0:
        raise ModelError(
            f"codec: found latents of {tuple(latents.shape)}; wanted (B, {LATENT_CHANNELS}, T, h, "
            "w) with T of 1 or more; encode the video again"
        )
