"""The reference picture: where the subject stands, how large, and on what."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.mask import box_of
from pipeline.reference import ReferenceSettings, compose

SIZE = (720, 480)
BLUE, GREEN = (20, 40, 200), (30, 160, 60)


def scene(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A blue ellipse in a box on green, and its mask."""
    y, x = np.mgrid[:height, :width] + 0.5
    x0, y0, x1, y1 = box
    far = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2
    mask = far <= 1
    return np.where(mask[..., None], BLUE, GREEN).astype(np.uint8), mask


def stands(picture: np.ndarray) -> tuple[int, int, int, int]:
    box = box_of(picture.min(axis=2) < 200)
    assert box is not None
    return box


BOXES = {
    "square": (600, 300, 1000, 700),
    "portrait": (900, 50, 1200, 1050),
    "landscape": (200, 400, 1700, 700),
    "very wide": (0, 500, 1920, 640),
    "tiny": (1000, 500, 1012, 509),
    "at the border": (1700, 800, 2100, 1300),
    "the whole picture": (0, 0, 1920, 1080),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_the_subject_takes_60_to_90_percent_of_the_short_side_in_the_middle(
    box: tuple[int, int, int, int],
):
    image, mask = scene(1920, 1080, box)
    picture = compose(image, mask, SIZE, ReferenceSettings())
    assert picture.shape == (480, 720, 3)
    x0, y0, x1, y1 = stands(picture)
    # A pixel of the source is 40 of the tiny one's picture, so its edge lies anywhere between two.
    blur = 40 if box is BOXES["tiny"] else 0
    assert 0.6 * 480 - blur <= max(x1 - x0, y1 - y0) <= 0.9 * 480 + blur
    if box is not BOXES["at the border"]:
        assert abs(x0 + x1 - 720) <= 4
        assert abs(y0 + y1 - 480) <= 4


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_its_aspect_is_kept(box: tuple[int, int, int, int]):
    image, mask = scene(1920, 1080, box)
    there = box_of(mask)
    assert there is not None
    hard = ReferenceSettings(feather_px=0)
    x0, y0, x1, y1 = stands(compose(image, mask, SIZE, hard))
    wanted = (there[2] - there[0]) / (there[3] - there[1])
    assert (x1 - x0) / (y1 - y0) == pytest.approx(wanted, rel=0.06)


def test_no_colour_of_the_background_is_left():
    image, mask = scene(1920, 1080, BOXES["square"])
    picture = compose(image, mask, SIZE, ReferenceSettings()).astype(int)
    assert (picture[0, :] == 255).all()
    assert (picture[:, :100] == 255).all()
    # Blue on white: red and green fall together from 255; green paint would part them.
    greenness = picture[..., 1] - np.maximum(picture[..., 0], picture[..., 2])
    assert greenness.max() <= 8
    assert np.abs(picture[240, 360] - BLUE).max() <= 2


def test_a_subject_between_the_bounds_keeps_its_pixels():
    noise = np.random.default_rng(1).integers(0, 200, (600, 800, 3), dtype=np.uint8)
    mask = np.zeros((600, 800), dtype=bool)
    mask[100:460, 200:500] = True
    picture = compose(noise, mask, SIZE, ReferenceSettings(feather_px=0))
    assert np.array_equal(picture[60:420, 210:510], noise[100:460, 200:500])


def test_a_ring_keeps_its_hole():
    image, mask = scene(800, 800, (200, 200, 600, 600))
    _, hole = scene(800, 800, (300, 300, 500, 500))
    picture = compose(image, mask & ~hole, SIZE, ReferenceSettings())
    assert (picture[240, 360] == 255).all()


def test_a_grey_alpha_is_taken_as_it_is():
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    alpha = np.zeros((400, 400), dtype=np.uint8)
    alpha[50:350, 50:350] = 153
    picture = compose(image, alpha, SIZE, ReferenceSettings())
    assert picture[240, 360].tolist() == [102, 102, 102]


def test_a_portrait_picture_is_filled_by_its_own_short_side():
    image, mask = scene(1920, 1080, BOXES["landscape"])
    picture = compose(image, mask, (480, 720), ReferenceSettings())
    x0, _, x1, _ = stands(picture)
    assert picture.shape == (720, 480, 3)
    assert 0.85 * 480 <= x1 - x0 <= 0.9 * 480


def test_an_empty_mask_and_impossible_bounds_are_errors():
    with pytest.raises(ValueError, match="empty"):
        compose(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), bool), SIZE, ReferenceSettings())
    with pytest.raises(InputError, match="largest"):
        ReferenceSettings(smallest=0.9, largest=0.8)
    with pytest.raises(InputError, match="margin"):
        ReferenceSettings(margin=0.3)
