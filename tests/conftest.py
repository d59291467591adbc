"""Clips made by hand."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest


def _render(
    path: Path,
    frames: Sequence[np.ndarray],
    fps: Fraction | int = 24,
    rotation: int = 0,
    faststart: bool = False,
) -> Path:
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "crf": "10", "g": "12"}
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def _texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.float32)
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) * (255 / (high - low))).astype(np.uint8)


@pytest.fixture(scope="session")
def render() -> Callable[..., Path]:
    """Writes H.264 with PyAV: (path, frames, fps=24, rotation=0, faststart=False) -> path.

    frames: (H, W, 3) uint8 RGB of even sizes. rotation: counter-clockwise degrees that a player
    turns it by. faststart: the moov atom stands first.
    """
    return _render


@pytest.fixture(scope="session")
def texture() -> Callable[..., np.ndarray]:
    """Smooth coloured noise, good to follow: (height, width, seed=0) -> (H, W, 3) uint8."""
    return _texture
