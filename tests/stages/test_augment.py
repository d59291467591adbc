"""Augmented references: of small known changes, on white, and the same every time."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from stages.augment import AugmentSettings, augmented

NOTHING = AugmentSettings(1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture
def picture(texture: Callable[..., np.ndarray]) -> np.ndarray:
    """A textured disc on white, 96x144."""
    picture = np.full((96, 144, 3), 255, np.uint8)
    inside = cv2.circle(np.zeros((96, 144), np.uint8), (72, 48), 30, 1, -1) > 0
    picture[inside] = texture(96, 144, 3)[inside] // 2 + 40
    return picture


def share_of_white(picture: np.ndarray) -> float:
    return float((picture == 255).all(2).mean())


def test_the_same_name_gives_the_same_view_and_another_name_another(picture: np.ndarray) -> None:
    settings = AugmentSettings(variants=2)
    first = augmented(picture, "clip/0", settings)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    assert np.array_equal(first, augmented(picture.copy(), "clip/0", settings))
    assert not np.array_equal(first, augmented(picture, "clip/1", settings))


def test_white_stays_white_and_the_subject_stays(picture: np.ndarray) -> None:
    settings = AugmentSettings(variants=20)
    blank = np.full_like(picture, 255)
    for number in range(20):
        assert (augmented(blank, f"{number}", settings) == 255).all()
        seen = augmented(picture, f"{number}", settings)
        assert abs(share_of_white(seen) - share_of_white(picture)) < 0.12
        assert (seen[0] == 255).all()


def test_without_reach_nothing_changes(picture: np.ndarray) -> None:
    seen = augmented(picture, "clip/0", NOTHING)
    assert np.abs(seen.astype(int) - picture).max() <= 1  # of a way through HSV


def test_a_flip_is_a_mirror_and_comes_as_often_as_asked_for(picture: np.ndarray) -> None:
    seen = augmented(picture, "clip/0", AugmentSettings(1, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert np.abs(seen.astype(int) - picture[:, ::-1]).max() <= 1
    half = AugmentSettings(1, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    views = [augmented(picture, f"{number}", half) for number in range(60)]
    mirrored = sum(np.abs(view.astype(int) - picture).max() > 1 for view in views)
    assert 18 <= mirrored <= 42


def test_the_subject_is_moved_and_sized_within_reach(picture: np.ndarray) -> None:
    moved = AugmentSettings(1, 0.0, 0.0, 0.2, 0.1, 0.0, 0.0, 0.0)
    for number in range(20):
        seen = augmented(picture, f"{number}", moved)
        rows, columns = np.nonzero((seen < 250).any(2))
        assert abs(columns.mean() - 72) <= 0.1 * 144 + 1
        assert abs(rows.mean() - 48) <= 0.1 * 96 + 1
        assert 60 * 0.8 - 2 <= np.ptp(columns) <= 60 * 1.2 + 2


def test_colours_change_and_shapes_do_not(picture: np.ndarray) -> None:
    tinted = AugmentSettings(1, 0.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.1)
    seen = augmented(picture, "clip/0", tinted)
    assert np.array_equal((seen == 255).all(2), (picture == 255).all(2))
    assert np.abs(seen.astype(int) - picture).mean() > 1
