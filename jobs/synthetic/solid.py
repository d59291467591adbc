"""A small exact renderer: upright solids with round or square cross-sections, turned and shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from jobs.synthetic.texture import TEXTURE_HEIGHT, TEXTURE_WIDTH, Colour

Profile = tuple[tuple[float, float], ...]
"""(height, width) pairs: -1 is the top, 1 the bottom; width as a share of the part's radius."""

BALL: Profile = ()
"""The profile of an ellipsoid."""

LIGHT = np.asarray([-0.45, -0.62, 0.64], np.float32)
"""Unit vector to the lamp: from the upper left, before the subject (y points down)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One solid with an upright axis, in units of half the subject's height; y points down.

    centre: (x, y, z), z towards the viewer; radii: (x, y, z) half sizes; paint: 0 the subject's
    pattern, 1 its second colour, or a colour of its own; square: a rectangular cross-section.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    profile: Profile = BALL
    paint: int | Colour = 0
    square: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn subject: rgb (H, W, 3) uint8, alpha (H, W) uint8, scale in pixels per unit."""

    rgb: np.ndarray
    alpha: np.ndarray
    scale: float


def extent(parts: Sequence[Part]) -> tuple[float, float, float]:
    """(half width, top, bottom) in units, whichever way the subject is turned."""
    half = max(math.hypot(p.centre[0], p.centre[2]) + max(p.radii[0], p.radii[2]) for p in parts)
    top = min(p.centre[1] - p.radii[1] for p in parts)
    bottom = max(p.centre[1] + p.radii[1] for p in parts)
    return half, top, bottom


def _widths(part: Part, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Width of the part at heights y, and its slope; zero width beyond its ends."""
    t = (y - part.centre[1]) / part.radii[1]
    if part.profile == BALL:
        width = np.sqrt(np.maximum(1 - t * t, 0))
        return width, np.where(width > 0, -t / np.maximum(width, 0.08), 0) / part.radii[1]
    heights, shares = zip(*part.profile, strict=True)
    fine = np.linspace(-1, 1, 65)
    smooth = np.convolve(
        np.pad(np.interp(fine, heights, shares), 3, "edge"), np.ones(7) / 7, "valid"
    )
    width = np.where(np.abs(t) <= 1, np.interp(t, fine, smooth), 0)
    slope = np.interp(t, fine, np.gradient(smooth, fine)) / part.radii[1]
    return width, slope


def _round(part: Part, x: np.ndarray, width: np.ndarray, slope: np.ndarray, yaw: float):
    """Front surface of an elliptic cross-section: (inside, depth, normal x, y, z)."""
    c, s = math.cos(yaw), math.sin(yaw)
    p, q = 1 / part.radii[0] ** 2, 1 / part.radii[2] ** 2
    xx, xz, zz = c * c * p + s * s * q, c * s * (q - p), s * s * p + c * c * q
    root = (xz * xz - xx * zz) * x * x + zz * width * width
    inside = root > 0
    z = (np.sqrt(np.maximum(root, 0)) - xz * x) / zz
    return inside, z, xx * x + xz * z, np.broadcast_to(-width * slope, z.shape), xz * x + zz * z


def _square(part: Part, x: np.ndarray, width: np.ndarray, slope: np.ndarray, yaw: float):
    """Front surface of a rectangular cross-section: (inside, depth, normal x, y, z)."""
    c, s = (math.copysign(max(abs(v), 1e-3), v) for v in (math.cos(yaw), math.sin(yaw)))
    side, front = part.radii[0] * width, part.radii[2] * width
    side_far, side_near = x * (c / s) + np.stack([-side, side]) / abs(s)
    front_far, front_near = -x * (s / c) + np.stack([-front, front]) / abs(c)
    z = np.minimum(side_near, front_near)
    inside = (z > np.maximum(side_far, front_far)) & (width > 0)
    on_front = front_near < side_near
    nx = np.where(on_front, s * np.sign(c), -c * np.sign(s))
    nz = np.where(on_front, abs(c), abs(s))
    reach = np.where(on_front, part.radii[2], part.radii[0])
    return inside, z, nx, np.broadcast_to(-slope, z.shape) * reach, nz


def _colours(part: Part, surfaces: Sequence[np.ndarray], local: tuple[np.ndarray, ...]):
    """(H, W, 3) of a part's paint at local coordinates (x, t, z)."""
    x, t, z = local
    if not isinstance(part.paint, int):
        return np.asarray(part.paint, np.float32)
    around = np.arctan2(x, z) * (TEXTURE_WIDTH / (2 * math.pi)) + TEXTURE_WIDTH / 2
    along = np.broadcast_to((t + 1) * (TEXTURE_HEIGHT / 2 - 0.51), around.shape)
    return cv2.remap(
        surfaces[part.paint],
        np.asarray(around, np.float32),
        np.asarray(along, np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def draw(
    parts: Sequence[Part], surfaces: Sequence[np.ndarray], yaw: float, scale: float, gloss: float
) -> Picture:
    """The subject turned by yaw (radians), seen from the front without perspective.

    surfaces: RGB patterns for paints 0 and 1; scale: pixels per unit; gloss: 0 cloth .. 1 glaze.
    """
    half, top, bottom = extent(parts)
    margin = 3 / scale
    wide, high = round(2 * (half + margin) * scale), round((bottom - top + 2 * margin) * scale)
    xs = (np.arange(wide, dtype=np.float32) + 0.5) / scale - half - margin
    ys = (np.arange(high, dtype=np.float32) + 0.5) / scale + top - margin
    rgb = np.empty((high, wide, 3), np.uint8)
    rgb[:] = surfaces[0][::32, ::32].mean(axis=(0, 1)) * 0.6
    depth = np.full((high, wide), -np.inf, np.float32)
    c, s = math.cos(yaw), math.sin(yaw)
    for part in parts:
        cx = part.centre[0] * c + part.centre[2] * s
        cz = part.centre[2] * c - part.centre[0] * s
        reach = math.hypot(part.radii[0], part.radii[2])
        columns = slice(*np.searchsorted(xs, [cx - reach, cx + reach]))
        rows = slice(
            *np.searchsorted(ys, [part.centre[1] - r for r in (part.radii[1], -part.radii[1])])
        )
        x, y = xs[None, columns] - cx, ys[rows, None]
        width, slope = (np.asarray(v, np.float32) for v in _widths(part, y))
        inside, z, *normal = (_square if part.square else _round)(part, x, width, slope, yaw)
        seen = inside & (z + cz > depth[rows, columns])
        length = np.sqrt(sum(n * n for n in normal)) + 1e-6
        facing = sum(n * w for n, w in zip(normal, LIGHT, strict=True)) / length
        shade = 0.42 + 0.7 * np.maximum(facing, 0)
        shine = 190 * gloss * np.maximum(facing, 0) ** 24
        local = (x * c - z * s, (y - part.centre[1]) / part.radii[1], x * s + z * c)
        lit = _colours(part, surfaces, local) * shade[..., None] + shine[..., None]
        np.copyto(
            rgb[rows, columns], np.asarray(np.clip(lit, 0, 255), np.uint8), where=seen[..., None]
        )
        np.copyto(depth[rows, columns], np.asarray(z + cz, np.float32), where=seen)
    alpha = np.asarray(np.isfinite(depth), np.uint8) * 255
    return Picture(rgb, cv2.GaussianBlur(alpha, (3, 3), 0.7), scale)
