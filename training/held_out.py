"""Subjects that are never trained on, and the loss on them: does the reference help at all?

The same noise and timesteps every time, with the right reference, with another subject's, and with
none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from model.bias import NUM_TRAIN_TIMESTEPS
from pipeline.errors import InputError
from training.dataset import Latents
from training.measured import NONE, RIGHT, SHUFFLED, Measured
from training.order import normal, shuffled, uniform
from training.step import Example


@dataclass(frozen=True, slots=True)
class HeldOutSettings:
    """share: of the source videos, 0..1. samples: so many are measured at most.

    draws: of each sample, at timesteps spread over the whole range, for the loss differs most by
    them. every: optimizer steps between two measurements.
    """

    share: float = 0.1  # ours
    samples: int = 32  # ours
    draws: int = 4  # ours
    every: int = 100  # ours


def split(seed: int, source_ids: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Numbers of the samples to train on, and of those held out.

    A source video is on one side with all its clips, by a draw of its own: a corpus that grows
    moves none. Raises InputError when a side is too small: a shuffled reference needs two subjects.
    """
    aside = [uniform(f"held out/{seed}/{source}") < share for source in source_ids]
    trained = [number for number, out in enumerate(aside) if not out]
    held = [number for number, out in enumerate(aside) if out]
    subjects = len({source_ids[number] for number in held})
    if not trained or subjects < 2:
        raise InputError(
            f"held_out.share {share}: found {len(trained)} samples to train on and {subjects} of "
            f"{len(set(source_ids))} source videos held out, wanted at least 1 and 2; "
            "change the share, or curate more clips"
        )
    return trained, held


def paired(
    seed: int, numbers: Sequence[int], source_ids: Sequence[str], most: int
) -> list[tuple[int, int]]:
    """(sample, the one whose reference it gets when shuffled): a permutation across subjects.

    At most `most` samples, of as many subjects as possible: the subjects take turns, and turns that
    one of them has to itself are left out, so that nobody has more than half of all.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    order: list[int] = shuffled(f"held out/{seed}", len(numbers)).tolist()
    for at in order:
        by_source[source_ids[numbers[at]]].append(numbers[at])
    chosen: list[int] = []
    rounds = 0
    for turn in zip_longest(*by_source.values()):
        members = [number for number in turn if number is not None][: most - len(chosen)]
        if len(members) < 2:
            break
        chosen += members
        rounds += 1
    chosen.sort(key=lambda number: (source_ids[number], number))
    # A subject has at most `rounds` neighbours in this order, at most half of all.
    return [(number, chosen[(at + rounds) % len(chosen)]) for at, number in enumerate(chosen)]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out samples that are measured, each with another subject's reference.

    with_entity: whether the network is told whose tokens name the subject, as in training. watched:
    whether it is told with the right reference in any case, which changes no loss: every backend
    then knows the weight on it.
    """

    samples: Sequence[Latents]
    others: Sequence[Tensor]
    settings: HeldOutSettings
    seed: int
    with_entity: bool = False
    watched: bool = False

    @torch.no_grad()
    def measure(
        self,
        losses: Callable[[Sequence[Example]], Tensor],
        batch: int,
        with_reference: bool,
        weight: Callable[[], float | None] = lambda: None,
    ) -> Measured:
        """The v-loss of every draw by reference: RIGHT, SHUFFLED, NONE; NONE alone without any.

        losses: of a batch of examples, one each. weight: that of the last batch on its references.
        """
        kinds = (RIGHT, SHUFFLED, NONE) if with_reference else (NONE,)
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        weights: list[float] = []
        draws = [(d, n) for d in range(self.settings.draws) for n in range(len(self.samples))]
        for kind in kinds:
            for at in range(0, len(draws), batch):
                examples = [self.example(n, d, kind) for d, n in draws[at : at + batch]]
                found[kind] += losses(examples).tolist()
                told = weight()
                if kind == RIGHT and told is not None:
                    weights += [told] * len(examples)
        return Measured(
            [self.samples[number].source_id for _, number in draws],
            [self._timestep(number, draw) for draw, number in draws],
            found,
            sum(weights) / len(weights) if weights else None,
        )

    def example(self, number: int, draw: int, kind: str) -> Example:
        """One draw of a sample with this kind of reference: nothing else differs between kinds."""
        sample = self.samples[number]
        references = {RIGHT: sample.reference, SHUFFLED: self.others[number], NONE: None}
        named = (self.with_entity and kind != NONE) or (self.watched and kind == RIGHT)
        return Example(
            key=sample.key,
            latents=sample.drawn(self._name(number, draw)),
            noise=torch.from_numpy(normal(f"noise/{self._name(number, draw)}", sample.video.shape)),
            timestep=self._timestep(number, draw),
            text=sample.text,
            reference=references[kind],
            entity=sample.entity_mask() if named else None,
        )

    def _timestep(self, number: int, draw: int) -> int:
        within = (draw + uniform(f"timestep/{self._name(number, draw)}")) / self.settings.draws
        return int(within * NUM_TRAIN_TIMESTEPS)

    def _name(self, number: int, draw: int) -> str:
        return f"held out/{self.seed}/{draw}/{self.samples[number].key}"


def hold_out(
    seed: int,
    numbers: Sequence[int],
    source_ids: Sequence[str],
    read: Callable[[int], Latents],
    settings: HeldOutSettings,
    with_entity: bool = False,
    watched: bool = False,
) -> HeldOut:
    """Reads what is measured, once. numbers: of the samples held out. Raises InputError."""
    if settings.samples < 2 or settings.draws < 1 or settings.every < 1:
        raise InputError(
            f"held_out: found samples {settings.samples}, draws {settings.draws}, every "
            f"{settings.every}; wanted at least 2, 1 and 1"
        )
    pairs = paired(seed, numbers, source_ids, settings.samples)
    samples = [read(number) for number, _ in pairs]
    references = {
        number: sample.reference for (number, _), sample in zip(pairs, samples, strict=True)
    }
    others = [references[other] for _, other in pairs]
    return HeldOut(samples, others, settings, seed, with_entity, watched)
