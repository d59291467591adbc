"""How much moves."""

import cv2
import numpy as np
import pytest

from pipeline.clip import Clip, Failed, Measurement
from pipeline.frames import Frames
from stages.motion import Motion, flow_lengths

HEIGHT, WIDTH = 180, 320
DIAGONAL = np.hypot(HEIGHT, WIDTH)


def measure(images, numbers, fps=24.0):
    stage = Motion()
    stage.setup()
    height, width = images[0].shape[:2]
    frames = Frames(np.stack(images), tuple(numbers), fps, numbers[-1] + 1, width, height)
    (outcome,) = stage.measure([Clip("id", "a.mp4", "", "", "")], [frames], [{}])
    return outcome


def values(*args, **kwargs):
    outcome = measure(*args, **kwargs)
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Motion.columns.names)
    return outcome.values


def accepted(found):
    return all(limit.accepts(found[column]) for column, limit in Motion.filters.items())


@pytest.fixture
def sliding(texture):
    """(step_px, count) -> frames of a texture that slides to the left."""
    wide = texture(HEIGHT, WIDTH + 100)
    return lambda step, count: [wide[:, step * n : step * n + WIDTH] for n in range(count)]


@pytest.mark.parametrize(("fps", "step"), [(24.0, 12), (12.5, 6), (60.0, 30)])
def test_a_pan_has_its_known_speed_at_any_frame_rate(sliding, fps, step):
    found = values(sliding(8, 4), [0, step, 2 * step, 3 * step], fps)
    assert found["mean"] == pytest.approx(8 / DIAGONAL / (step / fps), rel=0.05)
    assert found["moving_share"] > 0.95
    assert found["pairs"] == 3


def test_the_unit_does_not_depend_on_size(texture):
    wide = texture(360, 720)
    large = [wide[:, 16 * n : 16 * n + 640] for n in range(2)]
    small = [image[::2, ::2] for image in large]
    assert values(large, [0, 12])["mean"] == pytest.approx(values(small, [0, 12])["mean"], rel=0.05)


def test_a_still_picture_with_noise_is_static(texture):
    rng = np.random.default_rng(0)
    still = texture(HEIGHT, WIDTH).astype(int)
    frames = [np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8)] * 2
    frames += [np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8)]
    found = values(frames, [0, 12, 24])
    assert not Motion.filters["top5"].accepts(found["top5"])
    assert found["moving_share"] < 0.01


def test_a_small_thing_before_a_still_camera_moves(texture):
    first = texture(HEIGHT, WIDTH)
    second = first.copy()
    thing = texture(60, 60, seed=3)
    first[60:120, 100:160] = thing
    second[60:120, 112:172] = thing
    found = values([first, second], [0, 12])
    assert accepted(found)
    assert found["mean"] < 0.015


def test_a_shaken_camera_is_fast_though_it_always_comes_back(texture):
    wide = texture(HEIGHT, WIDTH + 100)
    there, back = wide[:, :WIDTH], wide[:, 10 : 10 + WIDTH]
    found = values([there, back, there, back, there], [0, 1, 12, 13, 24])
    assert found["mean"] < 0.001
    assert found["speed"] == pytest.approx(10 / DIAGONAL * 24, rel=0.05)
    assert not accepted(found)


def test_the_short_rest_at_the_end_is_left_out(sliding):
    frames = sliding(8, 3)
    assert values([*frames, frames[0]], [0, 12, 24, 26]) == values(frames, [0, 12, 24])


def test_the_numbers_stay_what_they_are(sliding):
    """Raise the version of the stage when these change."""
    assert Motion.version == 2
    assert values(sliding(3, 4), [0, 1, 12, 24]) == {
        "mean": pytest.approx(0.02423, abs=2e-4),
        "top5": pytest.approx(0.02547, abs=2e-4),
        "moving_share": pytest.approx(1, abs=1e-3),
        "speed": pytest.approx(0.19557, abs=2e-4),
        "pairs": 2,
    }


def test_what_has_no_pair_or_no_room_for_a_patch_fails(texture):
    for images, numbers, code in (
        ([texture(180, 320)], [0], "too_short"),
        ([texture(31, 320)] * 2, [0, 12], "too_small"),
    ):
        outcome = measure(images, numbers)
        assert isinstance(outcome, Failed)
        assert outcome.code == code


def test_the_flow_does_not_depend_on_where_the_pictures_lie(texture):
    """cv2.magnitude fails this: its last digit follows the arrays' place in memory."""
    ground = cv2.cvtColor(texture(90, 161), cv2.COLOR_RGB2GRAY)
    pair = ground[:, :160], ground[:, 1:]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    chance, held, seen = np.random.default_rng(0), [], set()
    for _ in range(400):
        held.append(np.empty(int(chance.integers(1, 100_000)), np.uint8))
        seen.add(flow_lengths(flow, *(np.ascontiguousarray(picture) for picture in pair)).tobytes())
    assert len(seen) == 1


def test_a_clip_is_measured_alike_whatever_came_before(texture):
    """OpenCV's DIS fails this: what it chooses for a small picture it keeps for larger ones."""
    clips = []
    for height, width in ((HEIGHT, WIDTH), (35, 40)):
        wide = texture(height, width + 40)
        images = np.stack([wide[:, 8 * n : 8 * n + width] for n in range(4)])
        clips.append(Frames(images, (0, 1, 12, 13), 24.0, 14, width, height))
    stage = Motion()
    stage.setup()
    order = [clips[0], clips[1], clips[0], clips[1]]
    first, small, again, small_again = stage.measure(
        [Clip("id", "", "", "", "")] * 4, order, [{}] * 4
    )
    assert (first, small) == (again, small_again)
