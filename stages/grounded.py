"""Segment by name: where the first frame shows what the caption names, by networks.

The same stage as in segment.py, which needs no weights and takes what moves; a run has one of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames, Indices
from pipeline.mask import (
    box_iou,
    box_of,
    fill_holes,
    fill_of_box,
    largest_component,
    rle_encode,
    touched_sides,
)
from pipeline.stage import Resources, Stage
from pipeline.weights import Weights
from stages.networks.grounding import (
    Detection,
    Detector,
    GroundingSettings,
    detector_numbers,
    detector_weights,
    load_detector,
)
from stages.networks.placement import one_thread
from stages.networks.sam import (
    Cutout,
    Cutter,
    SamSettings,
    cutter_numbers,
    cutter_weights,
    load_cutter,
)

# All of these from curation.md.
_SECOND_SHARE, _SECOND_IOU = 0.8, 0.5
_SMALL_HOLE = 0.02
_ONE_PIECE = 0.9

_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("mask_rle", "x0", "y0", "x1", "y1", "phrase")),
    **dict.fromkeys(("instances", "border_sides", "crop_short_side_px"), 0),
    **dict.fromkeys(("score", "second_score", "predicted_iou", "stability"), 0.0),
    **dict.fromkeys(("area", "largest_component", "fill"), 0.0),
}
"""The measurement of a clip whose entity is not seen, or not named: the filters reject it."""


class GroundedSegment(Stage):
    """The caption's main entity on frame 0: Grounding DINO finds its box, SAM its mask.

    mask_rle: row-major run lengths at mask_width x mask_height, the upright native size; null when
    nothing is found. x0, y0, x1, y1: the mask's box, 0..1. phrase: the words that the box was found
    by. score: of that box; second_score: of the best box elsewhere. instances: boxes that are found
    about as well as the best one, and it. predicted_iou, stability: of the mask, see `Cutout`.
    area: share of the picture. largest_component: share of the mask before the rest was dropped.
    border_sides: sides of the picture that the mask touches. fill: mask over box.
    crop_short_side_px: of the box at native size.

    Without an entity there is nothing to look for: that is measured as nothing found, not failed,
    since looking again would not help.
    """

    name: ClassVar[str] = "segment"
    version: ClassVar[int] = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("mask_rle", pa.string()),
            ("mask_width", pa.int32()),
            ("mask_height", pa.int32()),
            ("x0", pa.float64()),
            ("y0", pa.float64()),
            ("x1", pa.float64()),
            ("y1", pa.float64()),
            ("phrase", pa.string()),
            ("score", pa.float64()),
            ("second_score", pa.float64()),
            ("instances", pa.int32()),
            ("predicted_iou", pa.float64()),
            ("stability", pa.float64()),
            ("area", pa.float64()),
            ("largest_component", pa.float64()),
            ("border_sides", pa.int32()),
            ("fill", pa.float64()),
            ("crop_short_side_px", pa.int32()),
            ("entity_checked", pa.bool_()),
        ]
    )
    filters: ClassVar[Mapping[str, Filter]] = {  # all of them from curation.md
        "score": Filter(min=0.35),
        "instances": Filter(min=1, max=1),
        "predicted_iou": Filter(min=0.88),
        "stability": Filter(min=0.95),
        "area": Filter(min=0.02, max=0.8),
        "largest_component": Filter(min=_ONE_PIECE),
        "border_sides": Filter(max=1),
        "fill": Filter(min=0.2),
        "crop_short_side_px": Filter(min=128),
    }
    needs = ("entities",)
    frames = FrameRequest(Indices((0,)))

    def __init__(self, detector: GroundingSettings, sam: SamSettings) -> None:
        self._detector_settings = detector
        self._sam_settings = sam
        self.resources = Resources(batch=max(detector.placement.batch, sam.placement.batch))

    def weights(self) -> Sequence[Weights]:
        """The detector's and SAM's."""
        return (*detector_weights(self._detector_settings), *cutter_weights(self._sam_settings))

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers."""
        return {
            "backend": "reference",
            "detector": detector_numbers(self._detector_settings),
            "sam": cutter_numbers(self._sam_settings),
        }

    def setup(self) -> None:
        """Loads both networks. Raises InputError when their weights are not here."""
        one_thread()
        self._detector: Detector = load_detector(self._detector_settings)
        self._cutter: Cutter = load_cutter(self._sam_settings)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """One mask per clip, or nothing found; a clip without a first frame is `Failed`."""
        del clips
        outcomes: list[Outcome] = [Failed("partial", "the first frame is missing") for _ in frames]
        seen = [(i, got) for i, got in enumerate(frames) if got is not None and len(got.images)]
        pictures = [got.images[0] for _, got in seen]
        entities = [facts[i]["entities"]["main_entity"] or "" for i, _ in seen]
        found = self._detector.detect(pictures, entities)
        hits = [k for k, boxes in enumerate(found) if boxes]
        cutouts = self._cutter.cut([pictures[k] for k in hits], [found[k][0].box for k in hits])
        described = {k: described_of(found[k], cut) for k, cut in zip(hits, cutouts, strict=True)}
        for k, (i, got) in enumerate(seen):
            size = {"mask_width": got.width, "mask_height": got.height, "entity_checked": True}
            outcomes[i] = Measurement({**described.get(k, _NOTHING), **size})
        return outcomes


def described_of(boxes: Sequence[Detection], cutout: Cutout) -> Mapping[str, Any]:
    """All columns but size and entity_checked. boxes: best first; cutout: of the first one."""
    best, *others = boxes
    elsewhere = [box for box in others if box_iou(best.box, box.box) < _SECOND_IOU]
    rivals = [box for box in elsewhere if box.score >= _SECOND_SHARE * best.score]
    said = {
        "phrase": best.phrase,
        "score": best.score,
        "second_score": max((box.score for box in elsewhere), default=0.0),
        "instances": 1 + len(rivals),
        "predicted_iou": cutout.predicted_iou,
        "stability": cutout.stability,
    }
    mask, share = tidied(cutout.mask)
    box = box_of(mask)
    if box is None:
        return {**_NOTHING, **said}
    height, width = mask.shape
    x0, y0, x1, y1 = box
    return {
        **said,
        "mask_rle": rle_encode(mask),
        "x0": x0 / width,
        "y0": y0 / height,
        "x1": x1 / width,
        "y1": y1 / height,
        "area": float(np.mean(mask)),
        "largest_component": share,
        "border_sides": int(np.count_nonzero(touched_sides(mask, 0.1))),  # as in segment.py
        "fill": fill_of_box(mask),
        "crop_short_side_px": min(x1 - x0, y1 - y0),
    }


def tidied(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The mask (H, W) bool without small holes and crumbs, and its largest component's share.

    What is in pieces stays so: another mask than SAM's is not what its scores are about.
    """
    largest, share = largest_component(mask)
    return fill_holes(largest if share >= _ONE_PIECE else mask, _SMALL_HOLE), share
