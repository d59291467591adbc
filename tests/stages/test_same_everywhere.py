"""A measure depends on the pixels alone: not on where they lie in memory, nor on what came before.

Two engines, two machines of a kind and a resumed run must give the same facts to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.clip import Clip
from pipeline.decode import read_frames
from pipeline.frames import Frames
from pipeline.stage import Stage
from stages.appearance import Appearance
from stages.motion import Motion
from stages.segment import Segment, SegmentSettings

CLIP = Clip("a" * 16, "a.mp4", "a.mp4", "A ball.", "a")


def elsewhere(frames: Frames, offset: int) -> Frames:
    """The same frames at another alignment."""
    room = np.empty(frames.images.size + 128, np.uint8)
    start = (-room.ctypes.data) % 64 + offset
    moved = room[start : start + frames.images.size].reshape(frames.images.shape)
    moved[:] = frames.images
    return replace(frames, images=moved)


@pytest.mark.parametrize(
    ("stage", "rounds"),
    [(Appearance(), 40), (Motion(), 60), (Segment(SegmentSettings()), 6)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_same_pixels_give_the_same_facts(
    stage: Stage,
    rounds: int,
    tmp_path: Path,
    render: Callable[..., Path],
    texture: Callable[..., np.ndarray],
) -> None:
    ground, paint = texture(180, 320, 1) // 2 + 60, texture(64, 64, 2)
    paths = []
    for number, speed in enumerate((2, 3)):
        pictures = [ground.copy() for _ in range(50)]
        for n, picture in enumerate(pictures):
            picture[50 : 50 + 64, 30 + speed * n : 30 + speed * n + 64] = paint
        paths.append(render(tmp_path / f"{number}.mp4", pictures))
    assert stage.frames is not None
    one, other = (read_frames(str(path), [stage.frames])[0] for path in paths)
    stage.setup()
    first = stage.measure([CLIP], [one], [{}])[0]
    chance = np.random.default_rng(0)
    held = []
    for _ in range(rounds):
        held.append(np.empty(int(chance.integers(1, 100_000)), np.uint8))
        if chance.random() < 0.1:
            stage.measure([CLIP], [other], [{}])
        offset = int(chance.integers(0, 64))
        assert stage.measure([CLIP], [elsewhere(one, offset)], [{}])[0] == first
