"""Another tool's motion score inside our pass, so that the two differ in the machinery alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

import cv2
import numpy as np
import pyarrow as pa

from pipeline.clip import Clip, Facts, Measurement, Outcome
from pipeline.frames import FrameRequest, Frames, Indices
from pipeline.stage import Resources, Stage

_NO_FLOW = cast(np.ndarray, None)  # an initial flow is optional; OpenCV's stubs demand one


class Farneback(Stage):
    """score: mean length in pixels of Farneback's flow over the pairs, as data-juicer takes it.

    The frames are those that its `video_motion_score_filter` reads of a clip at 25 fps at its 2
    frames a second: the first two, then every twelfth; the shorter side is 520 pixels.
    """

    name: ClassVar[str] = "farneback"
    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema({"score": pa.float64()})
    resources = Resources(cpus=1, batch=1)

    def __init__(self, num_frames: int) -> None:
        numbers = (0, 1, *range(12, num_frames, 12))
        self.frames = FrameRequest(Indices(numbers), 520 * 924)  # of a picture of 16:9

    def settings(self) -> Mapping[str, Any]:
        """Nothing to set."""
        return {}

    def setup(self) -> None:
        """One thread: workers are processes."""
        cv2.setNumThreads(1)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """One score per clip."""
        return [Measurement({"score": _score(seen.images)}) for seen in frames if seen is not None]


def _score(images: np.ndarray) -> float:
    """images: (N, H, W, 3) uint8 RGB."""
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    lengths = []
    for first, second in pairwise(greys):
        flow = cv2.calcOpticalFlowFarneback(first, second, _NO_FLOW, 0.5, 3, 15, 3, 5, 1.2, 0)
        lengths.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
    return float(np.mean(lengths))
