"""Which frames a stage wants, at which size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class Every:
    """Every frame of the clip."""


@dataclass(frozen=True, slots=True)
class Spaced:
    """Frames `seconds` apart from the first on, and the last one.

    then_s: with each of them also the frame that follows so much later; 0: none. middle: also frame
    (n - 1) // 2 of n; where the header is wrong about n, it may not be among what comes.
    """

    seconds: float
    then_s: float = 0.0
    middle: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """The frames nearest to these times, in seconds from the first; later ones are left out."""

    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Indices:
    """These frame numbers; ones beyond the clip are left out."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """pick: which frames. area_px: at most so many pixels a frame; None: native size.

    The aspect is kept and nothing is enlarged. also: what the same stage wants besides, at another
    size; it comes as `Frames.also`.
    """

    pick: Every | Spaced | Times | Indices
    area_px: int | None = None
    also: FrameRequest | None = None

    def each(self) -> list[FrameRequest]:
        """The request itself and those that hang on it."""
        return [self, *(self.also.each() if self.also else [])]

    def is_opening(self) -> bool:
        """Whether it wants nothing but the first picture."""
        firsts = (Indices((0,)), Times((0.0,)))
        return all(request.pick in firsts for request in self.each())

    def numbers(self, num_frames: int, fps: float) -> list[int]:
        """The frame numbers in rising order, each once."""
        match self.pick:
            case Every():
                return list(range(num_frames))
            case Spaced(seconds, then_s, middle):
                count = math.floor((num_frames - 1) / (seconds * fps) + 1e-9)
                picked = {round(i * seconds * fps) for i in range(count + 1)} | {num_frames - 1}
                if then_s:
                    picked |= {n + max(1, round(then_s * fps)) for n in picked}
                if middle:
                    picked.add((num_frames - 1) // 2)
            case Times(seconds):
                picked = {round(s * fps) for s in seconds}
            case Indices(numbers):
                picked = set(numbers)
        return sorted(n for n in picked if 0 <= n < num_frames)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels, both even."""
        if self.area_px is None or width * height <= self.area_px:
            return width, height
        scale = math.sqrt(self.area_px / (width * height))
        return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


@dataclass(frozen=True, slots=True)
class Frames:
    """What one request got of one clip.

    images: (N, H, W, 3) uint8 RGB, upright (rotation metadata applied); numbers: the N frame
    numbers; fps: mean frames per second; num_frames: of the whole clip as decoded;
    width, height: of the upright native picture; also: what `FrameRequest.also` got.
    """

    images: np.ndarray
    numbers: tuple[int, ...]
    fps: float
    num_frames: int
    width: int
    height: int
    also: Frames | None = None

    def size_bytes(self) -> int:
        """What the pixels take."""
        return self.images.nbytes + (self.also.size_bytes() if self.also else 0)

    def seconds(self) -> np.ndarray:
        """(N,) time of each frame from the first one of the clip, at the mean rate."""
        return np.asarray(self.numbers, dtype=np.float64) / self.fps


def joined(request: FrameRequest, served: Iterator[Frames]) -> Frames:
    """The frames of one request with those of its `also`; served: in the order of `each`."""
    first = next(served)
    return replace(first, also=joined(request.also, served)) if request.also else first
