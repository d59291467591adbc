"""Masks survive being written down, and their measures say what they mean."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.mask import (
    box_iou,
    box_of,
    fill_holes,
    fill_of_box,
    largest_component,
    mask_iou,
    rle_decode,
    rle_encode,
    touched_sides,
)


def disc(radius: int, centre: tuple[int, int], height: int = 90, width: int = 120) -> np.ndarray:
    ys, xs = np.ogrid[:height, :width]
    return np.hypot(xs - centre[0], ys - centre[1]) <= radius


@pytest.mark.parametrize("first", [False, True])
def test_run_lengths_give_the_mask_back(first: bool) -> None:
    mask = np.random.default_rng(3).random((37, 53)) > 0.6
    mask[0, 0] = first
    assert np.array_equal(rle_decode(rle_encode(mask), 53, 37), mask)


def test_run_lengths_begin_with_the_background() -> None:
    assert rle_encode(np.array([[0, 0, 1], [1, 1, 0]], dtype=bool)) == "2 3 1"
    assert rle_encode(np.array([[1, 0]], dtype=bool)) == "0 1 1"
    assert rle_encode(np.zeros((2, 3), dtype=bool)) == "6"


@pytest.mark.parametrize("rle", ["2 3", "2 3 2", "2 -3 7", "2 x", ""])
def test_run_lengths_of_another_picture_are_refused(rle: str) -> None:
    with pytest.raises(InputError, match="wanted"):
        rle_decode(rle, 3, 2)


def test_a_box_is_tight_and_an_empty_mask_has_none() -> None:
    mask = np.zeros((10, 20), dtype=bool)
    assert box_of(mask) is None
    mask[2:5, 7:9] = True
    assert box_of(mask) == (7, 2, 9, 5)


def test_overlap_of_boxes_and_of_masks() -> None:
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0
    assert mask_iou(disc(20, (40, 40)), disc(20, (40, 40))) == 1.0
    assert mask_iou(disc(5, (20, 20)), disc(5, (60, 60))) == 0.0


def test_the_largest_component_and_its_share() -> None:
    small, large = disc(5, (15, 15)), disc(20, (70, 45))
    kept, share = largest_component(small | large)
    assert np.array_equal(kept, large)
    assert share == pytest.approx(large.sum() / (large.sum() + small.sum()))
    assert largest_component(np.zeros((4, 4), dtype=bool))[1] == 0.0


def test_a_pinhole_is_filled_and_a_ring_keeps_its_hole() -> None:
    whole = disc(30, (60, 45))
    assert np.array_equal(fill_holes(whole & ~disc(2, (60, 45)), 0.02), whole)
    ring = whole & ~disc(15, (60, 45))
    assert np.array_equal(fill_holes(ring, 0.02), ring)


def test_a_bay_at_the_border_is_no_hole() -> None:
    mask = np.ones((20, 20), dtype=bool)
    mask[0, 10] = False
    assert np.array_equal(fill_holes(mask, 0.02), mask)


def test_sides_touched() -> None:
    assert not touched_sides(disc(20, (60, 45)), 0.1).any()
    assert touched_sides(disc(20, (10, 45)), 0.1).tolist() == [False, False, True, False]
    assert touched_sides(disc(20, (110, 80)), 0.1).tolist() == [False, True, False, True]
    assert not touched_sides(np.zeros((9, 9), dtype=bool), 0.1).any()


def test_a_stray_pixel_is_no_contact_and_a_strip_is_wider() -> None:
    mask = disc(20, (60, 45))
    mask[:26, 60] = True
    assert not touched_sides(mask, 0.1).any()
    assert touched_sides(mask, 0.1, strip=30)[0]


def test_fill_is_the_share_of_the_box() -> None:
    assert fill_of_box(disc(30, (60, 45))) == pytest.approx(np.pi / 4, abs=0.03)
    assert fill_of_box(np.zeros((4, 4), dtype=bool)) == 0.0
