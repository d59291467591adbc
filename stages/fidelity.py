"""Fidelity: does a video show the subject of its reference? Measured without a network.

The place of each frame whose colours are nearest to the subject's is compared with it, in colour
and in texture, both as distances of Gaussians (stages/gaussians.py).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import starmap
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import storage
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.errors import InputError
from pipeline.frames import Every, FrameRequest, Frames
from pipeline.mask import box_of
from pipeline.stage import Stage
from stages.gaussians import Gaussian, features, frechet, gaussian_of

_WHITE = 250
"""From here on in all channels, and joined to the rim: the paper under a subject."""
_RIM_PX = 2
"""The subject's soft edge, left out: its gradient is the paper's."""


@dataclass(frozen=True, slots=True)
class FidelitySettings:
    """How a video is searched for its subject; all ours.

    height_px: of the pictures when compared. frames: looked at, evenly spaced. scales: longer side
    of the place looked at, as shares of the picture's height. inner: the share of a subject's box,
    from its middle, that is taken for the subject. texture_weight: of the texture's distance when
    both become one, so that they spread alike over the
    subjects of the synthetic corpus (10.3 and 2.0).
    """

    height_px: int = 128
    frames: int = 7
    scales: tuple[float, ...] = (0.25, 0.4, 0.6, 0.85)
    inner: float = 0.7
    texture_weight: float = 5.0


class Fidelity(Stage):
    """How far the subject in a video is from its reference, and from those of the others.

    colour: distance of its Lab colours, in units of Lab (2 is just visible); texture: of its
    gradients at two scales, in units of L per pixel; distance: both in one; rank: 1 when the own
    reference is the nearest of all `candidates`; nearest: the clip whose reference that is.
    """

    name = "fidelity"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "colour": pa.float64(),
            "texture": pa.float64(),
            "distance": pa.float64(),
            "rank": pa.int32(),
            "candidates": pa.int32(),
            "nearest": pa.string(),
        }
    )
    frames = FrameRequest(Every())

    def __init__(
        self, references: Mapping[str, str], settings: FidelitySettings | None = None
    ) -> None:
        """references: clip_id -> url of the picture of its subject, on white."""
        self._urls = dict(references)
        self._settings = settings or FidelitySettings()

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers."""
        return {**asdict(self._settings), "references": self._urls}

    def setup(self) -> None:
        """Reads the references; pictures that occur twice are one subject. Raises InputError."""
        cv2.setNumThreads(1)
        self._subject_of: dict[str, str] = {}
        self._subjects: dict[str, Subject] = {}
        self._shown_by: dict[str, str] = {}
        for clip_id, url in sorted(self._urls.items()):
            content = _read(url)
            digest = hashlib.sha256(content).hexdigest()
            self._subject_of[clip_id] = digest
            if digest not in self._subjects:
                picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
                self._subjects[digest] = describe(picture, self._settings)
                self._shown_by[digest] = clip_id

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Code of failure: no_reference."""
        return list(starmap(self._measure, zip(clips, frames, strict=True)))

    def _measure(self, clip: Clip, frames: Frames | None) -> Outcome:
        assert frames is not None
        own = self._subject_of.get(clip.clip_id)
        if own is None:
            return Failed("no_reference", "no reference was named for this video")
        seen = self._pictures(frames.images)
        found = {
            digest: np.mean([picture.nearest(subject) for picture in seen], axis=0)
            for digest, subject in self._subjects.items()
        }
        distances = {digest: self._joined(*both) for digest, both in found.items()}
        ranked = sorted(distances, key=lambda digest: distances[digest])
        return Measurement(
            {
                "colour": float(found[own][0]),
                "texture": float(found[own][1]),
                "distance": distances[own],
                "rank": 1 + ranked.index(own),
                "candidates": len(ranked),
                "nearest": self._shown_by[ranked[0]],
            }
        )

    def _joined(self, colour: float, texture: float) -> float:
        return float(np.hypot(colour, self._settings.texture_weight * texture))

    def _pictures(self, images: np.ndarray) -> list[_Places]:
        last = len(images) - 1
        count = min(self._settings.frames, len(images))
        numbers = sorted({round(i * last / max(count - 1, 1)) for i in range(count)})
        return [_Places(images[number], self._settings) for number in numbers]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a subject looks like. aspect: width / height of its box."""

    aspect: float
    colour: Gaussian
    texture: Gaussian


def describe(picture: np.ndarray, settings: FidelitySettings) -> Subject:
    """The subject of a reference, (H, W, 3) uint8 RGB on white; a picture without white is all of
    it the subject.
    """
    small = _resized(picture, settings.height_px)
    mask = subject_mask(small)
    x0, y0, x1, y1 = box_of(mask) or (0, 0, mask.shape[1], mask.shape[0])
    colour, texture = features(small)
    return Subject((x1 - x0) / (y1 - y0), gaussian_of(colour[mask]), gaussian_of(texture[mask]))


def subject_mask(picture: np.ndarray) -> np.ndarray:
    """(H, W) bool: all but the white that reaches the rim, and but the edge to it."""
    white = np.asarray((picture >= _WHITE).all(axis=2), np.uint8)
    _, labels = cv2.connectedComponents(white, connectivity=4)
    rim = np.unique(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    subject = ~((white > 0) & np.isin(labels, rim))
    if subject.all() or not subject.any():
        return np.ones_like(subject)
    kernel = np.ones((2 * _RIM_PX + 1,) * 2, np.uint8)
    inner = cv2.erode(subject.astype(np.uint8), kernel, borderValue=1).astype(bool)
    return inner if inner.any() else subject


class _Places:
    """The places of one frame; sums over any of them take four look-ups."""

    def __init__(self, image: np.ndarray, settings: FidelitySettings) -> None:
        self._settings = settings
        self._colour, self._texture = map(_Sums, features(_resized(image, settings.height_px)))

    def nearest(self, subject: Subject) -> tuple[float, float]:
        """Distances of colour and texture at the place whose colours are nearest."""
        boxes = self._boxes(subject.aspect)
        colours = frechet(self._colour.gaussians(boxes), subject.colour)
        best = int(colours.argmin())
        texture = frechet(self._texture.gaussians(boxes[best : best + 1]), subject.texture)
        return float(colours[best]), float(texture[0])

    def _boxes(self, aspect: float) -> np.ndarray:
        """(P, 4) x0, y0, x1, y1 of the inner parts of all places, an eighth of one apart."""
        height, width = self._colour.size
        found = []
        for scale in self._settings.scales:
            longer = scale * height * self._settings.inner
            w, h = (
                max(4, round(side)) for side in (longer * min(1, aspect), longer / max(1, aspect))
            )
            w, h = min(w, width), min(h, height)
            step = max(2, round(longer / 8))
            x, y = np.meshgrid(
                np.arange(0, width - w + 1, step), np.arange(0, height - h + 1, step)
            )
            found.append(np.stack([x, y, x + w, y + h], -1).reshape(-1, 4))
        return np.concatenate(found)


class _Sums:
    """Integral images of K features (H, W, K) and of their products."""

    def __init__(self, features: np.ndarray) -> None:
        self.size = features.shape[:2]
        self._k = features.shape[2]
        products = (features[..., :, None] * features[..., None, :]).reshape(*self.size, -1)
        both = np.concatenate([features, products], -1).astype(np.float64)
        self._sums = np.pad(both.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))

    def gaussians(self, boxes: np.ndarray) -> Gaussian:
        """Of the pixels in each of (P, 4) boxes."""
        x0, y0, x1, y1 = boxes.T
        s = self._sums
        total = s[y1, x1] - s[y0, x1] - s[y1, x0] + s[y0, x0]
        total /= ((x1 - x0) * (y1 - y0))[:, None]
        mean = total[:, : self._k]
        second = total[:, self._k :].reshape(-1, self._k, self._k)
        return Gaussian(mean, second - mean[:, :, None] * mean[:, None, :])


def _resized(picture: np.ndarray, height_px: int) -> np.ndarray:
    height, width = picture.shape[:2]
    if height == height_px:
        return picture
    size = (max(4, round(width * height_px / height)), height_px)
    shrinks = height > height_px
    return np.asarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    )


def _read(url: str) -> bytes:
    try:
        return storage.read(url)
    except FileNotFoundError as error:
        raise InputError(f"{url}: the reference picture is missing; generate again") from error
