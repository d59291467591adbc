"""Which sample comes when, with which noise and timestep: pure functions, so a run repeats itself.

Every number is drawn from a counter-based generator whose key is a hash of what it is for. No state
is carried from step to step: a resumed run, or one with other readers, draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from model.bias import NUM_TRAIN_TIMESTEPS
from pipeline.chance import bits, uniform


@dataclass(frozen=True, slots=True)
class Place:
    """One position of a run: `number` is the sample's, 0..count-1."""

    epoch: int
    position: int
    number: int


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance decides for one sample at one position. noise: fp32, of the latents' shape."""

    noise: np.ndarray
    timestep: int
    drop_text: bool


def place(seed: int, position: int, count: int) -> Place:
    """Which of `count` samples stands at a position, counted from 0 over the whole run.

    Every epoch has each sample once, in an order of its own.
    """
    epoch, within = divmod(position, count)
    return Place(epoch, within, int(_shuffled(seed, epoch, count)[within]))


def draw(seed: int, where: Place, key: str, shape: Sequence[int], text_drop: float) -> Draw:
    """Noise, timestep (uniform over 0..999) and text drop of the sample `key` at its place."""
    name = f"{seed}/{where.epoch}/{where.position}/{key}"
    return Draw(
        noise=normal(f"noise/{name}", shape),
        timestep=int(bits(f"timestep/{name}").random_raw(1)[0] % NUM_TRAIN_TIMESTEPS),
        drop_text=uniform(f"text/{name}") < text_drop,
    )


def normal(name: str, shape: Sequence[int]) -> np.ndarray:
    """fp32 standard normal numbers that belong to this name."""
    return np.random.Generator(bits(name)).standard_normal(shape, dtype=np.float32)


def shuffled(name: str, count: int) -> np.ndarray:
    """(count,) int64: an order of 0..count-1 that belongs to this name."""
    # Sorted raw words, and not Generator.permutation, whose stream numpy may change.
    return np.argsort(bits(name).random_raw(count), kind="stable")


@lru_cache(maxsize=2)  # an epoch and, at its end, the next one
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    return shuffled(f"order/{seed}/{epoch}", count)
