"""Masks: run lengths, boxes, overlap, components, holes."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.errors import InputError

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 lie one past the last pixel."""


def rle_encode(mask: np.ndarray) -> str:
    """The row-major run lengths of a mask (H, W) bool, separated by spaces.

    The first run is background (0 when the first pixel is foreground); "" for an empty picture.
    """
    flat = np.asarray(mask, dtype=bool).ravel()
    if not flat.size:
        return ""
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return " ".join(map(str, [0, *runs] if flat[0] else runs))


def rle_decode(rle: str, width: int, height: int) -> np.ndarray:
    """The mask (height, width) bool of `rle_encode`.

    Raises InputError when the text is not whole numbers that add up to the picture.
    """
    words = rle.split()
    if not all(word.isdecimal() for word in words):
        raise InputError(f"a mask has the runs {rle[:40]!r}; wanted whole numbers and spaces")
    runs = np.array([int(word) for word in words], dtype=np.int64)
    if runs.sum() != width * height:
        raise InputError(
            f"a mask's runs add up to {runs.sum()} pixels; wanted {width} x {height}: "
            "decode it with the size that is stored beside it"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)


def box_of(mask: np.ndarray) -> Box | None:
    """The tight box around a mask (H, W) bool; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1) in one unit, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks (H, W) bool, 0..1; 0 when both are empty."""
    either = np.count_nonzero(a | b)
    return int(np.count_nonzero(a & b)) / int(either) if either else 0.0


def largest_component(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The largest 8-connected component of a mask (H, W) bool, and its share of the mask, 0..1."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not areas.size:
        return np.zeros_like(mask, dtype=bool), 0.0
    best = int(areas.argmax())
    return labels == best + 1, float(areas[best] / areas.sum())


def fill_holes(mask: np.ndarray, max_share: float) -> np.ndarray:
    """The mask (H, W) bool with its small holes filled.

    max_share: a hole larger than this share of the mask's area stays, so a ring keeps its hole.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    labels = np.asarray(labels, dtype=np.int32)
    rim = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    small = stats[:, cv2.CC_STAT_AREA] < max_share * np.count_nonzero(mask)
    small[0] = False  # the mask itself
    small[rim] = False
    return mask | small[labels]


def touched_sides(mask: np.ndarray, share: float, strip: int = 1) -> np.ndarray:
    """Which sides of the picture a mask (H, W) bool touches: (4,) bool, top bottom left right.

    share: a side counts when the mask holds more than this share of its own extent along that
    side, so that a stray pixel is no contact; strip: how many pixels wide a side is.
    """
    box = box_of(mask)
    if box is None:
        return np.zeros(4, dtype=bool)
    width, height = box[2] - box[0], box[3] - box[1]
    rows = [mask[:strip].any(axis=0), mask[-strip:].any(axis=0)]
    columns = [mask[:, :strip].any(axis=1), mask[:, -strip:].any(axis=1)]
    held = [np.count_nonzero(row) / width for row in rows]
    held += [np.count_nonzero(column) / height for column in columns]
    return np.asarray(held) > share


def fill_of_box(mask: np.ndarray) -> float:
    """The share of its box that a mask (H, W) bool covers, 0..1; 0 when it is empty."""
    box = box_of(mask)
    if box is None:
        return 0.0
    return int(np.count_nonzero(mask)) / ((box[2] - box[0]) * (box[3] - box[1]))
