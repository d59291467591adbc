"""The subject of the first frame is the thing that moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.clip import Clip, Failed, Measurement
from pipeline.errors import InputError
from pipeline.frames import Frames
from pipeline.mask import mask_iou, rle_decode
from stages.segment import Segment, SegmentSettings

WIDTH, HEIGHT, FPS = 480, 270, 25.0
SECONDS = SegmentSettings().seconds
CLIP = Clip("a" * 16, "a.mp4", "a.mp4", "", "a")
Place = Callable[[float], tuple[float, float]]


def texture(seed: int, colour: tuple[int, int, int]) -> np.ndarray:
    """(540, 960, 3) float32: blotches around a colour."""
    rng = np.random.default_rng(seed)
    noise = sum(
        cv2.resize(rng.random((rows, 2 * rows), np.float32) - 0.5, (960, 540)) * 60
        for rows in (9, 34, 135)
    )
    return np.clip(np.asarray(colour, np.float32) + np.asarray(noise)[..., None], 0, 255)


def disc(x: float, y: float, radius: float, hole: float = 0.0) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    distance = np.hypot(xs - x, ys - y)
    return (distance <= radius) & (distance >= hole)


def film(
    *places: Place, radius: float = 50.0, hole: float = 0.0, pan: float = 0.0
) -> tuple[Frames, np.ndarray]:
    """Discs that travel with their texture over a background, and the first one's mask.

    places: second -> centre; pan: pixels per second that the background shifts.
    """
    ground, paint = texture(1, (90, 110, 90)), texture(2, (190, 70, 50))
    images = []
    for second in SECONDS:
        left = 200 + pan * second
        image = cv2.getRectSubPix(ground, (WIDTH, HEIGHT), (left + WIDTH / 2, HEIGHT))
        for place in places:
            x, y = place(second)
            coat = cv2.getRectSubPix(paint, (WIDTH, HEIGHT), (480 + WIDTH / 2 - x, 270 + 135 - y))
            image = np.where(disc(x, y, radius, hole)[..., None], coat, image)
        images.append(image)
    numbers = tuple(round(s * FPS) for s in SECONDS)
    pictures = np.stack(images).astype(np.uint8)
    x, y = places[0](0.0)
    return Frames(pictures, numbers, FPS, 100, WIDTH, HEIGHT), disc(x, y, radius, hole)


def across(x: float, y: float, speed: float = 30.0) -> Place:
    return lambda second: (x + speed * second, y)


def measured(frames: Frames) -> Mapping[str, Any]:
    outcome = Segment(SegmentSettings()).measure([CLIP], [frames], [{}])[0]
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Segment.columns.names)
    return outcome.values


def mask_of(values: Mapping[str, Any]) -> np.ndarray:
    return rle_decode(values["mask_rle"], values["mask_width"], values["mask_height"])


def passes(values: Mapping[str, Any]) -> bool:
    return all(
        filter_.accepts(values[column])
        for column, filter_ in Segment.filters.items()
        if column != "crop_short_side_px"  # these films are small
    )


@pytest.mark.parametrize("pan", [0.0, 25.0], ids=["static camera", "panning camera"])
def test_a_moving_disc_is_found(pan: float) -> None:
    frames, truth = film(across(200, 130, speed=-35.0), pan=pan)
    values = measured(frames)
    assert mask_iou(mask_of(values), truth) > 0.9
    assert passes(values)
    assert not values["entity_checked"]


def test_two_equal_discs_are_two_instances() -> None:
    frames, _ = film(across(120, 130), across(350, 140, speed=-30.0))
    values = measured(frames)
    assert values["instances"] == 2
    assert not passes(values)


def test_a_disc_in_a_corner_touches_two_sides() -> None:
    frames, truth = film(across(20, 250, speed=20.0))
    values = measured(frames)
    assert values["border_sides"] == 2
    assert mask_iou(mask_of(values), truth) > 0.8
    assert not passes(values)


def test_a_disc_that_runs_out_leaves() -> None:
    frames, _ = film(across(390, 130, speed=120.0))
    values = measured(frames)
    assert values["leaves"] > 0.6
    assert not passes(values)


def test_a_ring_keeps_its_hole() -> None:
    frames, truth = film(across(200, 130), radius=80.0, hole=45.0)
    mask = mask_of(measured(frames))
    assert not mask[130, 200]
    assert mask_iou(mask, truth) > 0.8


@pytest.mark.parametrize("pan", [0.0, 25.0], ids=["static camera", "panning camera"])
def test_a_still_scene_has_no_subject(pan: float) -> None:
    frames, _ = film(across(200, 130, speed=-pan), pan=pan)
    values = measured(frames)
    assert values["instances"] == 0
    assert values["mask_rle"] is None
    assert not passes(values)


def test_the_mask_has_the_native_size() -> None:
    frames, truth = film(across(200, 130))
    large = Frames(frames.images, frames.numbers, FPS, 100, 3 * WIDTH, 3 * HEIGHT)
    mask = mask_of(measured(large))
    assert mask.shape == (3 * HEIGHT, 3 * WIDTH)
    assert mask_iou(mask[1::3, 1::3], truth) > 0.9


def test_a_clip_alone_or_after_others_is_measured_alike() -> None:
    films = [film(across(x, 130))[0] for x in (150, 200, 250)]
    stage = Segment(SegmentSettings())
    together = stage.measure([CLIP] * 3, films, [{}] * 3)
    back = stage.measure([CLIP] * 3, films[::-1], [{}] * 3)
    assert together == list(back)[::-1]


def test_the_numbers_belong_to_the_version() -> None:
    """Another OpenCV may move them a little: raise the version when they move by more."""
    frames, _ = film(across(200, 130), pan=10.0)
    values = measured(frames)
    assert Segment.version == 1
    stored = {
        "score": 0.9181,
        "area": 0.0605,
        "separation": 1.0,
        "agreement": 0.9212,
        "found": 0.9964,
    }
    assert {name: values[name] for name in stored} == pytest.approx(stored, abs=0.01)


def test_a_single_frame_cannot_be_measured() -> None:
    frames, _ = film(across(200, 130))
    single = Frames(frames.images[:1], (0,), FPS, 1, WIDTH, HEIGHT)
    outcome = Segment(SegmentSettings()).measure([CLIP], [single], [{}])[0]
    assert isinstance(outcome, Failed)
    assert outcome.code == "too_short"


@pytest.mark.parametrize("size", [(8, 8), (2048, 16), (31, 200)])
def test_pictures_on_which_the_flow_would_die_are_too_small(size: tuple[int, int]) -> None:
    width, height = size
    images = np.zeros((2, height, width, 3), np.uint8)
    frames = Frames(images, (0, 3), FPS, 20, width, height)
    outcome = Segment(SegmentSettings()).measure([CLIP], [frames], [{}])[0]
    assert isinstance(outcome, Failed)
    assert outcome.code == "too_small"


def test_times_that_do_not_begin_at_the_first_frame_are_refused() -> None:
    with pytest.raises(InputError, match="wanted 0"):
        Segment(SegmentSettings(seconds=(0.5, 1.0)))
