"""Pair: is the subject still there in the last training frame, and how far is it copied?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa

from pipeline.bounds import Count
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames, Indices
from pipeline.mask import rle_decode
from pipeline.stage import Resources, Stage
from pipeline.weights import ONE_FILE, Weights
from stages.networks.grounding import GroundingSettings, detector_numbers, detector_weights
from stages.networks.names import CLIP_L14, LAION_HEAD
from stages.networks.placement import Placement, numbers_of, one_thread
from stages.rediscovery import SearchSettings, Sought, Views, correlation

if TYPE_CHECKING:
    from stages.recognition import Recognition


@dataclass(frozen=True, slots=True)
class PairSettings:
    """backend: "cpu" compares colours and texture, "reference" asks a detector, CLIP and LAION's
    head.

    area_px: of the frames looked at, as segment's. search: of the cpu backend. Of the reference
    backend: model, revision: a CLIP of the hub or a folder; head: LAION's file or its address;
    placement: of CLIP. Its detector is segment's.
    """

    backend: Literal["cpu", "reference"] = "cpu"
    area_px: Count = 480 * 854
    search: SearchSettings = SearchSettings()
    model: str = CLIP_L14
    revision: str = ""
    head: str = LAION_HEAD
    placement: Placement = Placement()


class Pair(Stage):
    """The subject of frame 0 in the frames that are trained on.

    found_again: in the last training frame: for "reference" the detector's score, 0..1, 0 when it
    names nothing; for "cpu" 1 for the same look, 0 for a look no nearer than what lay around it in
    frame 0. x0, y0, x1, y1: where, 0..1; null when nowhere. likeness: of the reference's crop and
    the subject's in the first training frame, -1..1; near 1 a model learns to copy it: CLIP's
    cosine, or for "cpu" the correlation of their pixels; null where no crop is there. Of
    "reference" alone: crop_aesthetic: LAION's scale, of the reference's crop; word_similarity:
    CLIP's cosine of this crop and "a photo of a <entity>".
    """

    name = "pair"
    version = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            **dict.fromkeys(("found_again", "x0", "y0", "x1", "y1"), pa.float64()),
            **dict.fromkeys(("likeness", "crop_aesthetic", "word_similarity"), pa.float64()),
        }
    )
    # Ours, of the cpu backend, by the true masks of synthetic corpora 0 and 101-105: the 180 clips
    # to keep have 0.49..0.97, rendered without their subject 0.00 (one: 0.10), subjects that leave
    # 0..0.01, those behind a cut 0..0.13. Real subjects that are plainly there have 0.70..0.86,
    # behind a cut 0.30. The detector's least score is 0.35. Nothing asks for bounds on the others.
    filters: ClassVar[Mapping[str, Filter]] = {"found_again": Filter(min=0.25)}
    needs = ("entities", "segment")

    def __init__(
        self, settings: PairSettings, window: Sequence[int], detector: GroundingSettings
    ) -> None:
        """window: the numbers of the frames to train on; detector: segment's."""
        self._settings, self._detector = settings, detector
        self._first, self._last = window[0], window[-1]
        self.frames = FrameRequest(Indices((0, self._first, self._last)), settings.area_px)
        if settings.backend == "reference":
            self.resources = Resources(batch=detector.placement.batch)

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers of this backend."""
        window = {"first": self._first, "last": self._last}
        if self._settings.backend == "cpu":
            values = asdict(self._settings)
            return {name: values[name] for name in ("backend", "area_px", "search")} | window
        detector = {"detector": detector_numbers(self._detector)}
        values = {**numbers_of(self._settings), **detector, **window}
        return {name: value for name, value in values.items() if name != "search"}

    def weights(self) -> Sequence[Weights]:
        """The detector's, CLIP's and the head's."""
        settings = self._settings
        if settings.backend == "cpu":
            return ()
        return (
            Weights(settings.model, "pair.model", settings.revision),
            Weights(settings.head, "pair.head", files=ONE_FILE),
            *detector_weights(self._detector),
        )

    def setup(self) -> None:
        """One thread: workers are processes. Raises InputError when weights are missing."""
        cv2.setNumThreads(1)
        if self._settings.backend == "reference":
            self._networks = self._load()

    def _load(self) -> Recognition:
        from stages.recognition import Recognition

        one_thread()
        model, head, *_ = self.weights()
        return Recognition(model, head, self._detector, self._settings.placement)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Codes of failure: partial, no_mask, changed; no_entity with networks."""
        seen = [self._views(*each) for each in zip(frames, facts, strict=True)]
        good = [views for views in seen if isinstance(views, Views)]
        if self._settings.backend == "cpu":
            measured = iter([self._compare(views) for views in good])
        else:
            measured = iter(self._networks.compare(good))
        return [
            views if isinstance(views, Failed) else Measurement(next(measured)) for views in seen
        ]

    def _views(self, frames: Frames | None, facts: Facts) -> Views | Failed:
        assert frames is not None
        at = dict(zip(frames.numbers, frames.images, strict=True))
        if self._last not in at:
            found = f"found {frames.num_frames} frames"
            return Failed("partial", f"{found}: a sample needs a clip of {self._last + 1}")
        segment = facts["segment"]
        if not segment.get("mask_rle"):
            return Failed("no_mask", "there is no subject to look for")
        size = (int(segment["mask_width"]), int(segment["mask_height"]))
        if size != (frames.width, frames.height):
            seen = f"{frames.width}x{frames.height}"
            message = f"the mask is {size[0]}x{size[1]}, the video {seen}: measure the clip again"
            return Failed("changed", message)
        mask = _reduced(rle_decode(segment["mask_rle"], *size), at[0].shape[1], at[0].shape[0])
        if not mask.any():
            return Failed("no_mask", "the mask is empty")
        entity = facts["entities"].get("main_entity") or ""
        if not entity and self._settings.backend == "reference":
            return Failed("no_entity", "there is no name to look for")
        return Views(at[0], mask, at[self._first], at[self._last], entity)

    def _compare(self, views: Views) -> Mapping[str, Any]:
        """Rounded: the last digits of a transform are nobody's measurement."""
        found = Sought(views.reference, views.mask, self._settings.search).find(views.last)
        likeness = correlation(views.reference, views.mask, views.first)
        values = {
            "found_again": found.score,
            **dict(zip(("x0", "y0", "x1", "y1"), found.box, strict=True)),
            "likeness": likeness,
        }
        rounded = {name: None if v is None else round(v, 4) for name, v in values.items()}
        return {**rounded, "crop_aesthetic": None, "word_similarity": None}


def _reduced(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """The mask at the size of the frames, (height, width) bool."""
    shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shares) >= 0.5
