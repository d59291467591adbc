"""Which parts of a corpus are worth fetching."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.parts import in_mapping, in_zips, plan
from pipeline.zips import Piece, Zip, open_zips

VIDEOS = pa.chunked_array([["a.mp4", "b.mp4"], ["c.mp4", "d.mp4", "e.mp4", "nowhere.mp4"]])
KEPT = np.array([True, False, True, True, False, True])


def zip_(name: str, *sizes: int) -> Zip:
    return Zip(name, tuple(Piece(f"/x/{name}_{n}", size) for n, size in enumerate(sizes)))


def mapping(folder: Path, said: object) -> str:
    (folder / "parts.json").write_text(json.dumps(said))
    return str(folder / "parts.json")


def test_the_parts_with_most_clips_per_byte_come_first(tmp_path: Path) -> None:
    url = mapping(tmp_path, [{"part1": ["a.mp4"]}, {"part2": ["b.mp4"]}, {"part3": ["c.mp4"]}])
    there = [zip_("HD_part_1", 4_000_000_000), zip_("HD_part_3", 500_000_000, 500_000_000)]
    found = plan(in_mapping(url, VIDEOS), KEPT, there)
    assert [part.name for part in found] == ["part3", "part1"]  # nothing of part 2 passes
    assert [part.kept_per_gb for part in found] == [1.0, 0.25]
    assert found[0].files == ("HD_part_3_0", "HD_part_3_1")


def test_a_part_whose_size_nobody_says_is_of_unknown_size(tmp_path: Path) -> None:
    url = mapping(tmp_path, {"part1": ["a.mp4", "b.mp4"], "part2": ["c.mp4", "d.mp4", "e.mp4"]})
    found = plan(in_mapping(url, VIDEOS), KEPT, [zip_("part1", 10)])
    assert [(p.name, p.num_bytes, p.clips, p.kept) for p in found] == [
        ("part1", 10, 2, 1),
        ("part2", None, 3, 2),
    ]


def test_zips_say_themselves_what_they_hold(tmp_path: Path) -> None:
    for name, videos in {"part0": ["a", "b"], "part10": ["c"], "part9": ["d", "e"]}.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            for video in videos:
                file.writestr(f"{name}/{video}.mp4", b"x" * 1_000)
    zips = open_zips(str(tmp_path))
    assert zips is not None
    holding = in_zips(zips, VIDEOS)
    assert [holding.names[n] if n >= 0 else "" for n in holding.part] == [
        *("part0", "part0", "part10", "part9", "part9", ""),
    ]
    found = plan(holding, KEPT, zips.zips)
    assert [(part.name, part.kept) for part in found] == [("part10", 1), ("part0", 1), ("part9", 1)]
    assert found[0].num_bytes == (tmp_path / "part10.zip").stat().st_size


@pytest.mark.parametrize("said", [["part1"], [{"part1": "a.mp4"}], {"part1": [3]}, "part1"])
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, said: object) -> None:
    with pytest.raises(InputError, match="wanted part -> names of clips"):
        in_mapping(mapping(tmp_path, said), VIDEOS)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        in_mapping(str(tmp_path / "none.json"), VIDEOS)
