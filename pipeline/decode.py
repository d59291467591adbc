"""All frames that the stages of a pass want of one clip, in one sequential read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import decord
import numpy as np

from pipeline.container import DecodeError, Header, read_header
from pipeline.frames import Every, FrameRequest, Frames
from pipeline.whole import read_whole, too_large

__all__ = ["MAX_BYTES", "DecodeError", "read_frames"]

# One worker stays under 1 GB. OpenVid's longest clip (2,320 frames) takes 0.26 GB as every frame
# at 256x144, and as much again as two frames a second at 576x320.
MAX_BYTES = 768 * 2**20

# Shorter by more than this is no rounding of a duration: the file is cut or broken.
WHOLE = 0.95

decord.logging.set_level(decord.logging.QUIET)


def read_frames(path: str, requests: Sequence[FrameRequest]) -> list[Frames]:
    """One Frames per request, in order. path: a local file.

    Reads once, from the first frame to the last wanted one, scaled while decoding. Up to 5 % of
    the frames may be missing at the end: the clip is then that much shorter. Raises DecodeError:
    missing, empty, unreadable, no_video, partial, too_large. May hang or die on a broken file.
    """
    if any(isinstance(request.pick, Every) for request in requests):
        return read_whole(path, requests, MAX_BYTES, WHOLE)
    header = read_header(path)
    sizes = [request.size(header.width, header.height) for request in requests]
    largest = max(sizes, key=_area, default=(header.width, header.height))
    reader = _open(path, largest)
    length = _length(reader, header, requests)
    numbers = [request.numbers(length, header.fps) for request in requests]
    images = _allocate(numbers, sizes)
    length = min(length, _read(reader, largest, numbers, images))
    return [
        Frames(
            images=pictures[: sum(number < length for number in picked)],
            numbers=tuple(number for number in picked if number < length),
            fps=header.fps,
            num_frames=length,
            width=header.width,
            height=header.height,
        )
        for picked, pictures in zip(numbers, images, strict=True)
    ]


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _open(path: str, size: tuple[int, int]) -> decord.VideoReader:
    """One decoding thread: workers are processes; a second thread gained nothing on two cores."""
    width, height = size
    try:
        return decord.VideoReader(
            str(Path(path).absolute()), width=width, height=height, num_threads=1
        )
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        # Its header was fine, but its packets could not be walked through to the end.
        raise DecodeError("partial", "the file breaks off before its last frame") from error


def _length(reader: decord.VideoReader, header: Header, requests: Sequence[FrameRequest]) -> int:
    """Frames in the file; `partial` if that is too few for what is wanted."""
    length = len(reader)
    expected = header.num_frames
    if not header.num_frames_exact:
        start = float(reader.get_frame_timestamp(0)[0])
        end = float(reader.get_frame_timestamp(length - 1)[1]) - start
        expected = round(length * max(1.0, header.seconds / end)) if end > 0 else length
    if length < WHOLE * expected:
        wanted = [n for request in requests for n in request.numbers(expected, header.fps)[-1:]]
        if max(wanted, default=-1) >= length:
            raise _partial(length, expected)
    return length


def _allocate(numbers: Sequence[list[int]], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    shapes = [(len(n), height, width, 3) for n, (width, height) in zip(numbers, sizes, strict=True)]
    total = sum(int(np.prod(shape)) for shape in shapes)
    if total > MAX_BYTES:
        raise too_large(total, MAX_BYTES)
    return [np.empty(shape, np.uint8) for shape in shapes]


def _read(
    reader: decord.VideoReader,
    size: tuple[int, int],
    numbers: Sequence[list[int]],
    images: Sequence[np.ndarray],
) -> int:
    """Fills the images. Returns the clip's length, which a broken end makes shorter."""
    length, position = len(reader), 0
    slots: dict[int, list[np.ndarray]] = {}
    for picked, pictures in zip(numbers, images, strict=True):
        for number, picture in zip(picked, pictures, strict=True):
            slots.setdefault(number, []).append(picture)
    for number in sorted(slots):
        try:
            if number > position:
                reader.skip_frames(number - position)
            frame = _packed(reader.next().asnumpy(), *size)
        except (decord.DECORDError, StopIteration) as error:
            if position < WHOLE * length:
                raise _partial(position, length) from error
            return position
        position = number + 1
        for picture in slots[number]:
            _store(frame, picture)
    return length


def _packed(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3). Decord 0.6 passes the row padding of small pictures off as channels."""
    if frame.shape == (height, width, 3):
        return frame
    return frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)


def _store(frame: np.ndarray, picture: np.ndarray) -> None:
    if frame.shape == picture.shape:
        picture[:] = frame
    else:
        size = picture.shape[1], picture.shape[0]
        cv2.resize(frame, size, dst=picture, interpolation=cv2.INTER_AREA)


def _partial(length: int, expected: int) -> DecodeError:
    return DecodeError("partial", f"only {length} of {expected} frames could be read")
