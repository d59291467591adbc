"""Clips are read where they lie in zips, whole or split, and are the same as loose ones."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from pipeline.clip import Clip, Failed, Measurement, Member
from pipeline.clip_file import local_file
from pipeline.container import DecodeError
from pipeline.errors import InputError
from pipeline.local_runner import LocalFleet
from pipeline.manifest import Manifest, read_manifest
from pipeline.replay import judge
from pipeline.units import Batch, Loop, cut
from pipeline.work import Task, Work
from pipeline.zips import open_zips
from stages.appearance import Appearance
from stages.probe import Probe

NAMES = ("plain.mp4", "packed.mp4", "deep.mp4", "halved.mp4", "lost.mp4", "spoiled.mp4")


def zip_of(path: Path, *files: Path, folder: str = "", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as zipped:
        for file in files:
            zipped.write(file, f"{folder}{file.name}")
    return path


def split(path: Path, at: int) -> None:
    """As `split -b` does it: NAME.zip becomes NAME_partaa and NAME_partab."""
    data = path.read_bytes()
    path.with_name(f"{path.stem}_partaa").write_bytes(data[:at])
    path.with_name(f"{path.stem}_partab").write_bytes(data[at:])
    path.unlink()


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("loose")
    for seed, name in enumerate(NAMES):
        noise = np.random.default_rng(seed).integers(0, 256, (6, 48, 64, 3), np.uint8)
        render(folder / name, [frame for frame in noise for _ in range(4)])
    return folder


@pytest.fixture(scope="module")
def zips(loose: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five zips: stored, deflated with folders, split within a clip, cut off, with a wrong byte."""
    folder = tmp_path_factory.mktemp("zips")
    zip_of(folder / "OpenVid_part0.zip", loose / "plain.mp4")
    packed = [loose / "packed.mp4", loose / "deep.mp4"]
    zip_of(folder / "OpenVid_part1.zip", *packed, folder="a/b/", method=zipfile.ZIP_DEFLATED)
    split(zip_of(folder / "OpenVid_part2.zip", loose / "halved.mp4", folder="part2/"), 3_000)
    cut_off = zip_of(folder / "OpenVid_part10.zip", loose / "lost.mp4")
    cut_off.write_bytes(cut_off.read_bytes()[:-40])
    spoiled = zip_of(folder / "OpenVid_part11.zip", loose / "spoiled.mp4")
    data = bytearray(spoiled.read_bytes())
    data[2_000] ^= 1
    spoiled.write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("corpus") / "clips.csv"
    path.write_text("video,caption,aesthetic score\n" + "".join(f"{n},c,5.5\n" for n in NAMES))
    return str(path)


@pytest.fixture(scope="module")
def zipped(corpus: str, zips: Path) -> Manifest:
    return read_manifest(corpus, str(zips))


def clip(manifest: Manifest, name: str) -> Clip:
    return manifest.clips([NAMES.index(name)])[0]


def content(found: Clip) -> bytes:
    with local_file(found.path) as path:
        return Path(path).read_bytes()


def code(found: Clip) -> str:
    with pytest.raises(DecodeError) as caught, local_file(found.path):
        pass
    assert "\n" not in caught.value.message
    return caught.value.code


def measured(manifest: Manifest, *names: str) -> dict[tuple[str, str], Any]:
    """What a host and its decoder find out: (stage, clip) -> values without place, or code."""
    clips = [clip(manifest, name) for name in names]
    batches: list[Batch] = []
    fleet = LocalFleet(Work((Probe(), Appearance()), {}, measure_all=True), lambda: False)
    assert Loop(fleet, batches.append, lambda: False).run(cut((Task(c) for c in clips), 4))
    fleet.close()
    found = {}
    for batch in batches:
        for clip_id, stage, outcome in batch.outcomes:
            known = dict(outcome.values) if isinstance(outcome, Measurement) else outcome.code
            if isinstance(known, dict):
                known.pop("mtime", None)
            found[stage, clip_id] = known
    return found


def test_facts_from_zips_are_those_of_loose_files(
    corpus: str, loose: Path, zipped: Manifest
) -> None:
    names = ("plain.mp4", "packed.mp4", "deep.mp4", "halved.mp4")
    found = measured(zipped, *names, "spoiled.mp4")
    spoiled = clip(zipped, "spoiled.mp4").clip_id
    assert found.pop(("probe", spoiled)) == "unreadable"
    assert found == measured(read_manifest(corpus, str(loose)), *names)
    assert len(found) == 2 * len(names)


def test_a_member_is_the_file_byte_for_byte(loose: Path, zipped: Manifest) -> None:
    for name in ("plain.mp4", "packed.mp4", "deep.mp4", "halved.mp4"):
        assert content(clip(zipped, name)) == (loose / name).read_bytes()


def test_a_member_with_a_wrong_checksum_is_unreadable(zipped: Manifest) -> None:
    assert code(clip(zipped, "spoiled.mp4")) == "unreadable"


def test_a_zip_that_changed_under_us_is_unreadable_and_one_that_went_is_missing(
    loose: Path, tmp_path: Path, corpus: str
) -> None:
    path = zip_of(tmp_path / "a.zip", loose / "plain.mp4", loose / "deep.mp4")
    found = read_manifest(corpus, str(tmp_path))
    zip_of(path, loose / "halved.mp4", loose / "deep.mp4")
    assert code(clip(found, "deep.mp4")) == "unreadable"
    path.unlink()
    assert code(clip(found, "deep.mp4")) == "missing"


def test_a_clip_of_a_broken_zip_is_missing_until_the_zip_is_whole(
    zipped: Manifest, corpus: str, loose: Path, tmp_path: Path
) -> None:
    verdicts = judge(zipped, (), {}, {}).table()
    assert verdicts["verdict"].to_pylist() == ["kept"] * 4 + ["failed", "kept"]
    assert verdicts.slice(4, 1).to_pylist()[0]["code"] == "missing"
    split(zip_of(tmp_path / "a.zip", *(loose / name for name in NAMES)), 2_000)
    (tmp_path / "a_partaa").rename(tmp_path / "aside")
    with pytest.raises(InputError, match="no zips"):
        read_manifest(corpus, str(tmp_path))
    (tmp_path / "aside").rename(tmp_path / "a_partaa")
    whole = read_manifest(corpus, str(tmp_path))
    assert not whole.missing.any()
    assert content(clip(whole, "lost.mp4")) == (loose / "lost.mp4").read_bytes()


def test_what_was_measured_stays_known_when_its_zip_is_gone(corpus: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("other.mp4", b"")
    left = read_manifest(corpus, str(tmp_path))
    assert left.missing.all()
    known = {"clip_id": [clip(left, "deep.mp4").clip_id], "code": pa.array([None], pa.string())}
    verdicts = judge(left, [Probe()], {}, {"probe": pa.table(known)})
    assert verdicts.table()["verdict"].to_pylist() == [
        *("failed", "failed", "kept", "failed", "failed", "failed"),
    ]


def test_a_loose_file_is_taken_before_one_in_a_zip(
    corpus: str, loose: Path, tmp_path: Path
) -> None:
    zip_of(tmp_path / "a.zip", loose / "plain.mp4", loose / "deep.mp4")
    (tmp_path / "plain.mp4").write_bytes(b"loose")
    found = read_manifest(corpus, str(tmp_path))
    assert clip(found, "plain.mp4").path == str(tmp_path / "plain.mp4")
    assert isinstance(clip(found, "deep.mp4").path, Member)
    assert found.missing.tolist() == [False, True, False, True, True, True]


def test_a_split_zip_beyond_four_gigabytes(corpus: str, loose: Path, tmp_path: Path) -> None:
    """Of a hole, which takes no disk."""
    begin, cut_at = 5 << 30, (5 << 30) + 500
    first, second = tmp_path / "big_partaa", tmp_path / "big_partab"
    with first.open("wb") as file:
        file.seek(begin)
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.write(loose / "deep.mp4", "deep.mp4")
    with first.open("rb") as file:
        file.seek(cut_at)
        second.write_bytes(file.read())
    os.truncate(first, cut_at)
    found = clip(read_manifest(corpus, f"{tmp_path}/*.zip"), "deep.mp4")
    assert isinstance(found.path, Member)
    assert found.path.offset == begin
    assert content(found) == (loose / "deep.mp4").read_bytes()


def test_a_zip_of_an_unknown_version_is_left_out_with_a_warning(
    loose: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zip_of(tmp_path / "good.zip", loose / "plain.mp4")
    odd = zip_of(tmp_path / "odd.zip", loose / "deep.mp4")
    data = bytearray(odd.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 6] = 64  # 6.4 is needed to read it
    odd.write_bytes(data)
    opened = open_zips(str(tmp_path))
    assert opened is not None
    assert opened.members["name"].to_pylist() == ["plain.mp4"]
    assert "odd.zip: not a whole zip" in caplog.text


def test_a_zip_with_a_member_of_all_bytes_there_are_is_left_out(tmp_path: Path) -> None:
    extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    entry = (
        struct.pack(
            "<4s6H3I5H2I",
            b"PK\x01\x02",
            20,
            20,
            0,
            0,
            0,
            33,
            0,
            0,
            2**32 - 1,
            1,
            len(extra),
            0,
            0,
            0,
            0,
            0,
        )
        + b"a"
        + extra
    )
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), 0, 0)
    (tmp_path / "a.zip").write_bytes(entry + end)
    opened = open_zips(str(tmp_path))
    assert opened is not None
    assert len(opened.members) == 0


def test_parts_stand_in_the_order_of_their_numbers(zips: Path) -> None:
    found = open_zips(str(zips))
    assert found is not None
    assert [zip_.name for zip_ in found.zips] == [f"OpenVid_part{n}" for n in (0, 1, 2, 10, 11)]
    assert found.zips[2].file_names == ["OpenVid_part2_partaa", "OpenVid_part2_partab"]


def test_zips_and_clips_in_an_object_store_are_read_in_ranges(
    corpus: str, zips: Path, loose: Path
) -> None:
    store = fsspec.filesystem("memory")
    store.store.clear()
    for path in zips.iterdir():
        store.pipe_file(f"/zips/{path.name}", path.read_bytes())
    found = read_manifest(corpus, "memory://zips/*.zip")
    for name in ("deep.mp4", "halved.mp4"):
        assert content(clip(found, name)) == (loose / name).read_bytes()
    store.pipe_file("/loose/plain.mp4", (loose / "plain.mp4").read_bytes())
    store.pipe_file("/loose/deep.mp4", b"")
    plain = read_manifest(corpus, "memory://loose")
    assert content(clip(plain, "plain.mp4")) == (loose / "plain.mp4").read_bytes()
    assert code(clip(plain, "deep.mp4")) == "empty"
    assert code(clip(plain, "lost.mp4")) == "missing"
    assert isinstance(Probe().measure([clip(plain, "lost.mp4")], [None], [{}])[0], Failed)
    with pytest.raises(InputError, match="no zips"):
        read_manifest(corpus, "memory://loose/*.zip")
