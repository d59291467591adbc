"""Panda-70M's CSV through the same manifest as every other corpus."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.manifest import Manifest, read_manifest

HEADER = (
    "videoID,url,timestamp,caption,matching_score,desirable_filtering,shot_boundary_detection\n"
)
TWO = (
    "--abc-DEF_1,https://www.youtube.com/watch?v=--abc-DEF_1,"
    "\"[['0:00:01.000', '0:00:04.500'], ['0:00:10.100', '0:00:14.000']]\","
    '"[\'A dog runs, fast.\', ""A man\'s hat.""]",'
    "\"[0.45, 0.5]\",\"['desirable', '2_tiny_camera_movement']\","
    "\"[[['0:00:00.000', '0:00:03.500']], [['0:00:00.000', '0:00:03.900']]]\"\n"
)
ONE = (
    "zyx,https://www.youtube.com/watch?v=zyx,\"[['0:00:01.000', '0:00:04.500']]\","
    "\"['A cat.']\",[0.6],['desirable'],\"[[['0:00:00.000', '0:00:03.500']]]\"\n"
)
UNEVEN = "uneven,u,\"[['0:00:01.000', '0:00:04.500']]\",\"['One.', 'Two.']\",[1],[],[]\n"


def read(folder: Path, text: str) -> Manifest:
    (folder / "panda.csv").write_text(text)
    return read_manifest(str(folder / "panda.csv"))


def test_a_row_is_as_many_clips_as_its_lists_are_long(tmp_path: Path) -> None:
    manifest = read(tmp_path, HEADER + TWO + ONE)
    dog, hat, cat = manifest.clips([0, 1, 2])
    assert [clip.caption for clip in (dog, hat, cat)] == [
        "A dog runs, fast.",
        "A man's hat.",
        "A cat.",
    ]
    assert dog.source_id == hat.source_id == "--abc-DEF_1"
    assert hat.published["matching_score"] == 0.5
    assert hat.published["desirable_filtering"] == "2_tiny_camera_movement"
    assert hat.published["timestamp"] == '["0:00:10.100", "0:00:14.000"]'
    assert cat.published["url"] == "https://www.youtube.com/watch?v=zyx"


def test_clips_are_named_as_the_downloader_names_them(tmp_path: Path) -> None:
    manifest = read(tmp_path, HEADER + ONE * 99 + UNEVEN + TWO)
    assert manifest.rows["video"].to_pylist()[-3:] == [
        "uneven",
        "00001/0000100_00000.mp4",
        "00001/0000100_00001.mp4",
    ]
    assert manifest.clips([0])[0].path == str(tmp_path / "00000" / "0000000_00000.mp4")


def test_lists_that_do_not_agree_and_short_rows_are_malformed_rows(tmp_path: Path) -> None:
    code = "evil,u,\"[print('hello')]\",\"['One.']\",[1],[],[]\n"
    manifest = read(tmp_path, HEADER + UNEVEN + "short,u\n" + code + ONE)
    rows = manifest.rows.select(["video", "problem", "problem detail", "line number"]).to_pylist()
    assert [tuple(row.values()) for row in rows[:3]] == [
        ("uneven", "malformed", "1 timestamps and 2 captions", 2),
        ("short", "malformed", "2 fields, wanted 7", 3),
        ("evil", "malformed", "no timestamps and 1 captions", 4),
    ]
    assert rows[3]["problem"] is None


def test_a_header_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column `video`; found the columns: videoID, caption"):
        read(tmp_path, "videoID,caption\na,b\n")
