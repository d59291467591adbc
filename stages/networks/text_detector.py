"""Text in a picture by a network of differentiable binarisation (DB, Liao et al. 2020).

OpenCV runs the ONNX file. Its own `TextDetectionModel_DB` is not used: in OpenCV 5.0 it stops with
an assertion at the output that such files have, (1, 1, H, W). What follows the network is the
paper's: threshold, one box a blob, the mean of the map in it, and the box grown back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.bounds import Positive, Share
from pipeline.errors import InputError

_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
"""Of ImageNet, in the order of the channels as PaddleOCR feeds them: blue, green, red."""
_STEP_PX = 32
"""Sides are multiples of the network's stride."""
_PROBE = (2 * _STEP_PX, 3 * _STEP_PX)


@dataclass(frozen=True, slots=True)
class TextDetectorSettings:
    """model: an ONNX file here, or its https address, e.g. the detector of any PP-OCR.

    map_threshold: of a pixel; box_threshold: of a box's mean; unclip: a box grows by its area
    times this over its outline. All three are PaddleOCR's, but for its box threshold of 0.6, which
    loses watermarks that one can see through (ours).
    """

    model: str = ""
    map_threshold: Share = 0.3
    box_threshold: Share = 0.5
    unclip: Positive = 1.5


class TextDetector:
    """Finds text in pictures of any size."""

    def __init__(self, file: Path, settings: TextDetectorSettings) -> None:
        """Raises InputError when OpenCV cannot read the file, or it gives no map of a picture."""
        self._settings = settings
        wanted = "wanted the ONNX file of a DB text detector, for pictures of any size"
        try:
            self._net = cv2.dnn.readNetFromONNX(str(file))
            found = self._answer(np.zeros((*_PROBE, 3), np.float32)).shape
        except cv2.error as error:
            raise InputError(
                f"overlay.detector.model: OpenCV cannot read or run '{file}'; {wanted}"
            ) from error
        if found not in ((1, 1, *_PROBE), (1, *_PROBE), _PROBE):
            raise InputError(
                f"overlay.detector.model: '{file}' makes {found} of a picture of {_PROBE}; {wanted}"
            )

    def covered(self, picture: np.ndarray) -> np.ndarray:
        """(H, W) bool: where text is. picture: (H, W, 3) uint8 RGB."""
        height, width = picture.shape[:2]
        size = (_whole(width), _whole(height))
        blue_first = cv2.resize(picture, size)[..., ::-1].astype(np.float32) / 255
        normal = (blue_first - _MEAN) / _DEVIATION
        boxes = self._boxes(self._answer(normal).reshape(size[1], size[0]))
        return cv2.resize(boxes, (width, height), interpolation=cv2.INTER_NEAREST) > 0

    def _answer(self, normal: np.ndarray) -> np.ndarray:
        """What the network makes of a normalised picture (H, W, 3)."""
        self._net.setInput(np.ascontiguousarray(normal.transpose(2, 0, 1)[None]))
        return np.asarray(self._net.forward())

    def _boxes(self, probability: np.ndarray) -> np.ndarray:
        """(H, W) uint8, 1 in the boxes of what a (H, W) map of 0..1 holds."""
        found = np.zeros(probability.shape, np.uint8)
        strong = np.asarray(probability > self._settings.map_threshold, np.uint8)
        outlines, _ = cv2.findContours(strong, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for outline in outlines:
            middle, (width, height), angle = cv2.minAreaRect(outline)
            if min(width, height) < 3:
                continue
            blob = cv2.fillPoly(np.zeros_like(found), [outline], [1])
            if probability[blob > 0].mean() < self._settings.box_threshold:
                continue
            grown = width * height * self._settings.unclip / (width + height)
            corners = cv2.boxPoints((middle, (width + grown, height + grown), angle))
            cv2.fillPoly(found, [np.rint(corners).astype(np.int32)], [1])
        return found


def _whole(side_px: int) -> int:
    return max(_STEP_PX, round(side_px / _STEP_PX) * _STEP_PX)
