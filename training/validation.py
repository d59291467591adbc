"""Videos of held-out samples while a run trains, from the same seeds every time.

Nothing of the training's own randomness is drawn: noise comes from generators of its own, and
neither weights nor gradients are touched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.adapted import Adapted
from model.config import SamplingConfig
from model.sampling import Conditions, initial_noise, sample
from pipeline import storage, video
from pipeline.errors import InputError
from pipeline.video import VideoSettings
from training.dataset import Latents
from training.world import World

FOLDER = "validation"
_SHOWN = 4
"""Frames of each video in a sheet, spread evenly."""
_PIXELS = 8
"""Of a picture, per latent pixel."""
_SPREAD = 2.0
"""Latents are of mean square 1: what is further from 0 than this is black or white in a preview."""

Decode = Callable[[Tensor], np.ndarray]
"""Latents (T, C, h, w) to pictures (F, H, W, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True)
class ValidationSettings:
    """every: optimizer steps between two, 0 for never. samples: of the held-out ones that are
    measured. seed: of their noise. sampling: see there.
    """

    every: int = 0  # ours: a video of the 5B takes minutes in which nothing is trained
    samples: int = 4  # ours
    seed: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.every < 0 or self.samples < 1:
            raise InputError(
                f"validation: found every {self.every} and samples {self.samples}; wanted 0 or "
                "more, and 1 or more"
            )

    def due(self, step: int) -> bool:
        """Whether videos are made after this step."""
        return self.every > 0 and step % self.every == 0


@dataclass(frozen=True, slots=True)
class Validation:
    """Makes the videos of a training. samples: the held-out ones, in an order that stays.

    decode: `preview` where there is no codec. fps: of the mp4. place: the training's folder or url.
    """

    place: str
    model: Adapted
    samples: Sequence[Latents]
    null_text: Tensor
    settings: ValidationSettings
    snr_shift: float
    decode: Decode
    world: World
    fps: int = 8

    def sampled(self) -> dict[int, Tensor]:
        """Latents (T, C, h, w) of this worker's samples, by number.

        Workers share the samples, and all make as many, since a base that is sharded computes in
        all of them at once.
        """
        count = min(self.settings.samples, len(self.samples))
        found: dict[int, Tensor] = {}
        for first in range(0, count, self.world.size):
            number = min(first + self.world.rank, count - 1)  # who has none left goes along
            found[number] = self._sampled(number)
        return {
            n: latents for n, latents in found.items() if n % self.world.size == self.world.rank
        }

    def write(self, step: int, sampled: Mapping[int, Tensor]) -> dict[str, np.ndarray]:
        """An mp4 and a sheet of each; returns the sheets, by the samples' keys.

        Raises InputError on a full disk.
        """
        sheets: dict[str, np.ndarray] = {}
        for number, latents in sampled.items():
            shown, made = self.samples[number], self.decode(latents)
            sheets[shown.key] = self._sheet(shown, made)
            name = storage.join(self.place, FOLDER, f"step-{step:08d}", shown.key)
            settings = VideoSettings(made.shape[2], made.shape[1], self.fps)
            storage.write(f"{name}.mp4", video.encode(made, settings))
            storage.write(f"{name}.png", _png(sheets[shown.key]))
        return sheets

    def _sampled(self, number: int) -> Tensor:
        """(T, C, h, w) fp32."""
        shown = self.samples[number]
        device = next(self.model.parameters()).device
        reference, entity = None, None
        if self.model.adapter is not None:
            reference = shown.reference[None].to(device)
            entity = shown.entity_mask()[None].to(device)
        conditions = Conditions(
            shown.text[None].to(device), self.null_text[None].to(device), reference, entity
        )
        noise = initial_noise([self.settings.seed + number], shown.video.shape).to(device)
        settings = self.settings.sampling
        return sample(self.model, conditions, noise, settings, self.snr_shift)[0]

    def _sheet(self, shown: Latents, made: np.ndarray) -> np.ndarray:
        """The reference and the real video in one row, what was made below the latter."""
        real, reference = self.decode(shown.video), self.decode(shown.reference)[0]
        at = np.linspace(0, len(made) - 1, _SHOWN).round().astype(int)
        above = np.concatenate([reference, *real[at]], axis=1)
        below = np.concatenate([np.full_like(reference, 255), *made[at]], axis=1)
        return np.concatenate([above, below])


def preview(latents: Tensor) -> np.ndarray:
    """Pictures of latents (T, C, h, w) that no codec decodes: the first three channels."""
    pixels = (127.5 + 127.5 / _SPREAD * latents[:, :3]).round().clamp(0, 255)
    images = pixels.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
    return images.repeat(_PIXELS, axis=1).repeat(_PIXELS, axis=2)


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
