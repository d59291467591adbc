"""Overlay: how much of the picture is covered by text that stays: captions, titles, watermarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa

from pipeline.bounds import Count, Positive
from pipeline.clip import Clip, Facts, Measurement, Outcome
from pipeline.errors import InputError
from pipeline.frames import FrameRequest, Frames, Spaced
from pipeline.stage import Resources, Stage
from pipeline.weights import ONE_FILE, Weights, find
from stages.networks.text_detector import TextDetector, TextDetectorSettings
from stages.strokes import StrokeSettings, rows_of_text, strokes


@dataclass(frozen=True, slots=True)
class OverlaySettings:
    """backend: "cpu" looks for rows of strokes, "reference" asks a text detector.

    step_s: between the frames looked at; what is not in two of them running is not counted, so a
    caption has to stay for twice as long to be sure to be seen. area_px: of the frames.
    """

    backend: Literal["cpu", "reference"] = "cpu"
    step_s: Positive = 2.0  # ours: a subtitle stays for 2-6 s; each frame costs 6 ms
    area_px: Count = 480 * 854  # ours: letters of 14 px at 1080p are 6 px tall
    strokes: StrokeSettings = StrokeSettings()
    detector: TextDetectorSettings = TextDetectorSettings()


class Overlay(Stage):
    """What text covers in both of two frames running, as a share of the picture, 0..1.

    share: mean over the pairs of frames; most: of the pair with the most. Text of the scene that
    stays where it is (a shop's sign before a fixed camera) counts too: nothing tells it apart.

    No filter by default: how much is too much is the user's to say. How well each backend finds
    what was drawn into clips: docs/decisions/011.
    """

    name = "overlay"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema({"share": pa.float64(), "most": pa.float64()})
    resources = Resources(cpus=1, batch=1)

    def __init__(self, settings: OverlaySettings | None = None) -> None:
        """Raises InputError when the reference backend has no model."""
        self._settings = settings or OverlaySettings()
        if self._settings.backend == "reference" and not self._settings.detector.model:
            raise InputError(
                "overlay.detector.model is empty; wanted the ONNX file of a DB text detector, or "
                'its https address, for overlay.backend = "reference"'
            )
        self.frames = FrameRequest(Spaced(self._settings.step_s), self._settings.area_px)

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers: of the backend in use."""
        unused = "detector" if self._settings.backend == "cpu" else "strokes"
        values = asdict(self._settings)
        del values[unused]
        return values

    def weights(self) -> Sequence[Weights]:
        """The detector's file."""
        if self._settings.backend == "cpu":
            return ()
        return (Weights(self._settings.detector.model, "overlay.detector.model", files=ONE_FILE),)

    def setup(self) -> None:
        """One thread: workers are processes. Raises InputError without the detector's file."""
        cv2.setNumThreads(1)
        for weights in self.weights():
            self._detector = TextDetector(find(weights), self._settings.detector)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Every clip is measured; a single frame is compared with itself."""
        return [self._measure(seen) for seen in frames]

    def _measure(self, frames: Frames | None) -> Outcome:
        assert frames is not None
        images = frames.images if len(frames.images) > 1 else np.repeat(frames.images, 2, axis=0)
        drawn = self._drawn if self._settings.backend == "cpu" else self._detected
        shares = [float(covered.mean()) for covered in drawn(images)]
        return Measurement({"share": float(np.mean(shares)), "most": max(shares)})

    def _drawn(self, images: np.ndarray) -> list[np.ndarray]:
        """(H, W) bool per pair: rows of strokes that are in both, as bright or as dark."""
        greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        settings = self._settings.strokes
        inks = [strokes(grey, settings) for grey in greys]
        return [
            rows_of_text(bright, bright_next, grey, settings)
            | rows_of_text(dark, dark_next, grey, settings)
            for grey, ((bright, dark), (bright_next, dark_next)) in zip(
                greys[:-1], pairwise(inks), strict=True
            )
        ]

    def _detected(self, images: np.ndarray) -> list[np.ndarray]:
        found = [self._detector.covered(image) for image in images]
        return [one & two for one, two in pairwise(found)]
