"""Segment: where the subject of the first frame is, as a mask, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.bounds import Count
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.errors import InputError
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames, Times
from pipeline.mask import box_of, fill_of_box, rle_encode
from pipeline.stage import Resources, Stage
from stages.foreground import ForegroundSettings, Thing, enlarged, find_thing
from stages.networks.grounding import GroundingSettings
from stages.networks.sam import SamSettings
from stages.residual_motion import flow_size

_MIN_SIDE_PX = 32
"""Of a picture's flow: on smaller ones OpenCV's DIS throws or kills the process."""

_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("mask_rle", "x0", "y0", "x1", "y1")),
    **dict.fromkeys(("instances", "border_sides", "crop_short_side_px"), 0),
    **dict.fromkeys(("score", "second_score", "area", "largest_component", "fill"), 0.0),
    **dict.fromkeys(("agreement", "separation", "solidity", "found", "leaves"), 0.0),
}
"""The measurement of a clip in which nothing moves: the filters reject it."""


@dataclass(frozen=True)
class SegmentSettings:
    """backend: "cpu" takes the thing that moves; no weights, and the caption is not asked.

    "reference" (stages/grounded.py): Grounding DINO finds what the caption names, SAM its mask;
    detector, sam: those two. The others are the cpu backend's:
    seconds: frame 0 and the later ones that tell what moves (ours). At 0.12 s even a thing that
    runs out of the picture is still found; in 1.8 s a slow one uncovers what is behind it.
    area_px: of the frames decoded for it; a mask's outline is as fine as these.
    second_share: a second thing that moves at least so much against the first is another subject.
    On synthetic corpora 0-2 single subjects reach 0.06 and pairs 0.6; real pairs 0.6-0.9.
    """

    backend: Literal["cpu", "reference"] = "cpu"
    detector: GroundingSettings = GroundingSettings()
    sam: SamSettings = SamSettings()
    seconds: tuple[float, ...] = (0.0, 0.12, 0.25, 0.5, 0.75, 1.1, 1.45, 1.8)
    area_px: Count = 480 * 854
    second_share: float = 0.35
    foreground: ForegroundSettings = field(default_factory=ForegroundSettings)


class Segment(Stage):
    """The moving subject of frame 0: its mask and box, and what the gates ask of them.

    mask_rle: row-major run lengths at mask_width x mask_height, the upright native size; null when
    nothing moves. x0, y0, x1, y1: its box, 0..1. score: separation x agreement x root of solidity,
    a quarter less per side touched. second_score: motion of the next thing against this one's.
    instances: things that move comparably. area: share of the picture. largest_component: share of
    the mask before the rest was dropped. border_sides: sides that it or its motion touches.
    fill: mask over box. crop_short_side_px: of the box at native size. agreement: share of the mask
    that does not stand still, times the share of the motion that it holds. separation: share of
    the outline where colours differ. found: share found again in the best later frame. leaves:
    share that its motion carries out of the picture.
    """

    name: ClassVar[str] = "segment"
    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("mask_rle", pa.string()),
            ("mask_width", pa.int32()),
            ("mask_height", pa.int32()),
            ("x0", pa.float64()),
            ("y0", pa.float64()),
            ("x1", pa.float64()),
            ("y1", pa.float64()),
            ("score", pa.float64()),
            ("second_score", pa.float64()),
            ("instances", pa.int32()),
            ("area", pa.float64()),
            ("largest_component", pa.float64()),
            ("border_sides", pa.int32()),
            ("fill", pa.float64()),
            ("crop_short_side_px", pa.int32()),
            ("agreement", pa.float64()),
            ("separation", pa.float64()),
            ("solidity", pa.float64()),
            ("found", pa.float64()),
            ("leaves", pa.float64()),
            ("entity_checked", pa.bool_()),
        ]
    )
    # From curation.md; score, found and leaves are ours. On single subjects of synthetic corpora
    # 0-2 score >= 0.46 (one: 0.40), found >= 0.37, leaves <= 0.46; where the subject runs out,
    # leaves >= 0.9 or found <= 0.25 or a poor score; wrong masks of real subjects score <= 0.37.
    filters: ClassVar[Mapping[str, Filter]] = {
        "instances": Filter(min=1, max=1),
        "area": Filter(min=0.02, max=0.8),
        "largest_component": Filter(min=0.9),
        "border_sides": Filter(max=1),
        "leaves": Filter(max=0.6),
        "found": Filter(min=0.3),
        "fill": Filter(min=0.2),
        "score": Filter(min=0.42),
        "crop_short_side_px": Filter(min=128),
    }
    needs = ("entities",)
    resources = Resources(cpus=1.0, batch=1)

    def __init__(self, settings: SegmentSettings) -> None:
        """Raises InputError on times that do not begin at 0."""
        if len(settings.seconds) < 2 or settings.seconds[0] != 0.0:
            raise InputError(
                f"segment.seconds is {settings.seconds}; wanted 0 and at least one later time"
            )
        self._settings = settings
        self.frames = FrameRequest(Times(settings.seconds), settings.area_px)

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers."""
        values = asdict(self._settings)
        return {key: value for key, value in values.items() if key not in ("detector", "sam")}

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """One mask per clip; one without motion is measured. Codes: too_short, too_small."""
        del clips, facts  # what moves is asked, not what the caption says
        return [self._measure(picture) for picture in frames]

    def _measure(self, frames: Frames | None) -> Outcome:
        if frames is None or len(frames.images) < 2:
            return Failed("too_short", "one frame in the first seconds; wanted at least two")
        height, width = frames.images.shape[1:3]
        least = min(flow_size(height, width, self._settings.foreground.motion))
        if least < _MIN_SIDE_PX:
            seen = f"{frames.width}x{frames.height}: its shorter side has {least} px for the flow"
            return Failed("too_small", f"{seen}; wanted {_MIN_SIDE_PX}")
        size = {"mask_width": frames.width, "mask_height": frames.height, "entity_checked": False}
        thing = find_thing(frames.images, frames.seconds(), self._settings.foreground)
        if thing is None or not thing.mask.any():
            return Measurement({**_NOTHING, **size})
        return Measurement({**self._describe(thing, frames.width, frames.height), **size})

    def _describe(self, thing: Thing, width: int, height: int) -> dict[str, Any]:
        mask = enlarged(thing.mask, width, height)
        box = box_of(mask)
        if box is None:
            return dict(_NOTHING)
        x0, y0, x1, y1 = box
        shape = math.sqrt(thing.solidity)
        score = thing.separation * thing.agreement * shape * (1.0 - 0.25 * thing.sides)
        return {
            "mask_rle": rle_encode(mask),
            "x0": x0 / width,
            "y0": y0 / height,
            "x1": x1 / width,
            "y1": y1 / height,
            "score": score,
            "second_score": thing.rival,
            "instances": 1 + int(thing.rival >= self._settings.second_share),
            "area": float(np.mean(mask)),
            "largest_component": thing.largest,
            "border_sides": thing.sides,
            "fill": fill_of_box(mask),
            "crop_short_side_px": min(x1 - x0, y1 - y0),
            "agreement": thing.agreement,
            "separation": thing.separation,
            "solidity": thing.solidity,
            "found": thing.found,
            "leaves": thing.leaves,
        }
