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
from pipeline.errors import InputError


@dataclass(frozen=True, slots=True)
class ShuffleSettings:
    """How the samples of an epoch are mixed.

    block: so many neighbours of the shards stay near one another, 0 for none: all samples are mixed
    with all. window: so many blocks, drawn from everywhere, are mixed with one another.
    """

    # Ours: every sample is read alone, wherever it lies, and 0 is the best mixture. Blocks are for
    # disks that seek and for shards that are fetched whole.
    block: int = 0
    window: int = 16

    def __post_init__(self) -> None:
        if self.block < 0 or self.window < 1:
            raise InputError(
                f"loop.shuffle: found block {self.block} and window {self.window}, wanted 0 or "
                "more and 1 or more"
            )


@dataclass(frozen=True, slots=True)
class Place:
    """One position of a run: `number` is the sample's, 0..count-1."""

    epoch: int
    position: int
    number: int

    def name(self, seed: int, key: str) -> str:
        """Of what chance does to the sample `key` here."""
        return f"{seed}/{self.epoch}/{self.position}/{key}"


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance decides for one sample at one position.

    noise: fp32, of the latents' shape; view: in [0, 1), of the reference's views.
    """

    noise: np.ndarray
    timestep: int
    drop_text: bool
    view: float


def place(
    seed: int, position: int, count: int, shuffle: ShuffleSettings = ShuffleSettings()
) -> Place:
    """Which of `count` samples stands at a position, counted from 0 over the whole run.

    Every epoch has each sample once, in an order of its own.
    """
    epoch, within = divmod(position, count)
    return Place(epoch, within, int(epoch_order(seed, epoch, count, shuffle)[within]))


def draw(seed: int, where: Place, key: str, shape: Sequence[int], text_drop: float) -> Draw:
    """Noise, timestep (uniform over 0..999) and text drop of the sample `key` at its place."""
    name = where.name(seed, key)
    return Draw(
        noise=normal(f"noise/{name}", shape),
        timestep=int(bits(f"timestep/{name}").random_raw(1)[0] % NUM_TRAIN_TIMESTEPS),
        drop_text=uniform(f"text/{name}") < text_drop,
        view=uniform(f"view/{name}"),
    )


def normal(name: str, shape: Sequence[int]) -> np.ndarray:
    """fp32 standard normal numbers that belong to this name."""
    return np.random.Generator(bits(name)).standard_normal(shape, dtype=np.float32)


def shuffled(name: str, count: int) -> np.ndarray:
    """(count,) int64: an order of 0..count-1 that belongs to this name."""
    # Sorted raw words, and not Generator.permutation, whose stream numpy may change.
    return np.argsort(bits(name).random_raw(count), kind="stable")


@lru_cache(maxsize=2)  # an epoch and, at its end, the next one
def epoch_order(seed: int, epoch: int, count: int, shuffle: ShuffleSettings) -> np.ndarray:
    """(count,) int64: which sample stands where in an epoch."""
    name = f"{seed}/{epoch}"
    if shuffle.block == 0:
        return shuffled(f"order/{name}", count)
    # The samples as a ring that is cut elsewhere in every epoch, so that blocks have other members.
    blocks = -(-count // shuffle.block)
    turn = np.empty(blocks, np.int64)
    turn[shuffled(f"blocks/{name}", blocks)] = np.arange(blocks)
    windows = turn[np.arange(count) // shuffle.block] // shuffle.window
    mixed = np.lexsort((bits(f"order/{name}").random_raw(count), windows))
    return (mixed + int(uniform(f"cut/{name}") * count)) % count
