"""Where a thing cut out of one picture is found again in another, without weights.

Wherever its outline fits, at three sizes, the colours and the texture inside of it are compared
with the thing's own. How near is near enough is told by the picture that it was cut out of: by the
nearest place there that is not the thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.errors import InputError
from pipeline.mask import Box, box_of
from stages.gaussians import Gaussian, features, frechet

_COMPARED_PX = 224
"""Short side of the pictures whose pixels are compared, as CLIP sees them."""
_CELL_PX = 2
"""Features are summed over cells of so many pixels a side before they are searched."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How a thing is searched; all ours.

    short_px: short side of the pictures when compared. scales: of the thing's outline, rising, 1
    among them. slack: a part of a thing is as near as all of it, so of the places that are nearer
    by no more than this share of what is far, the largest counts; the mean IoU of the boxes on
    synthetic corpora 101 and 102 is 0.88 with it, 0.80 without. inside: the share of the outline
    that has to lie in the picture. elsewhere: a place that covers less of the thing's box is not
    the thing. texture_weight: as in stages/fidelity.py. alike: a distance up to which two places
    may be one thing, so that a double beside it makes nothing lost; in the clips of corpus 101
    rendered without their thing nothing was nearer than 20.
    """

    short_px: int = 112
    scales: tuple[float, ...] = (0.8, 1.0, 1.25)
    slack: float = 0.08
    inside: float = 0.6
    elsewhere: float = 0.2
    texture_weight: float = 5.0
    alike: float = 10.0

    def __post_init__(self) -> None:
        if list(self.scales) != sorted(self.scales) or 1 not in self.scales:
            raise InputError(
                f"pair.search.scales is {self.scales}; wanted rising numbers, 1 among them"
            )


@dataclass(frozen=True, slots=True)
class Views:
    """What is looked at of one clip, all of one size: (H, W, 3) uint8 RGB.

    reference: frame 0, with the subject's mask, (H, W) bool, not empty; first, last: frames of the
    training window; entity: the subject's name, "" unknown.
    """

    reference: np.ndarray
    mask: np.ndarray
    first: np.ndarray
    last: np.ndarray
    entity: str


@dataclass(frozen=True, slots=True)
class Found:
    """Where a thing is: score: 1 for the same picture of it, 0 for no nearer than what lay around
    it; box: x0, y0, x1, y1 as shares of the picture, cut off at its sides.
    """

    score: float
    box: tuple[float, float, float, float]


class Sought:
    """A thing to be found again."""

    def __init__(self, image: np.ndarray, mask: np.ndarray, settings: SearchSettings) -> None:
        """image: (H, W, 3) uint8 RGB; mask: (H, W) bool, not empty."""
        self._settings = settings
        cells = _Cells(image, settings)
        height, width = cells.size
        share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        inner = share >= min(0.5, float(share.max()))
        box = box_of(inner)
        assert box is not None
        self._outline = inner[box[1] : box[3], box[0] : box[2]]
        self._looks = cells.within(inner)
        nearest = min((d for d, _ in self._nearest(cells, but=box)), default=0.0)
        self._far = max(nearest, settings.alike)

    def find(self, image: np.ndarray) -> Found:
        """The nearest place in another picture of the same aspect, (H, W, 3) uint8 RGB."""
        cells = _Cells(image, self._settings)
        places = list(self._nearest(cells))
        distance = min(each for each, _ in places)
        allowed = distance + self._settings.slack * self._far
        place = [place for each, place in places if each <= allowed][-1]
        height, width = cells.size
        box = np.clip(place / (width, height, width, height), 0, 1).tolist()
        return Found(max(0.0, 1 - distance / self._far), (box[0], box[1], box[2], box[3]))

    def _nearest(self, cells: _Cells, but: Box | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """The distance and the box, in cells, of the nearest place at each size of the outline.

        but: a place that this box is at does not count.
        """
        for looks, boxes in self._fits(cells):
            allowed = np.arange(len(boxes))
            if but is not None:
                allowed = np.flatnonzero(_covered(but, boxes) < self._settings.elsewhere)
            if not allowed.size:
                continue
            # The means alone are never further apart: few places need the whole distance.
            least = self._joined(
                [
                    np.linalg.norm(a.mean[allowed] - b.mean, axis=-1)
                    for a, b in zip(looks, self._looks, strict=True)
                ]
            )
            first = allowed[least.argmin()]
            hopeful = allowed[least <= self._distance(looks, first[None])]
            distances = self._distance(looks, hopeful)
            best = int(distances.argmin())
            yield float(distances[best]), boxes[hopeful[best]]

    def _distance(self, looks: Sequence[Gaussian], places: np.ndarray) -> np.ndarray:
        """(P,) how far the looks of these places are from the thing's."""
        some = (Gaussian(one.mean[places], one.covariance[places]) for one in looks)
        return self._joined([frechet(*pair) for pair in zip(some, self._looks, strict=True)])

    def _joined(self, distances: Sequence[np.ndarray]) -> np.ndarray:
        """Colour and texture in one."""
        colour, texture = distances
        return np.hypot(colour, self._settings.texture_weight * texture)

    def _fits(self, cells: _Cells) -> Iterator[tuple[Sequence[Gaussian], np.ndarray]]:
        height, width = self._outline.shape
        for scale in self._settings.scales:
            size = (max(2, round(width * scale)), max(2, round(height * scale)))
            if scale > 1 and (size[0] > cells.size[1] or size[1] > cells.size[0]):
                continue  # larger than the picture
            grown = cv2.resize(self._outline.astype(np.float32), size, interpolation=cv2.INTER_AREA)
            yield cells.under(grown >= min(0.5, float(grown.max())), self._settings.inside)


class _Cells:
    """What the cells of a picture look like: sums over any set of them are those of its pixels."""

    def __init__(self, image: np.ndarray, settings: SearchSettings) -> None:
        height, width = image.shape[:2]
        scale = settings.short_px / min(height, width)
        self.size = (
            max(2, round(height * scale / _CELL_PX)),
            max(2, round(width * scale / _CELL_PX)),
        )
        fine = (self.size[1] * _CELL_PX, self.size[0] * _CELL_PX)
        small = cv2.resize(image, fine, interpolation=cv2.INTER_AREA)
        self._kinds = [_moments(kind) for kind in features(small)]

    def within(self, mask: np.ndarray) -> Sequence[Gaussian]:
        """The looks of the cells of a mask: (H, W) bool."""
        return tuple(_gaussians(kind[mask].mean(0)) for kind in self._kinds)

    def under(self, outline: np.ndarray, inside: float) -> tuple[Sequence[Gaussian], np.ndarray]:
        """The looks under an outline, (h, w) bool, at each of P places, and their (P, 4) boxes.

        inside: the share of the outline that has to lie in the picture.
        """
        height, width = outline.shape
        count = _slide(np.ones((*self.size, 1)), outline)[..., 0]
        fits = count >= inside * np.count_nonzero(outline)
        rows, columns = np.nonzero(fits)
        corner = np.stack([columns - (width - 1), rows - (height - 1)], -1)
        boxes = np.concatenate([corner, corner + np.array((width, height))], -1)
        looks = tuple(
            _gaussians(_slide(kind, outline)[fits] / count[fits][:, None]) for kind in self._kinds
        )
        return looks, boxes


def _moments(pixels: np.ndarray) -> np.ndarray:
    """(H, W, K) features to (h, w, K + K * K): their means over cells, and those of products."""
    height, width = pixels.shape[:2]
    products = (pixels[..., :, None] * pixels[..., None, :]).reshape(height, width, -1)
    both = np.concatenate([pixels, products], -1)
    cells = both.reshape(height // _CELL_PX, _CELL_PX, width // _CELL_PX, _CELL_PX, -1)
    return cells.mean((1, 3))


def _gaussians(moments: np.ndarray) -> Gaussian:
    """(..., K + K * K) means to the Gaussians of them."""
    kinds = int((np.sqrt(4 * moments.shape[-1] + 1) - 1) / 2)
    mean = moments[..., :kinds]
    second = moments[..., kinds:].reshape(*moments.shape[:-1], kinds, kinds)
    return Gaussian(mean, second - mean[..., :, None] * mean[..., None, :])


def _slide(cells: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """(H, W, C) to (H + h - 1, W + w - 1, C): sums under the outline, (h, w), wherever it touches.

    By numpy's Fourier transform, not OpenCV's, whose last digits depend on the place in memory.
    """
    size = (cells.shape[0] + outline.shape[0] - 1, cells.shape[1] + outline.shape[1] - 1)
    over = np.fft.rfft2(cells, size, (0, 1))
    under = np.fft.rfft2(outline[::-1, ::-1].astype(np.float64), size, (0, 1))
    return np.fft.irfft2(over * under[..., None], size, (0, 1))


def _covered(box: Box, boxes: np.ndarray) -> np.ndarray:
    """(P,) the share of a box that each of (P, 4) boxes covers."""
    width = np.minimum(boxes[:, 2], box[2]) - np.maximum(boxes[:, 0], box[0])
    height = np.minimum(boxes[:, 3], box[3]) - np.maximum(boxes[:, 1], box[1])
    return width.clip(0) * height.clip(0) / ((box[2] - box[0]) * (box[3] - box[1]))


def correlation(image: np.ndarray, mask: np.ndarray, other: np.ndarray) -> float | None:
    """How like a thing is to the likest place in another picture, pixel by pixel: -1..1.

    image, other: (H, W, 3) uint8 RGB; mask: (H, W) bool of the thing in image. None for a thing of
    one colour, or one that fills the picture.
    """
    scale = _COMPARED_PX / min(mask.shape)
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    one, two, share = (
        np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)
        for picture in (image, other, mask.astype(np.float32))
    )
    inner = share >= min(0.5, float(share.max()))
    x0, y0, x1, y1 = box_of(inner) or (0, 0, *size)
    window = np.s_[y0:y1, x0:x1]
    if inner[window].shape == inner.shape or float(one[inner].std(axis=0).max()) < 1:
        return None
    weight = np.repeat(inner[window][..., None], 3, axis=-1).astype(np.float32)
    found = cv2.matchTemplate(two, one[window], cv2.TM_CCOEFF_NORMED, mask=weight)
    valid = found[np.isfinite(found) & (np.abs(found) <= 1.001)]  # of a plain place: 0 over 0
    return min(1.0, float(valid.max())) if valid.size else None
