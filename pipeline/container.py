"""What a video file says about itself: its header and its first picture, nothing more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

# A file may claim to be a playlist and name other files or hosts: only formats that hold their own
# pictures are opened, and only through the local file system.
FORMATS = frozenset({"mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif"})
PROTOCOLS = {"protocol_whitelist": "file"}

# FFmpeg decodes a few pictures while it opens a file, to learn their order: 12-33 ms at 1080p that
# a header does not need.
UNSEEN = {"skip_frame": "all"}


class DecodeError(Exception):
    """A video that cannot be read, or not far enough.

    code: missing, empty, unreadable, no_video, partial or too_large; message: one line.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Header:
    """width, height: pixels of the upright picture. rotation: degrees that it is turned counter-
    clockwise from the stored one to stand upright (0, 90, 180, 270).

    fps: the mean rate. num_frames: as the container says, else estimated from seconds and fps.
    """

    width: int
    height: int
    rotation: int
    fps: float
    num_frames: int
    num_frames_exact: bool
    seconds: float
    codec: str
    pixel_format: str
    has_audio: bool


@dataclass(frozen=True, slots=True)
class Video:
    """An open file. pictures: all of them from the first on, decoded one by one as they lie."""

    header: Header
    pictures: Iterator[av.VideoFrame]


def read_header(path: str) -> Header:
    """The header of a local file. Raises DecodeError: missing, empty, unreadable, no_video.

    One picture is decoded: FFmpeg hands the display matrix out with the first one.
    """
    with _opened(path, PROTOCOLS | UNSEEN) as video:
        return video.header


def open_video(path: str) -> AbstractContextManager[Video]:
    """A local file with its header read. Raises DecodeError as `read_header` does."""
    return _opened(path, PROTOCOLS)


@contextmanager
def _opened(path: str, options: dict[str, str]) -> Iterator[Video]:
    file = Path(path).absolute()  # absolute, or a name such as "a:b.mp4" would be read as a URL
    if not file.exists():
        raise DecodeError("missing", "no such file")
    if not file.is_file():
        raise DecodeError("unreadable", "not a file: to open a pipe or a device would hang")
    if file.stat().st_size == 0:
        raise DecodeError("empty", "the file has 0 bytes")
    with ExitStack() as stack:
        try:
            container = stack.enter_context(av.open(str(file), options=options))
            video = _open(container)
        except (FFmpegError, UnicodeError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DecodeError("unreadable", f"not a readable video: {_one_line(reason)}") from error
        yield video


def _open(container: InputContainer) -> Video:
    if not FORMATS.intersection(container.format.name.split(",")):
        raise DecodeError("unreadable", f"{container.format.name} is not a video container")
    stream = container.streams.best("video")  # as decord chooses among several
    if not isinstance(stream, VideoStream) or _is_cover(stream):
        raise DecodeError("no_video", "the file holds no video stream")
    if stream.codec_context is None:
        raise DecodeError("unreadable", "its video is coded in a way that FFmpeg does not know")
    stream.codec_context.thread_count = 1
    pictures = container.decode(stream)
    first = next(pictures, None)
    if first is None:
        raise DecodeError("unreadable", "not one picture could be decoded")
    return Video(_header(container, stream, first), chain([first], pictures))


def _header(container: InputContainer, stream: VideoStream, picture: av.VideoFrame) -> Header:
    rotation = round(picture.rotation / 90) * 90 % 360
    width, height = picture.width, picture.height
    if rotation % 180:
        width, height = height, width
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    seconds = _seconds(container, stream, picture)
    if fps <= 0 and seconds > 0:
        fps = stream.frames / seconds
    num_frames = stream.frames or round(seconds * fps)
    if not (math.isfinite(fps) and fps > 0 and num_frames > 0):
        raise DecodeError("unreadable", f"no usable frame rate or length ({fps:g} fps)")
    return Header(
        width=width,
        height=height,
        rotation=rotation,
        fps=fps,
        num_frames=num_frames,
        num_frames_exact=stream.frames > 0,
        seconds=seconds or num_frames / fps,
        codec=stream.codec_context.name,
        pixel_format=picture.format.name,
        has_audio=bool(container.streams.audio),
    )


def _is_cover(stream: VideoStream) -> bool:
    """A still cover picture of a music file is a video stream to FFmpeg."""
    return bool(stream.disposition & Disposition.attached_pic)


def _seconds(container: InputContainer, stream: VideoStream, picture: av.VideoFrame) -> float:
    """Of the DURATION tag (Matroska), else of the video stream, else of the file; 0 if unknown.

    The tag tells when the stream ends, which is no duration where its first picture comes late.
    """
    clock = stream.metadata.get("DURATION", "").split(":")
    if len(clock) == 3 and all(part.replace(".", "", 1).isdigit() for part in clock):
        hours, minutes, seconds = map(float, clock)
        return max(0.0, hours * 3600 + minutes * 60 + seconds - max(0.0, picture.time or 0.0))
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return max(0.0, (container.duration or 0) / av.time_base)


def _one_line(text: str) -> str:
    return " ".join(text.split())
