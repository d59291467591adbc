"""Cuts, consistency and the aesthetic score."""

import cv2
import numpy as np
import pytest

from pipeline.clip import Clip, Failed, Measurement
from pipeline.frames import Frames
from stages.appearance import Appearance


def clip(**published):
    return Clip("id", "a.mp4", "a.mp4", "", "", published)


def seen(images, fps=24.0):
    count, height, width = images.shape[:3]
    return Frames(images, tuple(range(count)), fps, count, width, height)


def measure(images, published=None, fps=24.0):
    stage = Appearance()
    stage.setup()
    (outcome,) = stage.measure([clip(**(published or {}))], [seen(images, fps)], [{}])
    return outcome


def values(*args, **kwargs):
    outcome = measure(*args, **kwargs)
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Appearance.columns.names)
    return outcome.values


@pytest.fixture
def moving(texture):
    """48 frames of a picture that slides by."""
    wide = texture(144, 400, seed=1)
    return np.stack([wide[:, 2 * n : 2 * n + 256] for n in range(48)])


@pytest.mark.parametrize("cut", [1, 20, 47])
def test_a_cut_is_found_wherever_it_is(moving, texture, cut):
    # Two shots with other colours: warm, then cold.
    moving[:cut, ..., 2] //= 4
    moving[cut:, ..., 0] //= 4
    found = values(moving)
    assert found["cut_frame"] == cut
    assert not Appearance.filters["min_intersection"].accepts(found["min_intersection"])


def test_motion_is_no_cut(moving):
    assert Appearance.filters["min_intersection"].accepts(values(moving)["min_intersection"])


def test_a_still_clip_is_all_the_same(moving):
    found = values(np.repeat(moving[:1], 30, axis=0))
    assert found["min_intersection"] == pytest.approx(1, abs=1e-5)
    assert found["consistency_min"] == pytest.approx(1, abs=1e-5)
    assert found["max_content_change"] == 0


def test_a_slow_fade_shows_in_consistency_and_not_as_a_cut(moving):
    levels = np.linspace(1, 0.2, 48)[:, None, None, None]
    found = values((moving * levels).astype(np.uint8))
    assert found["min_intersection"] > 0.6 > found["consistency_min"]


def test_the_numbers_stay_what_they_are(moving):
    """Raise the version of the stage when these change."""
    moving[30:] = moving[30:, :, ::-1] // 2
    assert Appearance.version == 2
    found = dict(values(moving))
    stored = [0.07190, 0.04935, 0.05685, 0.04684, -0.10083]
    assert found.pop("embedding")[::40] == pytest.approx(stored, abs=1e-3)
    assert found == {
        "min_intersection": pytest.approx(0.0233, abs=1e-3),
        "cut_frame": 30,
        "max_content_change": pytest.approx(58.75, abs=0.01),
        "consistency_mean": pytest.approx(0.7407, abs=1e-3),
        "consistency_min": pytest.approx(0.0241, abs=1e-3),
        "aesthetic": None,
        "aesthetic_source": None,
        "aesthetic_frames": None,
    }


def test_the_embedding_tells_a_copy_from_another_clip(moving, texture):
    """The copy is smaller, paler and a frame shorter; the other clip is dark elsewhere."""
    other = np.repeat(texture(144, 256, seed=7)[None], 40, axis=0)
    moving[:, :72] //= 4
    other[:, :, 128:] //= 4
    copy = [cv2.resize(n, (128, 72), interpolation=cv2.INTER_AREA) // 2 + 90 for n in moving[:-1]]
    found, again, third = (
        np.array(values(images)["embedding"]) for images in (moving, np.stack(copy), other)
    )
    assert len(found) == 192
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-3)
    assert found @ again > 0.99
    assert found @ third < 0.5


def test_a_clip_of_one_colour_has_no_embedding(moving):
    assert values(np.full_like(moving, 7))["embedding"] is None


@pytest.mark.parametrize(
    ("published", "aesthetic", "source"),
    [
        ({"aesthetic score": 5.7}, 5.7, "published"),
        ({"aesthetic score": "5.7"}, 5.7, "published"),
        ({"aesthetic score": "none"}, None, None),
        ({"aesthetic score": float("nan")}, None, None),
        ({"motion score": 3.0}, None, None),
    ],
)
def test_the_aesthetic_score_is_the_published_one(moving, published, aesthetic, source):
    found = values(moving[:3], published)
    assert (found["aesthetic"], found["aesthetic_source"]) == (aesthetic, source)


def test_one_frame_cannot_be_compared(moving):
    outcome = measure(moving[:1])
    assert isinstance(outcome, Failed)
    assert outcome.code == "too_short"
