"""Sample: the training pair of one clip, built once and named by what it is made of."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import PIL
import pyarrow as pa
from PIL import Image

from pipeline import storage, video
from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome, caption_of
from pipeline.errors import InputError
from pipeline.frames import FrameRequest, Frames, Indices
from pipeline.mask import Box, box_of, rle_decode
from pipeline.reference import VERSION as REFERENCE_VERSION
from pipeline.reference import ReferenceSettings, compose
from pipeline.sample_tar import pack
from pipeline.stage import Stage
from pipeline.video import VideoSettings

# Of the file, not of the clip: two copies of one corpus make the same samples. `mask_rle` is in
# mask.png. The pixels' own hash stands for the file in the address.
_LEFT_OUT = {
    "probe": {"mtime", "etag"},
    "appearance": {"embedding"},  # for finding near copies; hundreds of numbers
    "segment": {"mask_rle"},
}


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """num_frames frames, `interval` apart; the subject is cut out of frame 0.

    reference_frame: how many frames the reference lies before the window's first one. By the
    default the window is frames 3, 6, ..., 75; one of the same moment teaches copying.
    """

    num_frames: int = 25  # the paper, section 6.1
    interval: int = 3  # the paper, section 6.1
    reference_frame: int = 3  # the paper, section 6.1
    video: VideoSettings = field(default_factory=VideoSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)

    def __post_init__(self) -> None:
        if min(self.num_frames, self.interval, self.reference_frame) < 1:
            raise InputError(
                f"sample: found num_frames {self.num_frames}, interval {self.interval} and "
                f"reference_frame {self.reference_frame}; wanted 1 or more; change them in the run "
                "file"
            )

    @property
    def window(self) -> tuple[int, ...]:
        """The numbers of the frames to train on."""
        return tuple(self.reference_frame + self.interval * i for i in range(self.num_frames))


class Sample(Stage):
    """Writes video, reference, mask and facts of a kept clip as one tar.

    address: SHA-256 over all that decides the bytes; name: of the tar below `out`; bytes, sha256:
    of the tar. Fails as `partial` when frames are missing, `no_mask` without a subject and
    `changed` when the mask is of a picture of another size.
    """

    name: ClassVar[str] = "sample"
    version: ClassVar[int] = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("address", pa.string()),
            ("name", pa.string()),
            ("bytes", pa.int64()),
            ("sha256", pa.string()),
        ]
    )
    needs = ("probe", "appearance", "motion", "overlay", "entities", "segment", "pair")

    def __init__(self, settings: SampleSettings, out: str, captioned: bool = False) -> None:
        """out: the folder of the samples; where they lie changes nothing about them.

        captioned: whether the `caption` stage stands before it in this run.
        """
        self._settings = settings
        self.needs = (*self.needs, "caption") if captioned else self.needs
        self._out = out
        self._numbers = (0, *settings.window)
        self.frames = FrameRequest(Indices(self._numbers))

    def settings(self) -> Mapping[str, Any]:
        """The build's settings and the version of the reference picture."""
        return {**asdict(self._settings), "reference_version": REFERENCE_VERSION}

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """One sample per clip, there when this returns."""
        return [self._build(*one) for one in zip(clips, frames, facts, strict=True)]

    def _build(self, clip: Clip, frames: Frames | None, facts: Facts) -> Outcome:
        if frames is None or frames.numbers != self._numbers:
            found = len(frames.numbers) if frames else 0
            return Failed(
                "partial",
                f"found {found} of {len(self._numbers)} frames: a sample needs a clip of "
                f"{self._numbers[-1] + 1}",
            )
        segment = facts["segment"]
        if not segment.get("mask_rle"):
            return Failed("no_mask", "there is no subject to cut out")
        size = (int(segment["mask_width"]), int(segment["mask_height"]))
        if size != (frames.images.shape[2], frames.images.shape[1]):
            seen = f"{frames.images.shape[2]}x{frames.images.shape[1]}"
            message = f"the mask is {size[0]}x{size[1]}, the video {seen}: measure the clip again"
            return Failed("changed", message)
        mask = rle_decode(segment["mask_rle"], *size)
        subject = box_of(mask)
        if subject is None:
            return Failed("no_mask", "the mask is empty")
        window = crop_window(
            size, (self._settings.video.width, self._settings.video.height), subject
        )
        made_of = self._made_of(clip, frames, facts)
        address = hashlib.sha256(_canonical(made_of)).hexdigest()
        note = self._note(clip, frames, made_of, window, address)
        packed = pack(clip.clip_id, self._members(frames.images, mask, window, note))
        return Measurement(self._store(address, packed))

    def _store(self, address: str, packed: bytes) -> dict[str, Any]:
        """Writes the tar unless it is there. What is there is what gets recorded."""
        name = f"{address[:2]}/{address}.tar"
        url = storage.join(self._out, name)
        if not storage.create(url, packed):
            packed = storage.read(url)
        sha256 = hashlib.sha256(packed).hexdigest()
        return {"address": address, "name": name, "bytes": len(packed), "sha256": sha256}

    def _made_of(self, clip: Clip, frames: Frames, facts: Facts) -> dict[str, Any]:
        """Everything that decides the sample's bytes."""
        pixels = hashlib.sha256(np.ascontiguousarray(frames.images).data)
        return {
            "key": clip.clip_id,
            "video": clip.video,
            "caption": caption_of(clip, facts),
            "source_id": clip.source_id,
            "published": dict(clip.published),
            "facts": {stage: _kept_facts(stage, facts[stage]) for stage in self.needs},
            "mask_rle": facts["segment"]["mask_rle"],
            "pixels": pixels.hexdigest(),
            "settings": self.settings(),
            "version": self.version,
            "environment": environment(),
        }

    def _note(
        self, clip: Clip, frames: Frames, made_of: Mapping[str, Any], window: Box, address: str
    ) -> bytes:
        """The sample's JSON: what a trainer reads, and where it came from."""
        settings, entities = self._settings, made_of["facts"]["entities"]
        return _canonical(
            {
                **{key: made_of[key] for key in ("key", "video", "caption", "source_id")},
                **{key: made_of[key] for key in ("facts", "published")},
                "entity": {k: entities.get(k) for k in ("main_entity", "phrase", "category")},
                "width": settings.video.width,
                "height": settings.video.height,
                "num_frames": settings.num_frames,
                "fps": settings.video.fps,
                "provenance": {
                    "address": address,
                    "reference_frame": self._numbers[0],
                    "frames": self._numbers[1:],
                    "source_fps": frames.fps,
                    "source_width": frames.width,
                    "source_height": frames.height,
                    "crop": dict(zip(("x0", "y0", "x1", "y1"), window, strict=True)),
                    **{k: made_of[k] for k in ("pixels", "settings", "version", "environment")},
                },
            }
        )

    def _members(
        self, images: np.ndarray, mask: np.ndarray, window: Box, note: bytes
    ) -> dict[str, bytes]:
        x0, y0, x1, y1 = window
        size = (self._settings.video.width, self._settings.video.height)
        picture = compose(images[0], mask, size, self._settings.reference)
        shown = Image.fromarray(mask[y0:y1, x0:x1].astype(np.uint8) * 255)
        smooth = np.asarray(shown.resize(size, Image.Resampling.BILINEAR))
        return {
            "json": note,
            "mask.png": _png(np.where(smooth > 127, 255, 0).astype(np.uint8)),
            "mp4": video.encode(images[1:, y0:y1, x0:x1], self._settings.video),
            "reference.png": _png(picture),
        }


def crop_window(size: tuple[int, int], wanted: tuple[int, int], subject: Box) -> Box:
    """The largest window of the wanted aspect, its middle as near to the subject's as it can be.

    size: (width, height) of the picture; wanted: (width, height) that it will be resized to.
    """
    width = min(size[0], round(size[1] * wanted[0] / wanted[1]))
    height = min(size[1], round(size[0] * wanted[1] / wanted[0]))
    x0 = min(max((subject[0] + subject[2] - width) // 2, 0), size[0] - width)
    y0 = min(max((subject[1] + subject[3] - height) // 2, 0), size[1] - height)
    return x0, y0, x0 + width, y0 + height


def environment() -> dict[str, str]:
    """The libraries and the architecture that the bytes of a sample depend on."""
    return {**video.environment(), "opencv": cv2.__version__, "pillow": PIL.__version__}


def _kept_facts(stage: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    left_out = _LEFT_OUT.get(stage, set())
    return {name: value for name, value in columns.items() if name not in left_out}


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=6)
    return file.getvalue()


def _canonical(value: Any) -> bytes:
    """JSON of one spelling: sorted keys, ASCII, numbers and absences alike wherever they came from.

    A fact straight from its stage and the same fact out of the ledger give the same bytes.
    """
    return json.dumps(_plain(value), sort_keys=True, allow_nan=False).encode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    return value
