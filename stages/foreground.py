"""The moving thing of a clip's first frame: optical flow says where, GrabCut says how far.

Legend: T later frames, (H, W) the picture's size, (h, w) the flow's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.mask import box_of, fill_holes, largest_component


@dataclass(frozen=True)
class ForegroundSettings:
    """How the moving thing is found. Lengths are shares of the picture's diagonal.

    All are ours, chosen on the real clips and on synthetic corpora 0-2.
    """

    flow_area_px: int = 320 * 570  # DIS in 15 ms a pair; twice the size moved no verdict
    cut_area_px: int = 100_000  # of the crop that GrabCut sees: 0.1 s
    camera_error_px: float = 1.0  # RANSAC's inlier distance at the flow's size
    vote: float = 0.3
    stay: float = 0.17
    sure_share: float = 0.15
    max_gap: float = 0.3
    halo_px: float = 4.0
    core: float = 0.3
    unchanged: float = 0.3  # of the texture: less change where the flow says motion is a halo
    telling: float = 0.4
    tc: float = 0.4
    mode: str = "reach"
    sf: float = 0.5
    still: float = 0.004  # 2 px at the flow's size: what DIS leaves on a still background
    moving: float = 0.008  # a thing must reach it somewhere
    edge_share: float = 0.25  # of a thing's own speed: its edge, below it a halo
    margin: float = 0.3  # of the thing's longer side, on each side of the crop
    cut_rounds: int = 3
    max_hole: float = 0.02  # a larger hole belongs to the thing (curation.md)
    edge_contrast: float = 10.0  # CIE Lab distance that the eye takes for an edge


@dataclass(frozen=True, slots=True)
class Motion:
    """What moves otherwise than the camera; shares are of the later frames that tell, (h, w).

    moves: share in which a pixel is found again elsewhere; stays: where the camera carries it;
    out: share in which the flow ends outside the picture; speed: mean residual of the diagonal.
    """

    moves: np.ndarray
    stays: np.ndarray
    out: np.ndarray
    speed: np.ndarray

    def sure(self, vote: float) -> np.ndarray:
        """(h, w) bool: moves by at least this share of votes, and by the majority."""
        return (self.moves >= vote) & (self.moves > self.stays)

    def still(self, vote: float) -> np.ndarray:
        """(h, w) bool: stays by at least this share of votes, and by the majority."""
        return (self.stays >= vote) & (self.stays > self.moves)


@dataclass(frozen=True, slots=True)
class Thing:
    """A moving thing of the first frame.

    mask: (H, W) bool; the rest 0..1. largest: share of its largest component before the others
    were dropped; agreement: overlap of mask and motion; separation: share of the outline where
    colours differ; solidity: mask over its convex hull; rival: area of the next moving thing against this
    one; leaves: share of the mask that the motion carries out of the picture.
    """

    mask: np.ndarray
    largest: float
    agreement: float
    separation: float
    solidity: float
    rival: float
    leaves: float


def content(images: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns inside black bars; bars do not move with the camera and fool the flow.

    images: (N, H, W, 3) uint8.
    """
    bright = images.max(axis=(0, 3)) > 40
    rows = np.flatnonzero(bright.mean(1) > 0.1)
    columns = np.flatnonzero(bright.mean(0) > 0.1)
    height, width = bright.shape
    if len(rows) < height / 2 or len(columns) < width / 2:
        return slice(0, height), slice(0, width)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def resized(image: np.ndarray, area_px: int) -> np.ndarray:
    """The image at no more than area_px pixels, aspect kept, never enlarged."""
    height, width = image.shape[:2]
    scale = min(1.0, math.sqrt(area_px / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def measure_motion(images: np.ndarray, settings: ForegroundSettings) -> Motion:
    """What moves between the first image and the others. images: (1 + T, H, W, 3) uint8 RGB."""
    small = [resized(image, settings.flow_area_px) for image in images]
    grey = [_shadeless(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in small]
    height, width = grey[0].shape
    here = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    # Never with an initial flow: that crashes OpenCV 5.
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    residuals, matches, outs, same, seen = [], [], [], [], []
    texture = _texture(grey[0])
    for later, picture in zip(grey[1:], small[1:], strict=True):
        forward = dis.calc(grey[0], later, None)
        backward = dis.calc(later, grey[0], None)
        there = here + forward
        returned = cv2.remap(backward, there[..., 0], there[..., 1], cv2.INTER_LINEAR)
        error = np.linalg.norm(forward + returned, axis=2)
        matched = _inside(there) & (error < 1.0 + 0.05 * np.linalg.norm(forward, axis=2))
        carried = _camera(here, there, matched, settings.camera_error_px)
        residual = np.linalg.norm(there - carried, axis=2) / math.hypot(height, width)
        seen.append(_inside(carried))
        matches.append(matched & seen[-1])
        residuals.append(residual)
        outs.append(~_inside(there))
        change = _change(grey[0], later, carried)
        noise = np.median(change)
        same.append((change < 1.5 * noise + settings.unchanged * texture) & (texture > 2 * noise) & ~matched)
    return _vote(*map(np.stack, (residuals, matches, same, seen, outs)), settings)


def _vote(
    residuals: np.ndarray,
    matched: np.ndarray,
    same: np.ndarray,
    seen: np.ndarray,
    outs: np.ndarray,
    settings: ForegroundSettings,
) -> Motion:
    """All (T, h, w). Later frames in which little moves tell nothing and have no vote."""
    reach = [np.percentile(r[m], 99) if m.any() else 0.0 for r, m in zip(residuals, matched, strict=True)]
    tells = np.asarray(reach) >= settings.telling * max(reach)
    cnt = np.array([np.count_nonzero(m & (r > settings.still)) for r, m in zip(residuals, matched)])
    tc = cnt >= settings.tc * cnt.max()
    tells = {"reach": tells, "count": tc, "union": tc | tells, "both": tc & tells if (tc&tells).any() else tc}[settings.mode]
    residuals, matched, same, seen = (a[tells] for a in (residuals, matched, same, seen))
    count = np.maximum(np.count_nonzero(seen, axis=0), 1)
    moves = np.count_nonzero(matched & (residuals > settings.still), axis=0) / count
    stays = np.count_nonzero((matched & (residuals < settings.still * settings.sf)) | same, axis=0) / count
    stays[~seen.any(axis=0)] = 1.0  # never to be seen again: no ground for a thing
    speed = np.sum(residuals * matched, axis=0) / np.maximum(np.count_nonzero(matched, axis=0), 1)
    return Motion(moves, stays, np.mean(outs, axis=0), speed)


def _shadeless(grey: np.ndarray) -> np.ndarray:
    """The picture (h, w) uint8 without its slow light and shade, which move by themselves."""
    log = np.log(grey.astype(np.float32) + 16.0)
    fine = log - cv2.GaussianBlur(log, (0, 0), 0.02 * math.hypot(*grey.shape))
    return np.clip(128.0 + 160.0 * fine, 0, 255).astype(np.uint8)


def _inside(points: np.ndarray) -> np.ndarray:
    height, width = points.shape[:2]
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _change(first: np.ndarray, later: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Mean difference (h, w) in grey levels around each pixel once the camera is undone."""
    back = cv2.remap(
        later, carried[..., 0], carried[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    change = cv2.blur(cv2.absdiff(first, back).astype(np.float32), (7, 7))
    change[~_inside(carried)] = np.inf
    return change


def _texture(grey: np.ndarray) -> np.ndarray:
    """Standard deviation (h, w) in grey levels around each pixel, 0 where it is noise."""
    picture = grey.astype(np.float32)
    mean = cv2.blur(picture, (7, 7))
    spread = np.sqrt(np.maximum(cv2.blur(picture * picture, (7, 7)) - mean * mean, 0.0))
    return spread


def _camera(here: np.ndarray, there: np.ndarray, matched: np.ndarray, error_px: float) -> np.ndarray:
    """Where the background's homography carries every pixel: (h, w, 2)."""
    grid = np.zeros_like(matched)
    grid[::5, ::5] = True
    use = matched & grid
    if np.count_nonzero(use) < 50:
        return here
    homography, _ = cv2.findHomography(
        here[use], there[use], cv2.RANSAC, error_px, maxIters=500, confidence=0.999
    )
    if homography is None:
        return here
    return cv2.perspectiveTransform(here.reshape(-1, 1, 2), homography).reshape(here.shape)


def propose(motion: Motion, settings: ForegroundSettings) -> list[tuple[int, np.ndarray]]:
    """Regions (h, w) bool that do not stay, the weightiest first.

    Weight: the pixels in it that are seen to move.
    """
    sure = motion.sure(settings.vote)
    loose = ((motion.stays < settings.stay) | (motion.moves > 2 * motion.stays)).astype(np.uint8)
    loose = cv2.morphologyEx(loose, cv2.MORPH_OPEN, _disc(5))
    loose = cv2.morphologyEx(loose, cv2.MORPH_CLOSE, _disc(3))
    count, labels = cv2.connectedComponents(loose)
    found = []
    for label in range(1, count):
        region = labels == label
        moving = region & sure
        weight = np.count_nonzero(moving)
        if weight < max(0.0005 * region.size, settings.sure_share * np.count_nonzero(region)):
            continue
        if np.percentile(motion.speed[moving], 75) >= settings.moving:
            found.append((weight, fill_holes(region, settings.max_gap)))
    return sorted(found, key=lambda pair: -pair[0])


def cut_out(
    image: np.ndarray, region: np.ndarray, motion: Motion, settings: ForegroundSettings
) -> np.ndarray:
    """The mask (H, W) bool of the thing that moves in the region (h, w), by GrabCut.

    Sure foreground is the region's core, sure background what stands still at some distance.
    """
    height, width = image.shape[:2]
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1]
    trimap = np.full(region.shape, cv2.GC_PR_BGD, np.uint8)
    trimap[depth > settings.halo_px] = cv2.GC_PR_FGD
    deep = min(settings.core * math.sqrt(np.count_nonzero(region)), 0.7 * float(depth.max()))
    trimap[depth > deep] = cv2.GC_FGD
    trimap[motion.still(settings.vote) & ~region] = cv2.GC_BGD

    box = box_of(region)
    assert box is not None
    sx, sy = width / region.shape[1], height / region.shape[0]
    pad = settings.margin * max((box[2] - box[0]) * sx, (box[3] - box[1]) * sy)
    x0, y0 = max(0, int(box[0] * sx - pad)), max(0, int(box[1] * sy - pad))
    x1, y1 = min(width, int(box[2] * sx + pad)), min(height, int(box[3] * sy + pad))
    full = cv2.resize(trimap, (width, height), interpolation=cv2.INTER_NEAREST)
    crop = resized(image[y0:y1, x0:x1], settings.cut_area_px)
    seeds = cv2.resize(full[y0:y1, x0:x1], crop.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    mask = np.zeros((height, width), bool)
    if not (np.any(seeds % 2 == 1) and np.any(seeds % 2 == 0)):
        return mask
    cv2.grabCut(
        np.ascontiguousarray(crop[..., ::-1]), seeds, None, np.zeros((1, 65)), np.zeros((1, 65)),
        settings.cut_rounds, cv2.GC_INIT_WITH_MASK,
    )
    mask[y0:y1, x0:x1] = enlarged(seeds % 2 == 1, x1 - x0, y1 - y0)
    return mask


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def enlarged(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mask (H, W) bool at another size, its outline smooth."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def outline_contrast(image: np.ndarray, mask: np.ndarray, threshold: float) -> float:
    """The share of the outline, 0..1, along which the colours within and without differ.

    image: (H, W, 3) uint8 RGB; threshold: CIE Lab distance. Where a cut goes through the middle
    of a thing (an arm from its sleeve), both sides look the same.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)
    radius = max(2, round(0.05 * math.sqrt(np.count_nonzero(mask))))
    inner, outer = (_mean_near(lab, side, radius) for side in (mask, ~mask))
    distance = np.linalg.norm(inner - outer, axis=2)
    outline = mask & ~cv2.erode(mask.astype(np.uint8), _disc(1), borderValue=1).astype(bool)
    return float(np.mean(distance[outline] > threshold)) if outline.any() else 0.0


def _mean_near(image: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    size = (2 * radius + 1, 2 * radius + 1)
    weight = mask.astype(np.float32)
    total = cv2.blur(image * weight[..., None], size)
    return total / np.maximum(cv2.blur(weight, size), 1e-6)[..., None]


def solidity(mask: np.ndarray) -> float:
    """The mask's area (holes filled) over that of its convex hull, 0..1."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    if not outlines:
        return 0.0
    hull = cv2.contourArea(cv2.convexHull(np.vstack(outlines)))
    return min(1.0, sum(cv2.contourArea(line) for line in outlines) / hull) if hull else 0.0


def find_thing(images: np.ndarray, settings: ForegroundSettings) -> Thing | None:
    """The thing of the first image that moves, None when nothing does.

    images: (1 + T, H, W, 3) uint8 RGB.
    """
    cv2.setRNGSeed(0)  # RANSAC and GrabCut draw: the same for every clip, whatever came before
    rows, columns = content(images)
    inner = images[:, rows, columns]
    motion = measure_motion(inner, settings)
    regions = propose(motion, settings)
    if not regions:
        return None
    size = inner.shape[2], inner.shape[1]
    weight, region = regions[0]
    cut = cut_out(inner[0], region, motion, settings)
    kept, share = largest_component(cut)
    kept = fill_holes(kept, settings.max_hole)
    small = cv2.resize(kept.astype(np.uint8), motion.moves.shape[::-1]).astype(bool)
    sure = motion.sure(settings.vote)
    agreement = 0.0
    if small.any():
        agreement = float(np.mean(~motion.still(settings.vote)[small])) * np.count_nonzero(sure & region & small) / weight
    rival = max((np.count_nonzero(r & sure & ~small) / weight for _, r in regions[1:]), default=0.0)
    mask = np.zeros(images.shape[1:3], bool)
    mask[rows, columns] = kept
    return Thing(
        mask=mask,
        largest=share,
        agreement=agreement,
        separation=outline_contrast(inner[0], kept, settings.edge_contrast),
        solidity=solidity(kept),
        rival=rival,
        leaves=float(np.mean(cv2.resize(motion.out, size)[kept])) if kept.any() else 0.0,
    )
