"""How much moves, over half a second and over the time of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, cast

import cv2
import numpy as np
import pyarrow as pa

from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames, Spaced
from pipeline.stage import Resources, Stage

_MIN_SIDE_PX = 16  # DIS throws on pictures that are smaller than its patches of 8 px
_NO_FLOW = cast(np.ndarray, None)  # an initial flow crashes OpenCV 5; its stubs demand one


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """backend: "cpu" is OpenCV's DIS flow, its fast preset.

    step_s: between the frames of a pair. short_s: of a short pair, one with each. area_px: of the
    frames. moving: what a moving pixel does at least, as a share of the diagonal per second.
    """

    backend: Literal["cpu"] = "cpu"
    step_s: float = 0.5  # curation.md
    short_s: float = 0.04  # ours: a frame at 25 fps; a camera shaken at 0.9/s is measured as 0.9
    area_px: int = 320 * 576  # curation.md; RAFT will see the same
    moving: float = 0.01  # ours: compression moves the pixels of a still picture by less


class Motion(Stage):
    """Optical flow of pairs of frames: lengths as shares of the frame's diagonal per second.

    mean: over all pixels; top5: over the fastest 5 % of the pixels; moving_share: of pixels,
    0..1; each is the mean over `pairs` pairs. speed: as mean, over short pairs: what shakes is back
    after half a second, and what is too fast to follow shows here alone. The unit is ours, so that
    sizes and rates compare.
    """

    name = "motion"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "mean": pa.float64(),
            "top5": pa.float64(),
            "moving_share": pa.float64(),
            "speed": pa.float64(),
            "pairs": pa.int32(),
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "top5": Filter(min=0.015),  # ours: a stream has 0.006, the next real clip 0.029
        "speed": Filter(max=0.20),  # ours: handheld clips have up to 0.13, a shaken camera 0.28..1
    }
    resources = Resources(cpus=1, batch=1)

    def __init__(self, settings: MotionSettings | None = None) -> None:
        self._settings = settings or MotionSettings()
        self._steps = FrameRequest(Spaced(self._settings.step_s))
        pick = Spaced(self._settings.step_s, self._settings.short_s)
        self.frames = FrameRequest(pick, self._settings.area_px)

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers."""
        return asdict(self._settings)

    def setup(self) -> None:
        """One thread: workers are processes."""
        cv2.setNumThreads(1)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._rough = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Codes of failure: too_short, too_small."""
        return [self._measure(seen) for seen in frames]

    def _measure(self, frames: Frames | None) -> Outcome:
        assert frames is not None
        if len(frames.numbers) < 2:
            return Failed("too_short", "one frame: there is nothing to compare it with")
        height, width = frames.images.shape[1:3]
        if min(height, width) < _MIN_SIDE_PX:
            return Failed("too_small", f"{width}x{height}: flow needs {_MIN_SIDE_PX} px a side")
        grey = {
            number: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            for number, image in zip(frames.numbers, frames.images, strict=True)
        }
        steps = self._steps.numbers(frames.num_frames, frames.fps)
        pairs = _pairs([n for n in steps if n in grey], self._settings.step_s * frames.fps)
        short = max(1, round(self._settings.short_s * frames.fps))
        followed = [(n, n + short) for n in steps if n + short in grey]
        mean, top5, moving_share = np.mean(
            [self._walk(grey[a], grey[b], (b - a) / frames.fps) for a, b in pairs], axis=0
        ).tolist()
        speeds = [self._speed(grey[a], grey[b], short / frames.fps) for a, b in followed]
        return Measurement(
            {
                "mean": mean,
                "top5": top5,
                "moving_share": moving_share,
                "speed": float(np.mean(speeds)) if speeds else mean,
                "pairs": len(pairs),
            }
        )

    def _walk(self, first: np.ndarray, second: np.ndarray, seconds: float) -> list[float]:
        """The mean, top5 and moving_share of one pair of (H, W) grey pictures."""
        length = flow_lengths(self._flow, first, second) / seconds
        fastest = max(1, round(length.size * 0.05))
        top5 = np.partition(length, -fastest)[-fastest:]
        moving = np.count_nonzero(length >= self._settings.moving) / length.size
        return [float(length.mean()), float(top5.mean()), moving]

    def _speed(self, first: np.ndarray, second: np.ndarray, seconds: float) -> float:
        """The mean of a short pair, at half size: it is held against an upper bound only."""
        if min(first.shape) >= 2 * _MIN_SIDE_PX:
            first, second = (_halved(picture) for picture in (first, second))
        return float(flow_lengths(self._rough, first, second).mean()) / seconds


def flow_lengths(flow: cv2.DISOpticalFlow, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H * W,) how far each pixel goes, as a share of the diagonal."""
    flow_px = flow.calc(first, second, _NO_FLOW)
    # Not cv2.magnitude: its last digit depends on where the arrays lie in memory.
    x, y = flow_px[..., 0], flow_px[..., 1]
    length_px = np.sqrt(x * x + y * y).ravel()
    return length_px / np.float32(np.hypot(*first.shape))


def _halved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def _pairs(numbers: Sequence[int], step: float) -> list[tuple[int, int]]:
    """Neighbours among frame numbers that are `step` frames apart.

    The last frame of a clip may follow at once, and a short time blows the flow's noise up: such a
    rest is left out, unless there is nothing else.
    """
    pairs = list(pairwise(numbers))
    return [(a, b) for a, b in pairs if b - a >= step / 2] or pairs
