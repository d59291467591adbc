"""Every frame of a clip, each scaled to just what is wanted of it.

Decord scales all frames of a read to one size, so a small picture of every frame and a larger one
of some would cost as much as the larger one of all (docs/decisions/001).
"""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

from pipeline.container import DecodeError, Header, open_video
from pipeline.frames import Every, FrameRequest, Frames

_LONGER = 2
"""A header that tells less than the half is wrong about more than the length; ours."""


class _Collector:
    """The pictures of one request, taken as the clip goes by."""

    def __init__(self, request: FrameRequest, header: Header, most: int) -> None:
        self._request = request
        self._turns = header.rotation // 90
        # The clip may be longer than its header tells; the middle one hangs on the length alone.
        lengths = (most, header.num_frames)
        self._wanted = {n for length in lengths for n in request.numbers(length, header.fps)}
        width, height = request.size(header.width, header.height)
        self._size = (height, width) if self._turns % 2 else (width, height)
        # A histogram bears a coarse filter, which costs a third; what is followed does not.
        every = isinstance(request.pick, Every)
        self._filter = Interpolation.FAST_BILINEAR if every else Interpolation.AREA
        self._reformatter = VideoReformatter()
        self._images: dict[int, np.ndarray] = {}

    def look(self, number: int, picture: av.VideoFrame) -> int:
        """Keeps the picture if it is wanted; the bytes that it takes."""
        return self._keep(number, picture) if number in self._wanted else 0

    def finish(self, header: Header, length: int, last: av.VideoFrame) -> Frames:
        """What the request is in a clip of this length."""
        numbers = self._request.numbers(length, header.fps)
        if numbers and numbers[-1] not in self._images:
            self._keep(numbers[-1], last)  # `Spaced` ends with whichever frame is the last
        numbers = [number for number in numbers if number in self._images]
        images = np.stack([self._images.pop(number) for number in numbers])
        return Frames(
            images=images,
            numbers=tuple(numbers),
            fps=header.fps,
            num_frames=length,
            width=header.width,
            height=header.height,
        )

    def _keep(self, number: int, picture: av.VideoFrame) -> int:
        small = self._reformatter.reformat(
            picture, *self._size, format="rgb24", interpolation=self._filter
        )
        image = np.rot90(small.to_ndarray(), self._turns)
        self._images[number] = image
        return image.nbytes


def read_whole(
    path: str, requests: Sequence[FrameRequest], max_bytes: int, whole: float
) -> list[Frames]:
    """One Frames per request. Raises DecodeError as `read_frames` does.

    max_bytes: of all pictures together; whole: the share of the expected frames that must be there.
    """
    with open_video(path) as video:
        header = video.header
        _check_size(header, requests, max_bytes)
        most = _LONGER * header.num_frames
        collectors = [_Collector(request, header, most) for request in requests]
        length, held, first, last = 0, 0, None, None
        try:
            for picture in video.pictures:
                held += sum(collector.look(length, picture) for collector in collectors)
                if held > max_bytes:
                    raise too_large(held, max_bytes)
                first, last = first or picture, picture
                length += 1
                if length > most:
                    message = f"it holds more than {_LONGER} times the {header.num_frames} frames"
                    raise DecodeError("unreadable", f"{message} that its header tells")
        except FFmpegError:
            pass  # the file breaks off here: how much is missing decides
        if first is None or last is None:
            raise DecodeError("unreadable", "not one picture could be decoded")
        expected = _expected(header, length, (last.time or 0.0) - (first.time or 0.0))
        if length < whole * expected:
            raise DecodeError("partial", f"only {length} of {expected} frames could be read")
        return [collector.finish(header, length, last) for collector in collectors]


def too_large(found: int, most: int) -> DecodeError:
    """The failure of a clip whose pictures do not fit."""
    return DecodeError(
        "too_large", f"its frames would take {found / 2**20:.0f} MiB, at most {most >> 20} are read"
    )


def _check_size(header: Header, requests: Sequence[FrameRequest], max_bytes: int) -> None:
    """Before anything is decoded: a long clip would otherwise be read for nothing."""
    total = 0
    for request in requests:
        width, height = request.size(header.width, header.height)
        total += len(request.numbers(header.num_frames, header.fps)) * width * height * 3
    if total > max_bytes:
        raise too_large(total, max_bytes)


def _expected(header: Header, length: int, last_s: float) -> int:
    """Frames that the file should have; without a count in it, by the time of the last frame.

    last_s: seconds from the first frame to the last that could be read.
    """
    if header.num_frames_exact:
        return header.num_frames
    return round(length * max(1.0, header.seconds / (last_s + 1 / header.fps)))
