"""The rule by which pictures get the size of the latents."""

from __future__ import annotations

import cv2
import numpy as np

RULE = "area-cubic/1"
"""Its name and version, in the address of what was made by it: raised when pixels change."""


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """images: (N, H, W, 3) uint8; size: (width, height).

    Means over areas where it shrinks, as a sum over both sides; cubic where it grows.
    """
    width, height = size
    if images.shape[1:3] == (height, width):
        return images
    shrinks = height * width < images.shape[1] * images.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(image, size, interpolation=how) for image in images])
