"""Frames to H.264 files, one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

CRF = "25"
"""x264's quality for real clips of the web is 18..28; ours: the middle."""


class Grain:
    """Sensor noise on the luma: two fixed fields, laid at another place in every frame."""

    ROOM = 64

    def __init__(self, rng: np.random.Generator, width: int, height: int, sigma: float) -> None:
        self.rng, self.sigma = rng, sigma
        shape = (height + self.ROOM, width + self.ROOM)
        field = rng.standard_normal(shape, np.float32) * sigma
        self.lighter = np.asarray(np.clip(np.rint(field), 0, 255), np.uint8)
        self.darker = np.asarray(np.clip(np.rint(-field), 0, 255), np.uint8)

    def add(self, luma: np.ndarray) -> None:
        """Adds noise to (H, W) uint8 in place."""
        if self.sigma <= 0:
            return
        height, width = luma.shape
        y, x = self.rng.integers(0, self.ROOM, 2)
        place = np.s_[y : y + height, x : x + width]
        cv2.add(luma, np.ascontiguousarray(self.lighter[place]), luma)
        cv2.subtract(luma, np.ascontiguousarray(self.darker[place]), luma)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    size: tuple[int, int],
    rate: Fraction,
    grain: Grain,
    rotation: int = 0,
    index_first: bool = False,
) -> None:
    """Streams upright RGB frames (H, W, 3) of one even size into an MP4.

    rotation: quarter turns times 90, clockwise, that a player must make: the coded picture is
    turned back by as much and the display matrix says so. index_first: moov before the frames.
    """
    options = {"movflags": "faststart"} if index_first else {}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        width, height = size if rotation % 180 == 0 else size[::-1]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        fast = "superfast" if width * height > 1_000_000 else "veryfast"
        stream.options = {"preset": fast, "crf": CRF, "threads": "1", "bf": "0"}
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(-rotation)
        for rgb in frames:
            turned = np.ascontiguousarray(np.rot90(rgb, rotation // 90))
            planes = np.asarray(cv2.cvtColor(turned, cv2.COLOR_RGB2YUV_I420), np.uint8)
            grain.add(planes[:height])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def write_tone(path: Path, seconds: float) -> None:
    """An MP4 that has sound and no picture."""
    rate = 44_100
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        wave = 0.2 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
        for start in range(0, len(wave) - 1023, 1024):
            block = np.asarray(wave[None, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
