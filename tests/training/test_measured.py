import numpy as np
import pytest

from training.measured import NONE, RIGHT, SHUFFLED, Measured


def _measured(gap: float, noise: float, subjects: int = 40) -> Measured:
    """Two draws of each subject, whose losses differ far more than the gap between them."""
    rng = np.random.default_rng(0)
    right = rng.uniform(0, 10, 2 * subjects)
    shuffled = right + gap + noise * rng.standard_normal(2 * subjects)
    return Measured(
        [f"subject {number // 2}" for number in range(2 * subjects)],
        [number * 1000 // (2 * subjects) for number in range(2 * subjects)],
        {RIGHT: right.tolist(), SHUFFLED: shuffled.tolist(), NONE: (right + 1).tolist()},
    )


def test_differences_are_taken_draw_by_draw():
    numbers = _measured(gap=0.1, noise=0.1).numbers()
    assert numbers["gap"] == pytest.approx(numbers["shuffled"] - numbers["right"])
    assert 0 < numbers["gap_low"] < numbers["gap"] < numbers["gap_high"] < 0.2
    ends = numbers["gain_low"], numbers["gain"], numbers["gain_high"]
    assert ends == pytest.approx((1.0, 1.0, 1.0))


def test_an_interval_is_of_subjects_and_not_of_their_clips():
    one = _measured(gap=0.0, noise=1.0, subjects=20)
    many = Measured(
        [subject for subject in one.subjects for _ in range(9)],
        [timestep for timestep in one.timesteps for _ in range(9)],
        {kind: [x for x in losses for _ in range(9)] for kind, losses in one.losses.items()},
    )
    once, often = one.numbers(), many.numbers()
    assert often["gap_low"] == pytest.approx(once["gap_low"])
    assert often["gap_high"] == pytest.approx(once["gap_high"])


def test_a_range_of_timesteps_has_its_own_mean():
    measured = Measured(list("abcd"), [0, 249, 250, 999], {NONE: [1.0, 3.0, 5.0, 7.0]}, weight=0.25)
    assert measured.numbers() == {
        "none": 4.0,
        "none_t0": 2.0,
        "none_t250": 5.0,
        "none_t750": 7.0,
        "weight": 0.25,
    }
