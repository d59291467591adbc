"""How a clip looks: where it cuts, how steadily it keeps its colours, how well it pleases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa

from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.filters import Filter
from pipeline.frames import Every, FrameRequest, Frames, Spaced
from pipeline.stage import Resources, Stage

_BINS = [8, 8, 8]  # curation.md: 8x8x8 finds all cuts of 33 clips with no false alarm
_RANGES = [0, 180, 0, 256, 0, 256]  # OpenCV's HSV of 8 bits


@dataclass(frozen=True, slots=True)
class AppearanceSettings:
    """backend: "cpu" compares colours and takes the published aesthetic score.

    area_px: of the frames looked at. step_s: between the frames compared for consistency.
    """

    backend: Literal["cpu"] = "cpu"
    area_px: int = 256 * 144  # curation.md; 0.2 ms a frame
    step_s: float = 0.5  # as motion, so that both speak of the same pairs


class Appearance(Stage):
    """Cuts and consistency over every frame of the clip.

    min_intersection: the least overlap (0..1) of the HSV histograms of two consecutive frames;
    cut_frame: the number of the second of these; max_content_change: the largest mean absolute
    difference of two consecutive frames in HSV, 0..255 (the content score of PySceneDetect);
    consistency_mean, consistency_min: overlap of the histograms of frames step_s apart;
    aesthetic: LAION's scale of 1..10; aesthetic_source: where it is from, null when absent.
    """

    name = "appearance"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "min_intersection": pa.float64(),
            "cut_frame": pa.int32(),
            "max_content_change": pa.float64(),
            "consistency_mean": pa.float64(),
            "consistency_min": pa.float64(),
            "aesthetic": pa.float64(),
            "aesthetic_source": pa.string(),
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "aesthetic": Filter(min=5.3, absent="pass"),  # the paper; the cpu backend has no own score
        "min_intersection": Filter(min=0.6),  # curation.md: a cut lies below, no clip without one
    }
    resources = Resources(cpus=1, batch=1)

    def __init__(self, settings: AppearanceSettings | None = None) -> None:
        self._settings = settings or AppearanceSettings()
        self.frames = FrameRequest(Every(), self._settings.area_px)

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers."""
        return asdict(self._settings)

    def setup(self) -> None:
        """One thread: workers are processes."""
        cv2.setNumThreads(1)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Code of failure: too_short."""
        return [self._measure(clip, seen) for clip, seen in zip(clips, frames, strict=True)]

    def _measure(self, clip: Clip, frames: Frames | None) -> Outcome:
        assert frames is not None
        if len(frames.numbers) < 2:
            return Failed("too_short", "one frame: there is nothing to compare it with")
        histograms, changes = _walk(frames.images)
        steps = _intersection(histograms[:-1], histograms[1:])
        apart = FrameRequest(Spaced(self._settings.step_s)).numbers(len(histograms), frames.fps)
        consistency = _intersection(histograms[apart[:-1]], histograms[apart[1:]])
        aesthetic = _number(clip.published.get("aesthetic score"))
        return Measurement(
            {
                "min_intersection": float(steps.min()),
                "cut_frame": frames.numbers[int(steps.argmin()) + 1],
                "max_content_change": float(changes.max()),
                "consistency_mean": float(consistency.mean()),
                "consistency_min": float(consistency.min()),
                "aesthetic": aesthetic,
                "aesthetic_source": None if aesthetic is None else "published",
            }
        )


def _walk(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Histograms (N, 512) that sum to 1, and content changes (N - 1,) of (N, H, W, 3) uint8 RGB."""
    histograms = np.empty((len(images), math.prod(_BINS)), np.float32)
    changes = np.empty(len(images) - 1)
    before = None
    for number, image in enumerate(images):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        histograms[number] = cv2.calcHist([hsv], [0, 1, 2], None, _BINS, _RANGES).ravel()
        if before is not None:
            changes[number - 1] = cv2.norm(before, hsv, cv2.NORM_L1) / hsv.size
        before = hsv
    return histograms / images[0, ..., 0].size, changes


def _intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Overlap 0..1 of histograms: (P, B), (P, B) -> (P,)."""
    return np.minimum(first, second).sum(axis=1, dtype=np.float64)


def _number(value: float | str | None) -> float | None:
    """A published score, unless it is absent or no number."""
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
