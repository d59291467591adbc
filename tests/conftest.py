"""Clips made by hand, and an S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import fsspec.config
import numpy as np
import pytest

if TYPE_CHECKING:
    from s3_server import S3Server


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


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server with an empty bucket, for all tests of a process."""
    from s3_server import s3_server

    with s3_server() as server:
        yield server


@pytest.fixture
def on_s3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., S3Server]]:
    """Leads this process to the server: (settings of pipeline.s3.Store) -> the server."""
    from pipeline.s3 import store_of

    def lead(**settings: Any) -> S3Server:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(fsspec.config.conf, "s3", settings)
        store_of.cache_clear()
        return s3

    yield lead
    s3.spare()
    store_of.cache_clear()
