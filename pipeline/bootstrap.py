"""How sure a mean is: bootstrap intervals over subjects, whose videos are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 2000
"""Ours: the ends of a 95 % interval of a mean move by some 2 % of its width from run to run."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its 95 % interval. subjects: drawn anew, all values of each together."""

    mean: float
    low: float
    high: float
    values: int
    subjects: int


def mean_of(values: Sequence[float], subjects: Sequence[str], seed: int = 0) -> Mean:
    """The mean over all values. subjects: whose each one is. ValueError without any value.

    With one subject the interval is as wide as its mean: nothing is known of others.
    """
    if not values:
        raise ValueError("found no value, wanted one or more")
    groups: dict[str, list[float]] = defaultdict(list)
    for value, subject in zip(values, subjects, strict=True):
        groups[subject].append(value)
    sums = np.array([sum(group) for group in groups.values()])
    counts = np.array([len(group) for group in groups.values()])
    drawn = np.random.default_rng(seed).integers(0, len(sums), (_DRAWS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Mean(float(np.mean(values)), float(low), float(high), len(values), len(groups))
