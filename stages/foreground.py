"""The moving thing of a clip's first frame: motion says where, GrabCut says how far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipeline.mask import Box, box_of, fill_holes, largest_component, touched_sides
from stages.residual_motion import Motion, MotionVoteSettings, watch


@dataclass(frozen=True)
class ForegroundSettings:
    """How the moving thing is found and cut out.

    All are ours, chosen on the real clips and on synthetic corpora 0 and 1; lengths in pixels
    belong to `motion.flow_area_px`.
    """

    motion: MotionVoteSettings = field(default_factory=MotionVoteSettings)
    moving: float = 0.008  # of the diagonal: a thing's quicker quarter moves at least as far
    sure_share: float = 0.08  # of a region: seen to move; what lacks it is noise or a covered wall
    max_gap: float = 0.3  # of a region: a larger hole in it is no flow that failed, but a hole
    halo_px: float = 4.0  # flow carries the background along this far, half of a DIS patch
    core: float = 0.3  # of the root of a region's area: deeper than this is surely the thing
    core_depth: float = 0.7  # of the greatest depth, for what is thinner
    margin: float = 0.3  # of the thing's longer side, on each side of the crop that is cut
    cut_area_px: int = 100_000  # of that crop: 0.1 s
    cut_rounds: int = 3  # six gain 0.3 points of IoU for 0.07 s
    max_hole: float = 0.02  # of the mask: a larger one stays (curation.md)
    until_s: float = 1.1  # what is lost from sight is taken to move on until then
    edge_contrast: float = 10.0  # CIE Lab distance that is plainly an edge


@dataclass(frozen=True, slots=True)
class Thing:
    """A moving thing of the first frame.

    mask: (H, W) bool. largest: share of its largest component before the others were dropped;
    agreement: share of it that does not stand still, times the share of the motion that it holds;
    separation: share of its outline where the colours differ; solidity: it over its convex hull;
    rival: motion of the next thing against its own; sides: sides of the picture that it or its
    motion touches; found: share of it that is found elsewhere in the best later frame; leaves:
    share of it that its motion carries out of the picture.
    """

    mask: np.ndarray
    largest: float
    agreement: float
    separation: float
    solidity: float
    rival: float
    sides: int
    found: float
    leaves: float


def find_thing(
    images: np.ndarray, seconds: np.ndarray, settings: ForegroundSettings
) -> Thing | None:
    """The thing of the first image that moves otherwise than the camera; None when nothing does.

    images: (1 + T, H, W, 3) uint8 RGB; seconds: (1 + T,) their times.
    """
    cv2.setRNGSeed(0)  # RANSAC and GrabCut draw: alike for every clip, whatever came before it
    rows, columns = content(images)
    inner = images[:, rows, columns]
    motion = watch(inner, seconds, settings.motion)
    regions = propose(motion, settings)
    if not regions:
        return None
    weight, region = regions[0]
    cut, share = largest_component(cut_out(inner[0], region, motion, settings))
    if not cut.any():
        return None
    cut = fill_holes(cut, settings.max_hole)
    small = _to_size(cut, *motion.moves.shape[::-1])
    mask = np.zeros(images.shape[1:3], bool)
    mask[rows, columns] = cut
    held = np.count_nonzero(motion.sure & region & small) / weight
    others = [np.count_nonzero(r & motion.sure & ~small) / weight for _, r in regions[1:]]
    return Thing(
        mask=mask,
        largest=share,
        agreement=float(held * np.mean(~motion.still[small])) if small.any() else 0.0,
        separation=outline_contrast(inner[0], cut, settings.edge_contrast),
        solidity=solidity(cut),
        rival=max(others, default=0.0),
        sides=_sides(small, motion.sure & region),
        found=float(motion.found(small).max()),
        leaves=motion.leaving(small, settings.until_s),
    )


def content(images: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns inside black bars: bars stay while the camera moves, and fool the flow.

    images: (N, H, W, 3) uint8.
    """
    bright = images.max(axis=(0, 3)) > 40
    rows = np.flatnonzero(bright.mean(axis=1) > 0.1)
    columns = np.flatnonzero(bright.mean(axis=0) > 0.1)
    height, width = bright.shape
    if len(rows) < height / 2 or len(columns) < width / 2:
        return slice(0, height), slice(0, width)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def propose(motion: Motion, settings: ForegroundSettings) -> list[tuple[int, np.ndarray]]:
    """Regions (h, w) bool that do not stand still, the weightiest first.

    Weight: the pixels in it that are seen to move. A region holds its thing and a halo: background
    that is covered in between, or dragged along by the flow.
    """
    loose = cv2.morphologyEx(motion.loose.astype(np.uint8), cv2.MORPH_OPEN, disc(5))
    loose = cv2.morphologyEx(loose, cv2.MORPH_CLOSE, disc(3))
    count, labels = cv2.connectedComponents(loose)
    found = []
    for label in range(1, count):
        region = labels == label
        moving = region & motion.sure
        weight = int(np.count_nonzero(moving))
        least = max(0.0005 * region.size, settings.sure_share * np.count_nonzero(region))
        if weight >= least and np.percentile(motion.reach[moving], 75) >= settings.moving:
            found.append((weight, fill_holes(region, settings.max_gap)))
    return sorted(found, key=lambda pair: -pair[0])


def cut_out(
    image: np.ndarray, region: np.ndarray, motion: Motion, settings: ForegroundSettings
) -> np.ndarray:
    """The mask (H, W) bool of the thing in the region (h, w), by GrabCut.

    Sure foreground is the region's core, sure background what stands still around it.
    """
    height, width = image.shape[:2]
    seeds = _seeds(region, motion.still, settings)
    x0, y0, x1, y1 = _around(region, width, height, settings.margin)
    full = cv2.resize(seeds, (width, height), interpolation=cv2.INTER_NEAREST)
    crop = _at_most(image[y0:y1, x0:x1], settings.cut_area_px)
    labels = cv2.resize(full[y0:y1, x0:x1], crop.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    mask = np.zeros((height, width), bool)
    if np.all(labels % 2 == 1) or np.all(labels % 2 == 0):
        return mask
    models = np.zeros((1, 65)), np.zeros((1, 65))
    rounds, mode = settings.cut_rounds, cv2.GC_INIT_WITH_MASK
    cv2.grabCut(crop, labels, (0, 0, 1, 1), *models, rounds, mode)
    mask[y0:y1, x0:x1] = enlarged(labels % 2 == 1, x1 - x0, y1 - y0)
    return mask


def _seeds(region: np.ndarray, still: np.ndarray, settings: ForegroundSettings) -> np.ndarray:
    """GrabCut's four labels (h, w) uint8."""
    framed = np.pad(region.astype(np.uint8), 1, mode="edge")  # the border is no outline
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    deep = min(
        settings.core * math.sqrt(np.count_nonzero(region)),
        settings.core_depth * float(depth.max()),
    )
    seeds = np.full(region.shape, cv2.GC_PR_BGD, np.uint8)
    seeds[depth > settings.halo_px] = cv2.GC_PR_FGD
    seeds[depth > deep] = cv2.GC_FGD
    seeds[still & ~region] = cv2.GC_BGD
    return seeds


def _around(region: np.ndarray, width: int, height: int, margin: float) -> Box:
    """The region's box with a margin, in the pixels of a picture of another size."""
    box = box_of(region)
    if box is None:
        return 0, 0, width, height
    sx, sy = width / region.shape[1], height / region.shape[0]
    pad = margin * max((box[2] - box[0]) * sx, (box[3] - box[1]) * sy)
    x0, y0 = max(0, int(box[0] * sx - pad)), max(0, int(box[1] * sy - pad))
    return x0, y0, min(width, int(box[2] * sx + pad)), min(height, int(box[3] * sy + pad))


def _at_most(image: np.ndarray, area_px: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(area_px / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def disc(radius: int) -> np.ndarray:
    """A round structuring element."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def enlarged(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mask (H, W) bool at a larger size, its outline smooth."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def _to_size(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    soft = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return soft > 0.5


def _sides(mask: np.ndarray, moving: np.ndarray) -> int:
    """How many sides of the picture the mask or what moves in its region (h, w) touches.

    What moves at the border belongs to something that is cut off there, whatever the mask says.
    """
    strip = max(2, round(0.015 * math.hypot(*mask.shape)))  # flow is blind at the very edge
    return int(np.count_nonzero(touched_sides(mask, 0.1) | touched_sides(moving, 0.1, strip)))


def outline_contrast(image: np.ndarray, mask: np.ndarray, threshold: float) -> float:
    """The share of the outline, 0..1, along which the colours within and without differ.

    image: (H, W, 3) uint8 RGB; threshold: CIE Lab distance. Where a cut goes through the middle
    of a thing (an arm from its sleeve), both sides look alike.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    radius = max(2, round(0.05 * math.sqrt(np.count_nonzero(mask))))
    inner, outer = (_mean_near(lab, side, radius) for side in (mask, ~mask))
    distance = np.linalg.norm(inner - outer, axis=2)
    outline = mask & ~cv2.erode(mask.astype(np.uint8), disc(1), borderValue=1).astype(bool)
    return float(np.mean(distance[outline] > threshold)) if outline.any() else 0.0


def _mean_near(image: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    size = (2 * radius + 1, 2 * radius + 1)
    weight = mask.astype(np.float32)
    total = cv2.blur(image * weight[..., None], size)
    return total / np.maximum(cv2.blur(weight, size), 1e-6)[..., None]


def solidity(mask: np.ndarray) -> float:
    """The mask's area with its holes filled over that of its convex hull, 0..1."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if not outlines:
        return 0.0
    hull = cv2.contourArea(cv2.convexHull(np.vstack(outlines)))
    return min(1.0, sum(cv2.contourArea(line) for line in outlines) / hull) if hull else 0.0
