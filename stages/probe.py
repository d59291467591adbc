"""What the container says: sizes, rates, codecs. Nothing is decoded beyond the first picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.clip import Clip, Facts, Failed, Location, Measurement, Outcome
from pipeline.clip_file import local_file, size_and_time
from pipeline.container import DecodeError, read_header
from pipeline.filters import Filter
from pipeline.frames import Frames
from pipeline.stage import Resources, Stage


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Nothing to set: a container says what it says."""


class Probe(Stage):
    """The header of every clip; fails where there is no video to read."""

    name = "probe"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "width": pa.int32(),  # upright
            "height": pa.int32(),
            "short_side": pa.int32(),
            "rotation": pa.int32(),  # degrees counter-clockwise from stored to upright
            "fps": pa.float64(),  # mean
            "num_frames": pa.int32(),
            "num_frames_exact": pa.bool_(),  # false: estimated from seconds and fps
            "seconds": pa.float64(),
            "codec": pa.string(),
            "pixel_format": pa.string(),
            "has_audio": pa.bool_(),
            "size_bytes": pa.int64(),
            "mtime": pa.float64(),  # seconds since 1970; of the zip that it lies in; null: unknown
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "short_side": Filter(min=1080),  # the paper trains on OpenVidHD: 1080p
        "num_frames": Filter(min=76),  # reference + 25 frames at an interval of 3
        "fps": Filter(min=8, max=120),  # ours: OpenVid has 10..60; beyond is a broken header
    }
    resources = Resources(cpus=1, batch=32)

    def __init__(self, settings: ProbeSettings | None = None) -> None:
        self._settings = settings or ProbeSettings()

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes the numbers."""
        return asdict(self._settings)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Codes of failure: missing, empty, unreadable, no_video, unreachable, too_large."""
        return [_probe(clip.path) for clip in clips]


def _probe(location: Location) -> Outcome:
    try:
        with local_file(location) as path:
            header = read_header(path)
        size_bytes, mtime = size_and_time(location)
    except DecodeError as error:
        return Failed(error.code, error.message)
    except FileNotFoundError:
        return Failed("missing", "the file went away while it was read")
    return Measurement(
        asdict(header)
        | {
            "short_side": min(header.width, header.height),
            "size_bytes": size_bytes,
            "mtime": mtime,
        }
    )
