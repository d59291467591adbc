"""What a run trains on, sample by sample: which one stands where, and what chance adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import InputError
from training.dataset import Latents
from training.held_out import HeldOut
from training.order import ShuffleSettings, draw, place
from training.step import Example


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long, and how much at once.

    global_batch: samples of an optimizer step, over all workers; batch: of one forward in one of
    them. text_drop: share of samples trained on the null text. checkpoint_every: optimizer steps;
    the last `keep` checkpoints stay, and those of every keep_every-th step for ever (0: none).
    readers: threads.
    """

    seed: int = 0
    steps: int = 10_000  # paper, 6.1
    global_batch: int = 32  # paper, 6.1: 16 GPUs, 1 on each, 2 accumulated
    batch: int = 1  # paper, 6.1: per GPU
    text_drop: float = 0.1  # design/method.md
    checkpoint_every: int = 500  # ours
    keep: int = 2  # ours
    keep_every: int = 0  # ours
    readers: int = 2  # ours
    shuffle: ShuffleSettings = ShuffleSettings()

    def __post_init__(self) -> None:
        for name in ("steps", "global_batch", "batch", "checkpoint_every", "keep", "readers"):
            if getattr(self, name) < 1:
                raise InputError(f"loop.{name}: found {getattr(self, name)}, wanted 1 or more")
        if self.keep_every < 0:
            raise InputError(f"loop.keep_every: found {self.keep_every}, wanted 0 or more")
        if not 0 <= self.text_drop <= 1:
            raise InputError(f"loop.text_drop: found {self.text_drop}, wanted 0 to 1")

    def share(self, workers: int) -> int:
        """Samples of one worker in a step. Raises InputError when they do not come out even."""
        at_once = workers * self.batch
        if self.global_batch % at_once:
            near = max(1, round(self.global_batch / at_once)) * at_once
            raise InputError(
                f"loop.global_batch: found {self.global_batch} for {workers} worker"
                f"{'s' * (workers > 1)} of loop.batch {self.batch}, wanted a multiple of "
                f"{at_once}; set it to {near}, or change loop.batch or the number of workers"
            )
        return self.global_batch // workers

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return step % self.checkpoint_every == 0 or self.keeps(step)

    def keeps(self, step: int) -> bool:
        """Whether the checkpoint of this step stays for ever."""
        return self.keep_every > 0 and step % self.keep_every == 0


FREE = (
    "deterministic",
    "loop.steps",
    "loop.batch",
    "loop.checkpoint_every",
    "loop.keep",
    "loop.keep_every",
    "loop.readers",
    "held_out.every",
)
"""Settings that may change when a run goes on: no number of a step depends on them, but for the
rounding of sums, which depends on how a step's samples are cut into batches."""


class Samples(Protocol):
    """`training.dataset.LatentDataset`, or anything with samples by number."""

    def __getitem__(self, number: int) -> Latents: ...


@dataclass(frozen=True, slots=True)
class Course:
    """What is trained on. numbers: of the samples that are not held out.

    null_text: (L, D), in place of a dropped text. with_reference: whether the network takes one;
    with_entity: whether it is told whose tokens name the subject.
    """

    samples: Samples
    numbers: Sequence[int]
    held_out: HeldOut
    null_text: Tensor
    with_reference: bool
    with_entity: bool = False

    def example(self, settings: LoopSettings, position: int) -> Example:
        """The sample at a position of the run, counted from 0, with what chance adds to it."""
        where = place(settings.seed, position, len(self.numbers), settings.shuffle)
        sample = self.samples[self.numbers[where.number]]
        chance = draw(settings.seed, where, sample.key, sample.video.shape, settings.text_drop)
        entity = sample.entity_mask() & (not chance.drop_text) if self.with_entity else None
        return Example(
            key=sample.key,
            latents=sample.drawn(where.name(settings.seed, sample.key)),
            noise=torch.from_numpy(chance.noise),
            timestep=chance.timestep,
            text=self.null_text if chance.drop_text else sample.text,
            reference=sample.view(chance.view) if self.with_reference else None,
            entity=entity,
        )
