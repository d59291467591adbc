"""How a clip looks: where it cuts, how steadily it keeps its looks, how well it pleases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa

from pipeline.bounds import Count, Positive
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.errors import InputError
from pipeline.filters import Filter
from pipeline.frames import Every, FrameRequest, Frames, Spaced
from pipeline.stage import Resources, Stage
from pipeline.weights import ONE_FILE, Weights
from stages.networks.names import CLIP_L14, LAION_HEAD
from stages.networks.placement import Placement, numbers_of, one_thread

if TYPE_CHECKING:
    from stages.networks.aesthetic import AestheticHead
    from stages.networks.clip import ClipImages

_BINS = [8, 8, 8]  # curation.md: 8x8x8 finds all cuts of 33 clips with no false alarm
_RANGES = [0, 180, 0, 256, 0, 256]  # OpenCV's HSV of 8 bits

_SIXTHS = (1, 3, 5)  # of a clip's length: neither end, where clips of one source are cut
_THUMBNAIL_PX = 8  # a side


@dataclass(frozen=True, slots=True)
class AppearanceSettings:
    """backend: "cpu" compares colours and takes the published aesthetic score; "reference" also
    asks CLIP and LAION's head.

    area_px: of the frames looked at for cuts. step_s: between those compared for consistency.
    Of "reference" alone: model: a CLIP of the hub (at this revision, "" its newest) or a folder;
    head: LAION's file or its address; clip_area_px: of the frames that CLIP sees; published: the
    corpus's own score is taken where it has one, false: the head's always.
    """

    backend: Literal["cpu", "reference"] = "cpu"
    area_px: Count = 256 * 144  # curation.md; 0.2 ms a frame
    step_s: Positive = 0.5  # as motion, so that both speak of the same pairs
    model: str = CLIP_L14  # what LAION's head was trained on
    revision: str = ""
    head: str = LAION_HEAD
    clip_area_px: Count = 288 * 512  # ours: exact at 16:9; short side >= 224 up to an aspect of 2.9
    published: bool = True
    placement: Placement = Placement()


class Appearance(Stage):
    """Cuts over every frame of the clip; consistency and the aesthetic score over some.

    min_intersection: the least overlap (0..1) of the HSV histograms of two consecutive frames;
    cut_frame: the number of the second of these; max_content_change: the largest mean absolute
    difference of two consecutive frames in HSV, 0..255 (the content score of PySceneDetect);
    consistency_mean, consistency_min: of frames step_s apart, the overlap of their histograms, or
    with "reference" the cosine of their CLIP embeddings;
    aesthetic: LAION's scale of 1..10; aesthetic_source: "published" or "clip", null when absent;
    aesthetic_frames: the head's scores of the first, the middle and the last frame, which
    `aesthetic` is the mean of when the source is "clip"; null for "cpu";
    embedding: what near copies are found by, of length 1: the mean CLIP embedding of the frames
    step_s apart, or for "cpu" `thumbnail`. Embeddings of different settings do not compare.
    """

    name = "appearance"
    version = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "min_intersection": pa.float64(),
            "cut_frame": pa.int32(),
            "max_content_change": pa.float64(),
            "consistency_mean": pa.float64(),
            "consistency_min": pa.float64(),
            "aesthetic": pa.float64(),
            "aesthetic_source": pa.string(),
            "aesthetic_frames": pa.list_(pa.float64()),
            "embedding": pa.list_(pa.float16()),
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "aesthetic": Filter(min=5.3, absent="pass"),  # the paper; the cpu backend has no own score
        "min_intersection": Filter(min=0.6),  # curation.md: a cut lies below, no clip without one
    }

    def __init__(self, settings: AppearanceSettings | None = None) -> None:
        self._settings = settings or AppearanceSettings()
        self._apart = FrameRequest(Spaced(self._settings.step_s))
        seen = None
        if self._settings.backend == "reference":
            seen = FrameRequest(
                Spaced(self._settings.step_s, middle=True), self._settings.clip_area_px
            )
            # Eight clips of ten seconds are 170 pictures, and take 0.5 GB of a host's memory.
            self.resources = Resources(batch=8)
        self.frames = FrameRequest(Every(), self._settings.area_px, also=seen)

    def weights(self) -> Sequence[Weights]:
        """CLIP's and the head's."""
        if self._settings.backend == "cpu":
            return ()
        return (
            Weights(self._settings.model, "appearance.model", self._settings.revision),
            Weights(self._settings.head, "appearance.head", files=ONE_FILE),
        )

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers of this backend."""
        values = numbers_of(self._settings)
        if self._settings.backend == "cpu":
            return {name: values[name] for name in ("backend", "area_px", "step_s")}
        return values

    def setup(self) -> None:
        """One thread: workers are processes. Raises InputError when weights are missing."""
        cv2.setNumThreads(1)  # here too: the cpu backend has no torch
        if self._settings.backend == "reference":
            self._network = self._load()

    def _load(self) -> tuple[ClipImages, AestheticHead]:
        from stages.networks.aesthetic import AestheticHead
        from stages.networks.clip import ClipImages

        one_thread()
        model, head = self.weights()
        network = ClipImages(model, self._settings.placement), AestheticHead(head)
        if network[0].width != network[1].width:
            raise InputError(
                f"appearance.head: '{head.name}' takes {network[1].width} numbers and "
                f"'{model.name}' gives {network[0].width}; wanted the head of this model"
            )
        return network

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Codes of failure: too_short; not_finite, where half precision overflowed."""
        seen = [each for each in frames if each is not None]
        walks = [_walk(each.images) for each in seen]
        if self._settings.backend == "cpu":
            looks = [self._colours(*both) for both in zip(seen, walks, strict=True)]
        else:
            looks = self._semantics(seen)
        return [self._measure(*each) for each in zip(clips, seen, walks, looks, strict=True)]

    def _measure(self, clip: Clip, frames: Frames, walk: _Walk, look: _Look) -> Outcome:
        if len(frames.numbers) < 2:
            return Failed("too_short", "one frame: there is nothing to compare it with")
        if not look.is_finite():
            return Failed("not_finite", "the network overflowed; wanted dtype bf16 or f32")
        steps = _intersection(walk.histograms[:-1], walk.histograms[1:])
        aesthetic, source = self._aesthetic(clip, look)
        return Measurement(
            {
                "min_intersection": float(steps.min()),
                "cut_frame": frames.numbers[int(steps.argmin()) + 1],
                "max_content_change": float(walk.changes.max()),
                "consistency_mean": float(look.consistency.mean()),
                "consistency_min": float(look.consistency.min()),
                "aesthetic": aesthetic,
                "aesthetic_source": source,
                "aesthetic_frames": None if look.scores is None else look.scores.tolist(),
                "embedding": _float16(look.embedding),
            }
        )

    def _aesthetic(self, clip: Clip, look: _Look) -> tuple[float | None, str | None]:
        """The score that is judged, and where it is from."""
        own = None if look.scores is None else float(look.scores.mean())
        if own is None or self._settings.published:
            published = _number(clip.published.get("aesthetic score"))
            if published is not None:
                return published, "published"
        return own, None if own is None else "clip"

    def _colours(self, frames: Frames, walk: _Walk) -> _Look:
        """What the cpu backend sees besides cuts."""
        apart = self._apart.numbers(len(walk.histograms), frames.fps)
        consistency = _intersection(walk.histograms[apart[:-1]], walk.histograms[apart[1:]])
        return _Look(consistency, thumbnail(frames.images))

    def _semantics(self, seen: Sequence[Frames]) -> list[_Look]:
        """What CLIP and the head see in some frames of each clip."""
        clip, head = self._network
        some = [frames.also for frames in seen if frames.also is not None]
        found = clip.embed([frames.images for frames in some])
        return [self._look(*each, head) for each in zip(some, found, strict=True)]

    def _look(self, frames: Frames, embeddings: np.ndarray, head: AestheticHead) -> _Look:
        """embeddings: (N, D) of these frames."""
        at = {number: place for place, number in enumerate(frames.numbers)}
        spaced = self._apart.numbers(frames.num_frames, frames.fps)
        apart = embeddings[[at[number] for number in spaced]].astype(np.float64)
        middle = (frames.num_frames - 1) // 2
        nearest = min(at, key=lambda number: abs(number - middle))
        return _Look(
            consistency=(apart[:-1] * apart[1:]).sum(1),
            embedding=_of_length_1(apart.mean(0)),
            scores=head.scores(embeddings[[0, at[nearest], -1]]),
        )


@dataclass(frozen=True, slots=True)
class _Walk:
    """Every frame: histograms (N, 512) that sum to 1, and content changes (N - 1,)."""

    histograms: np.ndarray
    changes: np.ndarray


@dataclass(frozen=True, slots=True)
class _Look:
    """Some frames: consistency (P,) of neighbours, embedding (D,) and aesthetic scores (3,)."""

    consistency: np.ndarray
    embedding: np.ndarray | None
    scores: np.ndarray | None = None

    def is_finite(self) -> bool:
        numbers = (self.consistency, self.embedding, self.scores)
        return all(np.isfinite(each).all() for each in numbers if each is not None)


def thumbnail(images: np.ndarray) -> np.ndarray | None:
    """(192,) of length 1: grey 8x8 thumbnails of the frames at 1/6, 1/2 and 5/6 of a clip.

    images: (N, H, W, 3) uint8, every frame. Their common mean is taken out; None when nothing is
    left, a clip of one colour. Ours, on the 17 real clips: the cosine with a copy at 426 or 640 px
    and CRF 28 or 36 is at least 0.993, at half the frame rate 0.989, with 3 % cut off each side
    0.927; of two different clips at most 0.533. In colour, with three times the numbers, two toys
    on one table come to 0.871: their mean colour is most of what they share.
    """
    last = len(images) - 1
    small = [_small_grey(images[round(last * sixth / 6)]) for sixth in _SIXTHS]
    values = np.stack(small).ravel().astype(np.int64)  # whole numbers: the same on any machine
    return _of_length_1(values * values.size - values.sum())


def _small_grey(image: np.ndarray) -> np.ndarray:
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))


def _of_length_1(vector: np.ndarray) -> np.ndarray | None:
    """The vector at length 1, in float64; None when it has none."""
    length = math.sqrt((vector * vector).sum())
    return vector / length if length != 0 else None


def _float16(vector: np.ndarray | None) -> list[float] | None:
    return None if vector is None else vector.astype(np.float16).tolist()


def _walk(images: np.ndarray) -> _Walk:
    """images: (N, H, W, 3) uint8 RGB."""
    histograms = np.empty((len(images), math.prod(_BINS)), np.float32)
    changes = np.empty(len(images) - 1)
    before = None
    for number, image in enumerate(images):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        histograms[number] = cv2.calcHist([hsv], [0, 1, 2], None, _BINS, _RANGES).ravel()
        if before is not None:
            changes[number - 1] = cv2.norm(before, hsv, cv2.NORM_L1) / hsv.size
        before = hsv
    return _Walk(histograms / images[0, ..., 0].size, changes)


def _intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Overlap 0..1 of histograms: (P, B), (P, B) -> (P,)."""
    return np.minimum(first, second).sum(axis=1, dtype=np.float64)


def _number(value: float | str | None) -> float | None:
    """A published score, unless it is absent or no number."""
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
