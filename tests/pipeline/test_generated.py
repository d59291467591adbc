"""Generated videos on disk: whole or not there, and lossless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import generated, video
from pipeline.errors import InputError
from pipeline.generated import Generated
from pipeline.video import VideoSettings

RECORD = Generated("a-0", "reference", "a", "A frög.", "frög", 0, 8, 5, {"seed": 0}, [])
SMALL = VideoSettings(96, 64)


@pytest.fixture
def images(texture: Callable[..., np.ndarray]) -> np.ndarray:
    return np.stack([texture(64, 96, seed) // 2 + 50 for seed in range(5)])


def test_frames_and_reference_come_back_to_the_bit(tmp_path: Path, images: np.ndarray) -> None:
    generated.save(str(tmp_path), RECORD, images, images[0], SMALL, {"map.png": b"seen"})
    generated.write_index(str(tmp_path), ["a-0"])
    (record,) = generated.read_index(str(tmp_path))
    assert record == RECORD
    assert np.array_equal(generated.read_frames(str(tmp_path), record), images)
    reference = generated.read_reference(str(tmp_path), record)
    assert reference is not None
    assert np.array_equal(reference, images[0])


def test_the_mp4_beside_them_is_the_same_video(tmp_path: Path, images: np.ndarray) -> None:
    generated.save(str(tmp_path), RECORD, images, None, SMALL, {})
    shown = video.decode((tmp_path / "a-0" / "video.mp4").read_bytes())
    assert shown.shape == images.shape
    error = np.abs(shown.astype(float) - images).mean()
    assert error < 5
    assert generated.read_reference(str(tmp_path), RECORD) is None


def test_a_video_is_there_only_once_its_record_is(tmp_path: Path, images: np.ndarray) -> None:
    generated.save(str(tmp_path), RECORD, images, None, SMALL, {})
    assert generated.exists(str(tmp_path), "a-0")
    (tmp_path / "a-0" / "video.json").unlink()
    assert not generated.exists(str(tmp_path), "a-0")


def test_only_the_last_run_is_read(tmp_path: Path, images: np.ndarray) -> None:
    for name in ("a-0", "b-0"):
        generated.save(str(tmp_path), replace(RECORD, name=name), images, None, SMALL, {})
    generated.write_index(str(tmp_path), ["b-0"])
    assert [record.name for record in generated.read_index(str(tmp_path))] == ["b-0"]


def test_what_is_missing_or_damaged_is_named(tmp_path: Path, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"jobs\.generate"):
        generated.read_index(str(tmp_path))
    generated.save(str(tmp_path), RECORD, images, None, SMALL, {})
    generated.write_index(str(tmp_path), ["a-0"])
    (tmp_path / "a-0" / "frames" / "0003.png").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"0003\.png"):
        generated.read_frames(str(tmp_path), RECORD)
    (tmp_path / "a-0" / "video.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        generated.read_index(str(tmp_path))
