"""What moves otherwise than the camera: dense flow to a few later frames, and a vote over them.

Legend: T later frames, (h, w) the flow's size, usually smaller than the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class MotionVoteSettings:
    """How motion is measured and what counts as moving.

    All are ours, chosen on the real clips and on synthetic corpora 0 and 1.
    """

    flow_area_px: int = 320 * 570  # DIS in 25 ms; at half the area the IoU falls by 5 points
    shade: float = 0.02  # of the diagonal: slower changes of light are taken out before the flow
    camera_error_px: float = 1.0  # RANSAC's inlier distance
    still: float = 0.004  # of the diagonal: 2.6 px; less than half of it is DIS's own error
    unchanged: float = 0.3  # of the local contrast: less change than this means: stays
    telling: float = 0.4  # of the greatest reach: in a frame with less, a thing is back home
    telling_area: float = 0.85  # of the most pixels seen to move: the same, by area
    ground: float = 0.15  # of the picture: stays with the camera, or the camera is not known
    vote: float = 0.3  # of the telling frames: two in six
    stay: float = 0.17  # of them: background is uncovered at least once


@dataclass(frozen=True, slots=True)
class Motion:
    """The votes of the telling frames, each (h, w).

    moves: share in which a pixel is found again away from where the camera would carry it;
    stays: share in which it is there; loose: it hardly ever stays; sure: it moves, by a majority;
    still: it stays, by a majority; reach: mean distance when found, as a share of the diagonal;
    away: (T, h, w) where it is found away, in every frame; shifts: (T, h, w, 2) how far, in pixels;
    seconds: (T,).
    """

    moves: np.ndarray
    stays: np.ndarray
    loose: np.ndarray
    sure: np.ndarray
    still: np.ndarray
    reach: np.ndarray
    away: np.ndarray
    shifts: np.ndarray
    seconds: np.ndarray

    def found(self, mask: np.ndarray) -> np.ndarray:
        """The share (T,) of a mask (h, w) bool that is found away in each later frame, 0..1."""
        return self.away[:, mask].mean(axis=1) if mask.any() else np.zeros(len(self.away))

    def leaving(self, mask: np.ndarray, until_s: float) -> float:
        """The share of a mask (h, w) bool that its motion carries out of the picture, 0..1.

        Judged from the last frame in which it is found about as well as ever; when that is before
        until_s, the motion is carried on to then at the same mean speed.
        """
        found = self.found(mask)
        if not found.any():
            return 0.0
        last = int(np.flatnonzero(found >= 0.5 * found.max())[-1])
        pixels = mask & self.away[last]
        more = max(1.0, until_s / float(self.seconds[last]))
        ends = grid(*mask.shape) + more * self.shifts[last]
        return float(np.mean(~inside(ends)[pixels]))


@dataclass(frozen=True, slots=True)
class _Sight:
    """One later frame: there (h, w, 2) by flow; residual (h, w) of the diagonal; the rest bool.

    matched: forward and backward flow agree; same: the picture did not change, although flow
    cannot say so; visible: the camera keeps the place in the picture.
    """

    there: np.ndarray
    residual: np.ndarray
    matched: np.ndarray
    same: np.ndarray
    visible: np.ndarray


def watch(images: np.ndarray, seconds: np.ndarray, settings: MotionVoteSettings) -> Motion:
    """What moves between the first image and the others.

    images: (1 + T, H, W, 3) uint8 RGB; seconds: (1 + T,) their times.
    """
    first, *others = (_shadeless(image, settings) for image in images)
    contrast = _contrast(first)
    # Never with an initial flow: DIS crashes on one in OpenCV 5.
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    here = grid(*first.shape)
    sights = [_look(dis, here, first, later, contrast, settings) for later in others]
    return _vote(here, sights, np.asarray(seconds, np.float32), settings)


def _look(
    dis: Any,  # OpenCV's stubs demand the initial flow that must not be given
    here: np.ndarray,
    first: np.ndarray,
    later: np.ndarray,
    contrast: np.ndarray,
    settings: MotionVoteSettings,
) -> _Sight:
    forward = dis.calc(first, later, None)
    backward = dis.calc(later, first, None)
    there = here + forward
    returned = cv2.remap(backward, there[..., 0], there[..., 1], cv2.INTER_LINEAR)
    error = np.linalg.norm(forward + returned, axis=2)
    agree = inside(there) & (error < 1.0 + 0.05 * np.linalg.norm(forward, axis=2))
    carried = _camera(here, there, agree, settings.camera_error_px)
    residual = np.linalg.norm(there - carried, axis=2) / math.hypot(*first.shape)
    visible = inside(carried)
    change = _change(first, later, carried)
    noise = float(np.median(change))
    unchanged = change < 1.5 * noise + settings.unchanged * contrast
    same = visible & ~agree & unchanged & (contrast > 2.0 * noise)
    return _Sight(there, residual, agree & visible, same, visible)


def _vote(
    here: np.ndarray, sights: list[_Sight], seconds: np.ndarray, settings: MotionVoteSettings
) -> Motion:
    residual = np.stack([sight.residual for sight in sights])
    matched = np.stack([sight.matched for sight in sights])
    away = matched & (residual > settings.still)
    at_home = matched & (residual < settings.still / 2)
    tells = _telling(residual, matched, away, at_home, settings)
    at_home |= np.stack([sight.same for sight in sights])
    visible = np.stack([s.visible for s in sights])[tells].sum(axis=0)
    moves = away[tells].sum(axis=0) / np.maximum(visible, 1)
    stays = at_home[tells].sum(axis=0) / np.maximum(visible, 1)
    stays[visible == 0] = 1.0  # out of sight for good: no ground to call it a thing
    found = matched[tells]
    return Motion(
        moves=moves,
        stays=stays,
        loose=(stays < settings.stay) | (moves > 2.0 * stays),
        sure=(moves >= settings.vote) & (moves > stays),
        still=(stays >= settings.vote) & (stays > moves),
        reach=(residual[tells] * found).sum(axis=0) / np.maximum(found.sum(axis=0), 1),
        away=away,
        shifts=np.stack([sight.there - here for sight in sights]),
        seconds=seconds[1:],
    )


def _telling(
    residual: np.ndarray,
    matched: np.ndarray,
    away: np.ndarray,
    at_home: np.ndarray,
    settings: MotionVoteSettings,
) -> np.ndarray:
    """Which later frames have a vote, (T,) bool: things moved far in them, or much of them moved.

    Frames without a background have none: there flow lost the camera. One frame alone is no
    majority: then all that see the background vote.
    """
    grounded = at_home.mean(axis=(1, 2)) >= settings.ground
    if not grounded.any():
        return grounded
    pairs = zip(residual, matched, strict=True)
    far = np.array([np.percentile(r[m], 99) if m.any() else 0.0 for r, m in pairs])
    area = away.sum(axis=(1, 2))
    far_enough = far >= settings.telling * far[grounded].max()
    tells = grounded & (far_enough | (area >= settings.telling_area * area[grounded].max()))
    return tells if np.count_nonzero(tells) > 1 else grounded


def flow_size(height: int, width: int, settings: MotionVoteSettings) -> tuple[int, int]:
    """(width, height) in pixels at which a picture's flow is taken."""
    scale = min(1.0, math.sqrt(settings.flow_area_px / (height * width)))
    return round(width * scale), round(height * scale)


def _shadeless(image: np.ndarray, settings: MotionVoteSettings) -> np.ndarray:
    """(h, w) uint8: the picture at the flow's size without slow light and shade.

    A soft shadow moves with its thing and is not part of it; what it falls on shows through.
    """
    height, width = image.shape[:2]
    size = flow_size(height, width, settings)
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    log = np.log(grey.astype(np.float32) + 16.0)
    fine = log - cv2.GaussianBlur(log, (0, 0), settings.shade * math.hypot(*size))
    return np.clip(128.0 + 160.0 * fine, 0, 255).astype(np.uint8)


def _contrast(picture: np.ndarray) -> np.ndarray:
    """Standard deviation (h, w) in grey levels around each pixel."""
    levels = picture.astype(np.float32)
    mean = cv2.blur(levels, (7, 7))
    return np.sqrt(np.maximum(cv2.blur(levels * levels, (7, 7)) - mean * mean, 0.0))


def _change(first: np.ndarray, later: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Mean difference (h, w) in grey levels around each pixel once the camera is undone."""
    back = cv2.remap(
        later, carried[..., 0], carried[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.blur(cv2.absdiff(first, back).astype(np.float32), (7, 7))


def _camera(here: np.ndarray, there: np.ndarray, agree: np.ndarray, error_px: float) -> np.ndarray:
    """Where the background's homography carries every pixel, (h, w, 2)."""
    use = np.zeros_like(agree)
    use[::5, ::5] = agree[::5, ::5]
    if np.count_nonzero(use) < 50:
        return here
    homography, _ = cv2.findHomography(
        here[use], there[use], cv2.RANSAC, error_px, maxIters=500, confidence=0.999
    )
    if homography is None:
        return here
    return cv2.perspectiveTransform(here.reshape(-1, 1, 2), homography).reshape(here.shape)


def grid(height: int, width: int) -> np.ndarray:
    """The place (x, y) of every pixel, (height, width, 2) float32."""
    return np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)


def inside(points: np.ndarray) -> np.ndarray:
    """Which points (h, w, 2), one per pixel of a picture, lie inside of it."""
    height, width = points.shape[:2]
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
