"""Generated videos on disk: one folder each, whose record, written last, says that it is whole.

`<name>/` holds `video.mp4`, lossless `frames/*.png`, `reference.png` where there was one, what the
maker has to show, and `video.json`. `index.json` beside the folders names those that belong to the
last run.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline import storage, video
from pipeline.errors import InputError
from pipeline.video import VideoSettings

INDEX, RECORD = "index.json", "video.json"
MP4, REFERENCE, FRAMES = "video.mp4", "reference.png", "frames"


@dataclass(frozen=True, slots=True)
class Generated:
    """What a video was made of, as in its record.

    name: of its folder; group: of the videos that are compared with other groups ("reference",
    "none"); subject: whose reference it is, the same in all groups; entity: the phrase in the
    prompt; made_of: all that decides the pixels; seen: what sampling told of every step; crf: of
    the mp4, None in records that are older than it.
    """

    name: str
    group: str
    subject: str
    prompt: str
    entity: str
    seed: int
    fps: int
    num_frames: int
    made_of: Mapping[str, Any]
    seen: Sequence[Mapping[str, Any]]
    negative_prompt: str = ""
    crf: int | None = None


def exists(url: str, name: str) -> bool:
    """Whether this video is whole."""
    return storage.exists(storage.join(url, name, RECORD))


def save(
    url: str,
    record: Generated,
    images: np.ndarray,
    reference: np.ndarray | None,
    settings: VideoSettings,
    beside: Mapping[str, bytes],
) -> None:
    """Writes a video below url. images: (N, H, W, 3), reference: (H, W, 3), uint8 RGB.

    beside: further files by their name.
    """
    folder = storage.join(url, record.name)
    for number, image in enumerate(images):
        storage.write(storage.join(folder, FRAMES, f"{number:04}.png"), _png(image))
    if reference is not None:
        storage.write(storage.join(folder, REFERENCE), _png(reference))
    storage.write(storage.join(folder, MP4), video.encode(images, settings))
    for name, content in beside.items():
        storage.write(storage.join(folder, name), content)
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
    storage.write(storage.join(folder, RECORD), text.encode())


def write_index(url: str, names: Sequence[str]) -> None:
    """Says which videos belong together."""
    storage.write(storage.join(url, INDEX), json.dumps(list(names), indent=1).encode())


def read_index(url: str) -> list[Generated]:
    """The videos of the last run, in order. Raises InputError when there are none."""
    try:
        names = json.loads(storage.read(storage.join(url, INDEX)))
        return [_record(storage.join(url, name)) for name in names]
    except FileNotFoundError as error:
        raise InputError(
            f"{url}: found no whole {INDEX} of videos; run `python -m jobs.generate` first"
        ) from error


def read_frames(url: str, record: Generated) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB, lossless."""
    folder = storage.join(url, record.name, FRAMES)
    names = [f"{number:04}.png" for number in range(record.num_frames)]
    return np.stack([_picture(storage.join(folder, name)) for name in names])


def read_reference(url: str, record: Generated) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB; None when it had none."""
    place = storage.join(url, record.name, REFERENCE)
    return _picture(place) if storage.exists(place) else None


def _record(folder: str) -> Generated:
    try:
        return Generated(**json.loads(storage.read(storage.join(folder, RECORD))))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{folder}: its {RECORD} is damaged: {error}; remove this folder and generate again"
        ) from error


def _picture(url: str) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(storage.read(url))).convert("RGB"))
    except OSError as error:
        raise InputError(
            f"{url}: the frame is missing or damaged; remove its video's folder and generate again"
        ) from error


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=6)
    return file.getvalue()
