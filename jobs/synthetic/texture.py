"""Surfaces: named colours and the patterns that a subject wears."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (196, 42, 38),
    "blue": (42, 84, 190),
    "green": (52, 140, 62),
    "yellow": (232, 196, 48),
    "orange": (232, 126, 34),
    "purple": (122, 56, 158),
    "pink": (230, 126, 164),
    "white": (236, 234, 226),
    "black": (38, 38, 44),
    "brown": (118, 74, 42),
    "turquoise": (46, 172, 172),
    "grey": (132, 134, 138),
    "cream": (232, 214, 176),
    "navy": (28, 40, 92),
}

TEXTURE_WIDTH, TEXTURE_HEIGHT = 512, 256
"""Pixels of a pattern: once around a solid, and from its top to its bottom."""


def clouds(rng: np.random.Generator, height: int, width: int, cells: float, octaves: int = 4):
    """(height, width) float32 smooth noise in [0, 1]; cells: lumps along the longer side."""
    total = np.zeros((height, width), np.float32)
    weight = 0.0
    for octave in range(octaves):
        count = cells * 2**octave / max(height, width)
        rows, columns = max(2, round(height * count)), max(2, round(width * count))
        grid = rng.random((min(rows, height), min(columns, width)), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
        weight += 1 / 2**octave
    return np.clip(total / weight, 0.0, 1.0)


def mix(first: Colour, second: Colour, share: np.ndarray) -> np.ndarray:
    """(..., 3) float32 between two colours; share: 0 is the first, 1 the second."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + (b - a) * share[..., None]


def _grid() -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(
        np.arange(TEXTURE_WIDTH, dtype=np.float32) / TEXTURE_WIDTH,
        np.arange(TEXTURE_HEIGHT, dtype=np.float32) / TEXTURE_HEIGHT,
    )


def _plain(rng: np.random.Generator) -> np.ndarray:
    return 0.35 * clouds(rng, TEXTURE_HEIGHT, TEXTURE_WIDTH, 14)


def _striped(rng: np.random.Generator) -> np.ndarray:
    u, v = _grid()
    slant = rng.choice([0.0, 1.0, -1.0])
    return np.asarray(np.sin(2 * np.pi * (rng.integers(7, 11) * u + 2 * slant * v)) > 0, np.float32)


def _banded(rng: np.random.Generator) -> np.ndarray:
    u, v = _grid()
    wave = 0.02 * np.sin(2 * np.pi * rng.integers(3, 7) * u)
    return np.asarray(np.sin(2 * np.pi * rng.integers(4, 7) * (v + wave)) > 0, np.float32)


def _checkered(rng: np.random.Generator) -> np.ndarray:
    u, v = _grid()
    return np.asarray((np.floor(14 * u) + np.floor(rng.integers(6, 9) * v)) % 2, np.float32)


def _scatter(rng: np.random.Generator, count: int, low: int, high: int) -> np.ndarray:
    field = np.zeros((TEXTURE_HEIGHT, TEXTURE_WIDTH), np.uint8)
    for _ in range(count):
        x, y = rng.integers(TEXTURE_WIDTH), rng.integers(TEXTURE_HEIGHT)
        radius = int(rng.integers(low, high))
        for shift in (-TEXTURE_WIDTH, 0, TEXTURE_WIDTH):
            cv2.circle(field, (int(x) + shift, int(y)), radius, 255, -1, cv2.LINE_AA)
    return field.astype(np.float32) / 255


def _spotted(rng: np.random.Generator) -> np.ndarray:
    return _scatter(rng, 44, 10, 20)


def _speckled(rng: np.random.Generator) -> np.ndarray:
    return _scatter(rng, 330, 2, 6)


def _marbled(rng: np.random.Generator) -> np.ndarray:
    u, v = _grid()
    swirl = clouds(rng, TEXTURE_HEIGHT, TEXTURE_WIDTH, 7)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (2 * u + 2 * v + 5 * swirl))


def _floral(rng: np.random.Generator) -> np.ndarray:
    field = np.zeros((TEXTURE_HEIGHT, TEXTURE_WIDTH), np.uint8)
    for _ in range(26):
        x, y = int(rng.integers(TEXTURE_WIDTH)), int(rng.integers(TEXTURE_HEIGHT))
        size, turn = int(rng.integers(9, 15)), rng.uniform(0, 72)
        for petal in range(5):
            angle = np.deg2rad(72 * petal + turn)
            at = (round(x + size * np.cos(angle)), round(y + size * np.sin(angle)))
            cv2.circle(field, at, max(4, size // 2), 255, -1, cv2.LINE_AA)
        cv2.circle(field, (x, y), size // 3, 90, -1, cv2.LINE_AA)
    return field.astype(np.float32) / 255


def _patchwork(rng: np.random.Generator) -> np.ndarray:
    cells = rng.random((7, 14), np.float32)
    return cv2.resize(cells, (TEXTURE_WIDTH, TEXTURE_HEIGHT), interpolation=cv2.INTER_NEAREST)


PATTERNS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plain": _plain,
    "striped": _striped,
    "banded": _banded,
    "checkered": _checkered,
    "spotted": _spotted,
    "speckled": _speckled,
    "marbled": _marbled,
    "floral": _floral,
    "patchwork": _patchwork,
}
"""Each gives (TEXTURE_HEIGHT, TEXTURE_WIDTH) float32: the share of the second colour."""


def surface(pattern: str, first: Colour, second: Colour, rng: np.random.Generator) -> np.ndarray:
    """(TEXTURE_HEIGHT, TEXTURE_WIDTH, 3) uint8 RGB of a pattern, with a fine grain as cloth has."""
    share = cv2.GaussianBlur(PATTERNS[pattern](rng), (3, 3), 0)
    grain = 0.86 + 0.28 * clouds(rng, TEXTURE_HEIGHT, TEXTURE_WIDTH, 60, 2)
    return np.asarray(np.clip(mix(first, second, share) * grain[..., None], 0, 255), np.uint8)
