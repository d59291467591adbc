"""The reference picture: a subject on white, the same way for curation, training and sampling."""

from __future__ import annotations

import io
import logging
import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps

from pipeline import storage
from pipeline.errors import InputError
from pipeline.mask import Box, box_of

_log = logging.getLogger(__name__)

VERSION = 1
"""Raised when the picture changes; samples and adapters record it."""


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """How large the subject stands, and how it is cut out.

    smallest, largest: bounds of the longer side of the subject's box as a share of the picture's
    short side. A subject between them keeps its size: pixels are not invented without need.
    margin: of the crop around the box, as a share of its longer side.
    feather_px: radius of the cut-out's soft edge, in pixels of the source.
    """

    smallest: float = 0.62  # design: 60-90 % of the short side, soft edges included
    largest: float = 0.88
    margin: float = 0.05  # ours: room for the soft edge, and inside the picture at any size
    feather_px: float = 1.5  # ours: hides the steps of a mask, and of the subject next to nothing

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest or self.largest * (1 + 2 * self.margin) > 1:
            raise InputError(
                f"reference: found smallest {self.smallest}, largest {self.largest}, margin "
                f"{self.margin}; wanted 0 < smallest <= largest and largest * (1 + 2 * margin) "
                "<= 1; change them in the run file"
            )


_DEFAULT = ReferenceSettings()


def compose(
    image: np.ndarray, alpha: np.ndarray, size: tuple[int, int], settings: ReferenceSettings
) -> np.ndarray:
    """The subject cut out, on white, centred.

    image: (H, W, 3) uint8 RGB; alpha: (H, W), a bool mask, which gets a soft edge, or uint8 with
    255 for the subject, taken as it is; size: (width, height) of the picture, as large as the
    video. Returns (height, width, 3) uint8 RGB. Raises ValueError when alpha is empty.
    """
    soft = alpha.dtype != np.bool_
    opacity = alpha if soft else _feather(alpha.astype(np.uint8) * 255, settings.feather_px)
    box = box_of(opacity > 127)
    if box is None:
        raise ValueError("there is no subject: alpha is empty")
    x0, y0, x1, y1 = box
    longer = max(x1 - x0, y1 - y0)
    short_side = min(size)
    scale = min(max(longer, settings.smallest * short_side), settings.largest * short_side) / longer
    margin = math.ceil(settings.margin * longer)
    window = (x0 - margin, y0 - margin, x1 + margin, y1 + margin)
    # White goes under the subject before resizing: no colour of the background bleeds in.
    cutout = _on_white(_crop(image, window), _crop(opacity, window))
    height, width = (max(1, round(side * scale)) for side in cutout.shape[:2])
    resized = Image.fromarray(cutout).resize((width, height), Image.Resampling.BICUBIC)
    picture = Image.new("RGB", size, (255, 255, 255))
    picture.paste(resized, ((size[0] - width) // 2, (size[1] - height) // 2))
    return np.array(picture)


def open_reference(
    place: str, size: tuple[int, int], settings: ReferenceSettings = _DEFAULT
) -> np.ndarray:
    """A file or URL as a reference, see `read_reference`. Raises InputError, also without a file.

    size: (width, height) in pixels of the video.
    """
    try:
        content = storage.read(place)
    except OSError as error:
        raise InputError(f"{place}: the reference cannot be read: {error}") from error
    return read_reference(place, content, size, settings)


def read_reference(
    name: str, content: bytes, size: tuple[int, int], settings: ReferenceSettings
) -> np.ndarray:
    """Anybody's picture as a reference, (height, width, 3) uint8 RGB.

    With transparency it is cut out by it; without, it is taken as it is, fitted onto white, with a
    warning. size: (width, height). Raises InputError, which begins with `name`.
    """
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        pixels = np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: cannot be read as a picture: {error}") from error
    alpha = pixels[..., 3]
    if not (alpha > 127).any():
        raise InputError(f"{name}: is all transparent, wanted a picture of a subject")
    if (alpha < 255).any():
        return compose(pixels[..., :3], alpha, size, settings)
    if image.size != size:
        _log.warning("%s: has no transparency, so its background is taken for subject", name)
    fitted = ImageOps.contain(image.convert("RGB"), size, Image.Resampling.BICUBIC)
    picture = Image.new("RGB", size, (255, 255, 255))
    picture.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2))
    return np.array(picture)


def _crop(array: np.ndarray, window: Box) -> np.ndarray:
    """The window (x0, y0, x1, y1), zeros where it lies outside of the array."""
    x0, y0, x1, y1 = window
    height, width = array.shape[:2]
    inside = array[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    above, below = max(-y0, 0), max(y1 - height, 0)
    left, right = max(-x0, 0), max(x1 - width, 0)
    return cv2.copyMakeBorder(inside, above, below, left, right, cv2.BORDER_CONSTANT, value=0)


def _feather(opacity: np.ndarray, radius_px: float) -> np.ndarray:
    """A soft edge on the inner side: a mask's rim is half background already."""
    if radius_px <= 0:
        return opacity
    size = 2 * round(radius_px) + 1
    eroded = cv2.erode(opacity, np.ones((size, size), np.uint8))
    return cv2.GaussianBlur(eroded if eroded.any() else opacity, (0, 0), radius_px)


def _on_white(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Whole numbers only, so that every machine rounds alike."""
    weight = opacity[..., None].astype(np.uint32)
    return ((image * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
