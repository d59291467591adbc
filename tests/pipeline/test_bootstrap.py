"""Intervals hold what they promise, and know that videos of one subject are alike."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bootstrap import mean_of


def test_the_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = mean_of(values.tolist(), [str(n) for n in range(400)])
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_many_seeds_of_few_subjects_make_nothing_surer() -> None:
    once = mean_of([0.0, 1.0, 2.0, 3.0], ["a", "b", "c", "d"])
    often = mean_of([0.0, 1.0, 2.0, 3.0] * 50, ["a", "b", "c", "d"] * 50)
    assert (often.low, often.high) == (once.low, once.high)
    assert (often.values, often.subjects) == (200, 4)


def test_it_is_the_same_every_time_and_one_value_is_its_own_interval() -> None:
    assert mean_of([1.0, 5.0, 2.0], list("abc")) == mean_of([1.0, 5.0, 2.0], list("abc"))
    alone = mean_of([2.5], ["a"])
    assert (alone.low, alone.mean, alone.high) == (2.5, 2.5, 2.5)


def test_no_value_has_no_mean() -> None:
    with pytest.raises(ValueError, match="found no value"):
        mean_of([], [])
