"""How much moves, over half a second and over the time of a frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import cv2
import numpy as np
import pyarrow as pa

from pipeline.bounds import Count, Positive
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames, Spaced
from pipeline.stage import Resources, Stage
from pipeline.weights import ONE_FILE, Weights
from stages.networks.placement import Placement, numbers_of, one_thread

if TYPE_CHECKING:
    from stages.networks.raft import Raft

_NO_FLOW = cast(np.ndarray, None)  # an initial flow crashes OpenCV 5; its stubs demand one
_MIN_SIDE_PX = {"cpu": 32, "reference": 128}
"""DIS, which picks its coarsest level by the width alone, throws or dies on wide pictures of less
height (OpenCV 5, 121x16 to 5945x31); RAFT throws below."""
_C_T_V1 = {
    "raft_large": "https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
    "raft_small": "https://download.pytorch.org/models/raft_small_C_T_V1-ad48884c.pth",
}
"""Torchvision's weights of this name: of FlyingChairs, then FlyingThings3D."""


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """backend: "cpu" is OpenCV's DIS flow, its fast preset; "reference" is torchvision's RAFT.

    step_s: between the frames of a pair. short_s: of a short pair, one with each. area_px: of the
    frames. moving: what a moving pixel does at least, as a share of the diagonal per second.
    Of "reference" alone: network; model: a file or its https address, "" torchvision's C_T_V1;
    updates: how often the flow is refined.
    """

    backend: Literal["cpu", "reference"] = "cpu"
    step_s: Positive = 0.5  # curation.md
    short_s: Positive = 0.04  # ours: a frame at 25 fps; a camera shaken at 0.9/s is measured as 0.9
    area_px: Count = 320 * 576  # curation.md; RAFT sees the same
    moving: float = 0.01  # ours: compression moves the pixels of a still picture by less
    network: Literal["raft_large", "raft_small"] = "raft_large"  # curation.md
    model: str = ""
    updates: int = 12  # torchvision's
    placement: Placement = Placement(batch=8)  # 2 GB of a host's memory where there is no GPU


class Motion(Stage):
    """Optical flow of pairs of frames: lengths as shares of the frame's diagonal per second.

    mean: over all pixels; top5: over the fastest 5 % of the pixels; moving_share: of pixels,
    0..1; each is the mean over `pairs` pairs. speed: as mean, over short pairs: what shakes is back
    after half a second, and what is too fast to follow shows here alone. The unit is ours, so that
    sizes and rates compare.

    Both backends take the same numbers of the same pairs; the flow is another. speed is DIS's in
    both: its bound of 0.20 was measured with it (decision 3), and short pairs through RAFT would
    double the network's time.
    """

    name = "motion"
    version = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "mean": pa.float64(),
            "top5": pa.float64(),
            "moving_share": pa.float64(),
            "speed": pa.float64(),
            "pairs": pa.int32(),
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "top5": Filter(min=0.015),  # ours: a stream has 0.006, the next real clip 0.029
        "speed": Filter(max=0.20),  # ours: handheld clips have up to 0.13, a shaken camera 0.28..1
    }

    def __init__(self, settings: MotionSettings | None = None) -> None:
        given = settings or MotionSettings()
        self._settings = replace(given, model=given.model or _C_T_V1[given.network])
        self._steps = FrameRequest(Spaced(given.step_s))
        self.frames = FrameRequest(Spaced(given.step_s, given.short_s), given.area_px)
        if given.backend == "reference":
            self.resources = Resources(batch=8)  # 160 pairs of clips of ten seconds

    def weights(self) -> Sequence[Weights]:
        """RAFT's."""
        if self._settings.backend == "cpu":
            return ()
        return (Weights(self._settings.model, "motion.model", files=ONE_FILE),)

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers of this backend."""
        values = numbers_of(self._settings)
        if self._settings.backend == "cpu":
            return {n: values[n] for n in ("backend", "step_s", "short_s", "area_px", "moving")}
        return values

    def setup(self) -> None:
        """One thread: workers are processes. Raises InputError when weights are missing."""
        cv2.setNumThreads(1)  # here too: the cpu backend has no torch
        if self._settings.backend == "reference":
            self._raft = self._load()

    def _load(self) -> Raft:
        from stages.networks.raft import Raft

        one_thread()
        settings, (weights,) = self._settings, self.weights()
        return Raft(settings.network, weights, settings.updates, settings.placement)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Codes of failure: too_short, too_small; not_finite, where half precision overflowed."""
        outcomes = [self._pairs_of(seen) for seen in frames]
        followed = [each for each in outcomes if isinstance(each, _Followed)]
        if self._settings.backend == "cpu":
            walked = [self._dis(clip) for clip in followed]
        else:
            walked = self._network(followed)
        rest = iter(zip(followed, walked, strict=True))
        return [
            each if isinstance(each, Failed) else self._measurement(*next(rest))
            for each in outcomes
        ]

    def _pairs_of(self, frames: Frames | None) -> _Followed | Failed:
        assert frames is not None
        if len(frames.numbers) < 2:
            return Failed("too_short", "one frame: there is nothing to compare it with")
        height, width = frames.images.shape[1:3]
        least = _MIN_SIDE_PX[self._settings.backend]
        if min(height, width) < least:
            return Failed("too_small", f"{width}x{height}: flow needs {least} px a side")
        grey = {
            number: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            for number, image in zip(frames.numbers, frames.images, strict=True)
        }
        steps = self._steps.numbers(frames.num_frames, frames.fps)
        pairs = _pairs([n for n in steps if n in grey], self._settings.step_s * frames.fps)
        return _Followed(frames, grey, steps, pairs)

    def _measurement(self, clip: _Followed, walks: np.ndarray) -> Outcome:
        """walks: (P, 3) mean, top5 and moving_share of each pair."""
        if not np.isfinite(walks).all():
            return Failed("not_finite", "the network overflowed; wanted dtype bf16 or f32")
        mean, top5, moving_share = np.mean(walks, axis=0).tolist()
        fps = clip.frames.fps
        short = max(1, round(self._settings.short_s * fps))
        rough = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        followed = [(n, n + short) for n in clip.steps if n + short in clip.grey]
        speeds = [_speed(rough, clip.grey[a], clip.grey[b], short / fps) for a, b in followed]
        return Measurement(
            {
                "mean": mean,
                "top5": top5,
                "moving_share": moving_share,
                "speed": float(np.mean(speeds)) if speeds else mean,
                "pairs": len(clip.pairs),
            }
        )

    def _dis(self, clip: _Followed) -> np.ndarray:
        """(P, 3). Each clip has a DIS of its own, which keeps what it chose for a small picture."""
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        each = zip(clip.pairs, clip.seconds(), strict=True)
        return np.array([self._walk(flow, clip.grey[a], clip.grey[b], s) for (a, b), s in each])

    def _network(self, clips: Sequence[_Followed]) -> list[np.ndarray]:
        """The same by RAFT; clips of one size go through it together."""
        walks: dict[int, np.ndarray] = {}
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, clip in enumerate(clips):
            by_size[clip.frames.images.shape[1:]].append(place)
        for places in by_size.values():
            pictures, pairs, seconds = _joined([clips[place] for place in places])
            found = self._raft.walks(pictures, pairs, seconds, self._settings.moving)
            ends = np.cumsum([len(clips[place].pairs) for place in places])
            walks.update(zip(places, np.split(found, ends[:-1]), strict=True))
        return [walks[place] for place in range(len(clips))]

    def _walk(
        self, flow: cv2.DISOpticalFlow, first: np.ndarray, second: np.ndarray, seconds: float
    ) -> list[float]:
        """The mean, top5 and moving_share of one pair of (H, W) grey pictures."""
        length = flow_lengths(flow, first, second) / seconds
        fastest = max(1, round(length.size * 0.05))
        top5 = np.partition(length, -fastest)[-fastest:]
        moving = np.count_nonzero(length >= self._settings.moving) / length.size
        return [float(length.mean()), float(top5.mean()), moving]


@dataclass(frozen=True, slots=True)
class _Followed:
    """One clip. pairs: of frame numbers, what is followed; grey: frame number -> (H, W).

    steps: the numbers step_s apart, whether they came or not.
    """

    frames: Frames
    grey: Mapping[int, np.ndarray]
    steps: Sequence[int]
    pairs: Sequence[tuple[int, int]]

    def seconds(self) -> list[float]:
        """Between the frames of each pair."""
        return [(b - a) / self.frames.fps for a, b in self.pairs]


def _joined(
    clips: Sequence[_Followed],
) -> tuple[np.ndarray, list[tuple[int, int]], list[float]]:
    """All pictures that are in pairs (N, H, W, 3), the pairs as numbers of these, their seconds."""
    pictures: list[np.ndarray] = []
    pairs: list[tuple[int, int]] = []
    for clip in clips:
        used = sorted({number for pair in clip.pairs for number in pair})
        at = {number: len(pictures) + place for place, number in enumerate(used)}
        images = dict(zip(clip.frames.numbers, clip.frames.images, strict=True))
        pictures += [images[number] for number in used]
        pairs += [(at[a], at[b]) for a, b in clip.pairs]
    return np.stack(pictures), pairs, [second for clip in clips for second in clip.seconds()]


def flow_lengths(flow: cv2.DISOpticalFlow, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H * W,) how far each pixel goes, as a share of the diagonal."""
    flow_px = flow.calc(first, second, _NO_FLOW)
    # Not cv2.magnitude: its last digit depends on where the arrays lie in memory.
    x, y = flow_px[..., 0], flow_px[..., 1]
    length_px = np.sqrt(x * x + y * y).ravel()
    return length_px / np.float32(np.hypot(*first.shape))


def _speed(
    flow: cv2.DISOpticalFlow, first: np.ndarray, second: np.ndarray, seconds: float
) -> float:
    """The mean of a short pair, at half size: it is held against an upper bound only."""
    if min(first.shape) >= 2 * _MIN_SIDE_PX["cpu"]:
        first, second = (_halved(picture) for picture in (first, second))
    return float(flow_lengths(flow, first, second).mean()) / seconds


def _halved(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def _pairs(numbers: Sequence[int], step: float) -> list[tuple[int, int]]:
    """Neighbours among frame numbers that are `step` frames apart.

    The last frame of a clip may follow at once, and a short time blows the flow's noise up: such a
    rest is left out, unless there is nothing else.
    """
    pairs = list(pairwise(numbers))
    return [(a, b) for a, b in pairs if b - a >= step / 2] or pairs
