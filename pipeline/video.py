"""H.264 in mp4, the same bytes every time, and back."""

from __future__ import annotations

import io
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image

from pipeline import storage
from pipeline.errors import InputError

# Without accurate_rnd and bitexact swscale rounds differently from one CPU to the next.
SCALING = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)

# x264 else picks algorithms by CPU, and those for AVX-512 read memory that nobody wrote: the same
# frames made seven different files in twelve runs. With it the bytes are those of the plain C code.
EXACT = "cpu-independent=1"


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """width, height: even pixels. crf: x264's quality, lower is better."""

    width: int = 720  # the paper, section 6.1: 480x720
    height: int = 480
    fps: int = 8  # CogVideoX's own rate
    crf: int = 15  # ours: 41 dB on real clips at 0.85 MB; 12 takes half as much again for 1 dB

    def __post_init__(self) -> None:
        if self.width < 2 or self.height < 2 or self.width % 2 or self.height % 2:
            raise InputError(
                f"video: found {self.width}x{self.height}; wanted even numbers of pixels"
            )
        if self.fps < 1 or not 0 <= self.crf <= 51:
            raise InputError(
                f"video: found fps {self.fps} and crf {self.crf}; wanted fps >= 1 and crf 0..51"
            )


def environment() -> dict[str, str]:
    """What else decides the bytes: the libraries of PyAV and the CPU's architecture."""
    versions = {name: ".".join(map(str, v)) for name, v in sorted(av.library_versions.items())}
    return {"av": av.__version__, **versions, "machine": platform.machine()}


def encode(images: np.ndarray, settings: VideoSettings) -> bytes:
    """An mp4 file of yuv420p, bt709 tagged.

    images: (N, H, W, 3) uint8 RGB of any size, scaled to the settings' size: crop them to its
    aspect before. Depends on pixels, settings and environment() alone.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=settings.fps)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.options = {"crf": str(settings.crf), "flags": "+bitexact", "x264-params": EXACT}
        context = stream.codec_context
        context.thread_count = 1  # the bits depend on the number of threads
        context.color_range = ColorRange.MPEG
        context.colorspace = Colorspace.ITU709
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        context.time_base = Fraction(1, settings.fps)
        for number, image in enumerate(images):
            container.mux(stream.encode(_frame(image, number, settings)))
        container.mux(stream.encode())
    return file.getvalue()


def export_to_video(pictures: Sequence[Image.Image], place: str, fps: int = 8) -> None:
    """Writes the pictures of one video, RGB and of one size, as `encode` has it."""
    images = np.stack([np.asarray(picture) for picture in pictures])
    height, width = images.shape[1:3]
    storage.write(place, encode(images, VideoSettings(width, height, fps)))


def decode(content: bytes) -> np.ndarray:
    """All pictures of an mp4 file of `encode`, (N, height, width, 3) uint8 RGB."""
    pictures = []
    with av.open(io.BytesIO(content), "r") as container:
        for frame in container.decode(video=0):
            shown = frame.reformat(
                format="rgb24",
                src_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                interpolation=SCALING,
                threads=1,
            )
            pictures.append(shown.to_ndarray())
    return np.stack(pictures)


def _frame(image: np.ndarray, number: int, settings: VideoSettings) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
        settings.width,
        settings.height,
        "yuv420p",
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        dst_color_primaries=ColorPrimaries.BT709,
        dst_color_trc=ColorTrc.BT709,
        interpolation=SCALING,
        threads=1,
    )
    frame.pts, frame.time_base = number, Fraction(1, settings.fps)
    return frame
