"""What is true of a corpus: beside the videos, in files that the pipeline never reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("video", pa.string()),
        ("clip_id", pa.string()),
        ("reason", pa.string()),
        ("expected", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())),
        ("subject", pa.string()),
        ("mask", pa.string()),
        ("camera", pa.string()),
        ("subject_speed", pa.float32()),
        ("camera_speed", pa.float32()),
        ("cuts", pa.list_(pa.int32())),
        ("decodable_frames", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of one manifest row.

    expected: the right verdicts (`kept`, `rejected:stage`, `failed:stage`); reason: the class that
    recall is counted by; subject: its noun, null without one; mask: PNG of the subject in frame 0,
    upright and native, below the truth's folder, null without one; speeds: shares of the frame's
    diagonal per second over the first 1.8 s; cuts: first frames of the later shots;
    decodable_frames: 0 for what is no video.
    """

    row: int
    video: str
    clip_id: str
    reason: str
    expected: Sequence[str]
    tags: Sequence[str]
    subject: str | None
    mask: str | None
    camera: str
    subject_speed: float
    camera_speed: float
    cuts: Sequence[int]
    decodable_frames: int


def write_truth(folder: Path, rows: Sequence[Truth]) -> None:
    """Writes truth.parquet into a folder that holds the masks already."""
    pq.write_table(
        pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA), folder / "truth.parquet"
    )


def read_truth(corpus: Path) -> list[Truth]:
    """The truth of a corpus folder, in the manifest's order."""
    table = pq.read_table(corpus / "truth" / "truth.parquet")
    return [Truth(**row) for row in table.to_pylist()]


def write_mask(path: Path, mask: np.ndarray) -> None:
    """mask: (H, W) bool."""
    cv2.imwrite(str(path), np.asarray(mask, np.uint8) * 255)


def read_mask(corpus: Path, row: Truth) -> np.ndarray | None:
    """(H, W) bool of the subject in frame 0; None where the row has none."""
    if row.mask is None:
        return None
    picture = cv2.imread(str(corpus / "truth" / row.mask), cv2.IMREAD_GRAYSCALE)
    return None if picture is None else np.asarray(picture) > 127
