"""What held-out losses say: means, the same by timestep, and what the reference changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.bias import NUM_TRAIN_TIMESTEPS
from pipeline.bootstrap import mean_of

RIGHT, SHUFFLED, NONE = "right", "shuffled", "none"
"""Whose reference: the sample's own, another subject's, nobody's."""

BUCKETS = 4
"""Equal ranges of timesteps: with the default of 4 draws each sample is once in each."""

_DIFFERENCES = {"gap": (SHUFFLED, RIGHT), "gain": (NONE, RIGHT)}
"""Name -> what is subtracted from what: above 0 the right reference helps."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Losses of the same draws, one per draw and kind of reference.

    subjects, timesteps: of each draw. weight: the share of the video's attention that is on the
    right reference, over all layers; None where the network does not tell.
    """

    subjects: Sequence[str]
    timesteps: Sequence[int]
    losses: Mapping[str, Sequence[float]]
    weight: float | None = None

    def mean(self, kind: str) -> float:
        """Over all draws."""
        return float(np.mean(self.losses[kind]))

    def numbers(self) -> dict[str, float]:
        """By name, flat: `<kind>`, `<kind>_t<first timestep of a range>`, and of draws in pairs
        `gap` (shuffled - right) and `gain` (none - right) with `_low` and `_high`, the ends of a
        95 % interval over subjects; `weight`. A range that nobody was drawn in is left out.
        """
        found = {kind: self.mean(kind) for kind in self.losses}
        for kind, losses in self.losses.items():
            found |= {f"{kind}_{name}": mean for name, mean in self._by_timestep(losses).items()}
        for name, (more, less) in _DIFFERENCES.items():
            if more in self.losses and less in self.losses:
                pairs = zip(self.losses[more], self.losses[less], strict=True)
                change = mean_of([one - other for one, other in pairs], self.subjects)
                found |= {
                    name: change.mean,
                    f"{name}_low": change.low,
                    f"{name}_high": change.high,
                }
        return found if self.weight is None else {**found, "weight": self.weight}

    def _by_timestep(self, losses: Sequence[float]) -> dict[str, float]:
        width = NUM_TRAIN_TIMESTEPS // BUCKETS
        members: dict[int, list[float]] = {}
        for timestep, loss in zip(self.timesteps, losses, strict=True):
            members.setdefault(timestep // width, []).append(loss)
        return {f"t{bucket * width}": float(np.mean(members[bucket])) for bucket in sorted(members)}
