"""Lines of text in a picture, by the look of their strokes: no weights, no language.

Letters are thin against their height, sharp at the edge and of one colour, and they stand in rows.
A top-hat filter leaves what is thinner than its reach; rows of such pieces are tested as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class StrokeSettings:
    """What a row of strokes must be like to be text; all ours, for pictures of 480x854.

    Chosen on rows of text drawn into 17 real clips and synthetic corpus 101, and on what else they
    hold; figures of other text are in docs/decisions/011.
    reach_px: wider is no stroke. faint: least grey levels of a stroke against its surroundings,
    where one is looked for. shortest_px, tallest_px: heights of a letter. letters: of a row.
    contrast: least mean of a row, in grey levels. sharp: bounds of the slope at the strokes' edge,
    as a share of the contrast per pixel: leaves and folds are softer, lines of one pixel sharper.
    thick: a letter's area over its edge's length over its height, at most. uneven: spread of the
    ink's grey levels against its contrast, at most. stays: of the strokes in a row's box, in either
    picture, the share that is in both, at least: a pan carries signs along their own line.
    """

    reach_px: int = 17
    faint: int = 24
    shortest_px: int = 6
    tallest_px: int = 90
    letters: int = 4
    contrast: float = 36.0
    sharp: tuple[float, float] = (0.42, 0.75)
    thick: float = 0.16
    uneven: float = 0.45
    stays: float = 0.4


_MOST = 800
"""Pieces looked at in one picture, the largest: pairs of them are compared."""


def strokes(grey: np.ndarray, settings: StrokeSettings) -> tuple[np.ndarray, np.ndarray]:
    """How much brighter, and how much darker, than all around within reach: (H, W) uint8 each."""
    kernel = np.ones((settings.reach_px, settings.reach_px), np.uint8)
    return (
        cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel),
        cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel),
    )


def rows_of_text(
    one: np.ndarray, two: np.ndarray, grey: np.ndarray, settings: StrokeSettings
) -> np.ndarray:
    """(H, W) bool, the boxes of the rows that look like text and are in both of two pictures.

    one, two: (H, W) uint8, the bright or the dark `strokes` of either; grey: the first picture.
    """
    ink, either = np.minimum(one, two), np.maximum(one, two)
    found = np.zeros(ink.shape, bool)
    for row in _rows(_pieces(ink, settings), settings):
        x0, y0, x1, y1 = row.box
        window = np.s_[y0:y1, x0:x1]
        stays = _total(ink[window], settings) >= settings.stays * _total(either[window], settings)
        if stays and _is_text(row, ink[window], grey[window], settings):
            found[window] = True
    return found


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Connected strokes of a letter's shape. labels: (H, W); names: (N,) of these in it; boxes:
    (N, 4) x0, y0, x1, y1.
    """

    labels: np.ndarray
    names: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True, slots=True)
class _Row:
    """box: x0, y0, x1, y1; ink: (h, w) bool within it; height_px: of a letter."""

    box: tuple[int, int, int, int]
    ink: np.ndarray
    height_px: float


def _pieces(ink: np.ndarray, settings: StrokeSettings) -> _Pieces:
    strong = np.asarray(ink > settings.faint, np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    x, y, width, height, area = np.asarray(stats, np.int64).T
    letter = (height >= settings.shortest_px) & (height <= settings.tallest_px)
    letter &= (width <= 3.5 * height) & (width >= 0.06 * height)  # letters may touch; an l is thin
    letter &= (area >= 0.15 * width * height) & (area <= 0.95 * width * height)
    letter[0] = False  # the ground
    names = np.flatnonzero(letter)
    names = names[np.argsort(-area[names], kind="stable")][:_MOST]
    names = names[np.argsort(x[names], kind="stable")]
    boxes = np.stack([x, y, x + width, y + height], -1)[names]
    return _Pieces(np.asarray(labels), names, boxes)


def _rows(pieces: _Pieces, settings: StrokeSettings) -> Iterator[_Row]:
    """Pieces of like heights that stand side by side, on one line or under one."""
    x0, y0, x1, y1 = pieces.boxes.T.astype(np.float64)
    height = y1 - y0
    tall = np.maximum(height[:, None], height)
    near = (x0 - x1[:, None] <= 0.9 * tall) & (x0 - x1[:, None] >= -0.3 * tall)
    near &= np.minimum(height[:, None], height) >= 0.55 * tall
    near &= np.minimum(np.abs(y1 - y1[:, None]), np.abs(y0 - y0[:, None])) <= 0.12 * tall + 1
    for members in _joined(near & (x0 > x0[:, None])):
        if len(members) < settings.letters:
            continue
        low, high = pieces.boxes[members, :2].min(0), pieces.boxes[members, 2:].max(0)
        window = pieces.labels[low[1] : high[1], low[0] : high[0]]
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        yield _Row(box, np.isin(window, pieces.names[members]), float(np.median(height[members])))


def _joined(links: np.ndarray) -> list[list[int]]:
    """The connected groups of (N, N) bool links."""
    group = list(range(len(links)))

    def root(one: int) -> int:
        while group[one] != one:
            group[one] = group[group[one]]
            one = group[one]
        return one

    for first, second in np.argwhere(links).tolist():
        group[root(first)] = root(second)
    groups: dict[int, list[int]] = {}
    for one in range(len(links)):
        groups.setdefault(root(one), []).append(one)
    return list(groups.values())


def _total(ink: np.ndarray, settings: StrokeSettings) -> int:
    return int(ink[ink > settings.faint].sum(dtype=np.int64))


def _is_text(row: _Row, ink: np.ndarray, grey: np.ndarray, settings: StrokeSettings) -> bool:
    drawn = row.ink.astype(np.uint8)
    height, width = drawn.shape
    contrast = float(ink[row.ink].mean())
    if contrast < settings.contrast or height > 2.2 * row.height_px or width < 1.5 * height:
        return False
    inside = cv2.erode(drawn, np.ones((3, 3), np.uint8), borderValue=0) > 0
    rim = row.ink & ~inside
    slope = sum(np.abs(cv2.Sobel(ink, cv2.CV_32F, dx, 1 - dx, scale=1 / 8)) for dx in (1, 0))
    sharp = float(np.asarray(slope)[rim].mean()) / contrast
    thick = np.count_nonzero(row.ink) / np.count_nonzero(rim) / row.height_px
    core = cv2.erode(drawn, np.ones((2, 2), np.uint8)) > 0
    spread = float(grey[core].std()) if core.any() else 0.0
    uneven = spread / float(np.percentile(ink[row.ink], 90))
    return bool(
        settings.sharp[0] <= sharp <= settings.sharp[1]
        and thick <= settings.thick
        and uneven <= settings.uneven
    )
