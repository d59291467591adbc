"""Moving subjects drawn from a seed: what a small model can learn to look up in a reference.

A subject is a shape of two colours; its clip shows it crossing a grey floor, its reference shows it
on white, as curation makes them. The caption names the shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

HEIGHT, WIDTH, FRAMES = 64, 96, 9
SHAPES = ("ball", "box", "kite")
_BIG = 256  # drawn large and shrunk, so that edges are soft


@dataclass(frozen=True, slots=True)
class Subject:
    """picture: (256, 256, 3) uint8 RGB; mask: (256, 256), 255 inside."""

    shape: str
    picture: np.ndarray
    mask: np.ndarray

    @property
    def caption(self) -> str:
        """Says nothing of its colours."""
        return f"A {self.shape} moves over a grey floor."


def subject(seed: int, number: int) -> Subject:
    """One of a world of subjects."""
    rng = np.random.default_rng((seed, number))
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    mask = np.zeros((_BIG, _BIG), np.uint8)
    middle, reach = _BIG // 2, _BIG // 2 - 8
    if shape == "ball":
        cv2.circle(mask, (middle, middle), reach, 255, -1, cv2.LINE_AA)
    elif shape == "box":
        cv2.rectangle(mask, (24, 24), (_BIG - 24, _BIG - 24), 255, -1)
    else:
        corners = np.array([[middle, 8], [_BIG - 24, middle], [middle, _BIG - 8], [24, middle]])
        cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    first, second = _colour(rng), _colour(rng)
    rows, columns = np.mgrid[:_BIG, :_BIG]
    angle, width = rng.uniform(0, np.pi), rng.uniform(60, 110)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    striped = (np.floor(along / width) % 2 == 0)[..., None]
    return Subject(shape, np.where(striped, first, second).astype(np.uint8), mask)


def clip(seed: int, number: int) -> np.ndarray:
    """(9, 64, 96, 3) uint8 RGB: the subject crosses the floor."""
    rng = np.random.default_rng((seed, number, 1))
    shown, size = subject(seed, number), int(rng.integers(26, 40))
    grain = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    floor = 110 + 0.35 * cv2.GaussianBlur(grain, (0, 0), 3).astype(np.float32)
    x0, x1 = rng.uniform(0, WIDTH - size, 2)
    y0, y1 = rng.uniform(0, HEIGHT - size, 2)
    frames = []
    for at in np.linspace(0, 1, FRAMES):
        frame = np.repeat(floor[..., None], 3, axis=2)
        _put(frame, shown, x0 + (x1 - x0) * at, y0 + (y1 - y0) * at, size)
        frames.append(frame.round().clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def reference(seed: int, number: int) -> np.ndarray:
    """(64, 96, 3) uint8 RGB: the subject on white, at four fifths of the short side."""
    picture, size = np.full((HEIGHT, WIDTH, 3), 255, np.float32), HEIGHT * 4 // 5
    _put(picture, subject(seed, number), (WIDTH - size) / 2, (HEIGHT - size) / 2, size)
    return picture.round().astype(np.uint8)


def hues(pictures: np.ndarray, bins: int = 24) -> np.ndarray:
    """(bins,) shares of the hues in (..., H, W, 3) uint8 RGB, pixels weighing by their colour."""
    flat = np.ascontiguousarray(pictures).reshape(1, -1, 3).astype(np.float32) / 255
    hue, saturation, value = cv2.split(cv2.cvtColor(flat, cv2.COLOR_RGB2HSV))
    weight = np.where(saturation > 0.2, saturation * value, 0.0)  # neither floor nor paper
    found = np.histogram(hue, bins, (0, 360), weights=weight)[0].astype(np.float64)
    blurred = 0.5 * found + 0.25 * (np.roll(found, 1) + np.roll(found, -1))
    return blurred / max(blurred.sum(), 1e-9)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) RGB, a colour that has one."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.6, 1), rng.uniform(0.5, 1)]]], np.float32)
    return 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def _put(frame: np.ndarray, shown: Subject, x: float, y: float, size: int) -> None:
    """The subject onto a float picture, to a part of a pixel."""
    scale = size / _BIG
    place = np.array([[scale, 0, x], [0, scale, y]], np.float32)
    area = (frame.shape[1], frame.shape[0])
    small = cv2.GaussianBlur(shown.picture, (0, 0), 1.5)
    soft = cv2.GaussianBlur(shown.mask, (0, 0), 1.5)
    picture = cv2.warpAffine(small, place, area, flags=cv2.INTER_AREA).astype(np.float32)
    inside = cv2.warpAffine(soft, place, area, flags=cv2.INTER_AREA)[..., None] / 255.0
    frame[:] = frame * (1 - inside) + picture * inside
