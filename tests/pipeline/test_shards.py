"""Shards: the same bytes however they came about, and nothing damaged goes unseen."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webdataset.compat import WebDataset

from pipeline import storage
from pipeline.clip import clip_id
from pipeline.errors import InputError
from pipeline.sample_tar import MEMBERS, pack, unpack
from pipeline.shard_reader import ShardReader
from pipeline.shards import INDEX, ShardReport, buckets, build, dataset_id, read_index
from pipeline.verify import prune, verify

PER_SHARD = 4


def sample(number: int, folder: Path, take: int = 0) -> dict[str, Any]:
    """Puts a sample tar of noise into the folder; returns its row. take: another one of it."""
    key = clip_id(f"clip {number}.mp4")
    noise = random.Random(f"{number} {take}")
    packed = pack(key, {member: noise.randbytes(noise.randrange(2000)) for member in MEMBERS})
    address = hashlib.sha256(packed[:-1]).hexdigest()
    (folder / f"{address}.tar").write_bytes(packed)
    return {
        "clip_id": key,
        "source_id": f"source {number // 3}",
        "address": address,
        "name": f"{address}.tar",
        "sha256": hashlib.sha256(packed).hexdigest(),
    }


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    folder = tmp_path / "samples"
    folder.mkdir()
    return [sample(number, folder) for number in range(30)]


def made(rows: list[dict[str, Any]], out: Path, **options: Any) -> ShardReport:
    samples = str(out.parent / "samples")
    return build(pa.Table.from_pylist(rows), samples, str(out), PER_SHARD, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_two_builds_are_the_same_to_the_byte_in_whatever_order_samples_come(
    rows: list[dict[str, Any]], tmp_path: Path
):
    made(rows, tmp_path / "a")
    made(random.Random(1).sample(rows, len(rows)), tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert len(tree(tmp_path / "a")) > 8


def test_an_object_store_gets_the_same_bytes(rows: list[dict[str, Any]], tmp_path: Path):
    made(rows, tmp_path / "a")
    url = f"memory://{tmp_path.name}/shards"
    report = build(pa.Table.from_pylist(rows), str(tmp_path / "samples"), url, PER_SHARD)
    assert {name: storage.read(f"{url}/{name}") for name in storage.names(url)} == tree(
        tmp_path / "a"
    )
    assert (report.dataset_id, verify(url)) == (dataset_id(str(tmp_path / "a")), [])


@pytest.mark.parametrize("samples_done", [0, 1, 7, 18, 29])
def test_a_build_stopped_anywhere_and_resumed_is_that_of_an_unbroken_one(
    rows: list[dict[str, Any]], tmp_path: Path, samples_done: int
):
    out, asked = tmp_path / "shards", iter(range(1000))
    stopped = made(rows, out, stop=lambda: next(asked) >= samples_done)
    assert stopped.dataset_id is None
    assert not (out / INDEX).exists()
    out.mkdir(exist_ok=True)
    (out / ".tmp-0123").write_bytes(b"half a shard")
    resumed = made(rows, out)
    unbroken = made(rows, tmp_path / "unbroken")
    assert tree(out) == tree(tmp_path / "unbroken")
    assert (resumed.reused, resumed.built) == (stopped.built, unbroken.built - stopped.built)
    assert resumed.dataset_id == unbroken.dataset_id


def test_a_second_build_writes_nothing_and_says_so(rows: list[dict[str, Any]], tmp_path: Path):
    out = tmp_path / "shards"
    first = made(rows, out)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    shutil.rmtree(tmp_path / "samples")
    second = made(rows, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert (first.changed, second.changed) == (True, False)
    assert (second.built, second.reused) == (0, first.built)
    assert second.dataset_id == first.dataset_id == dataset_id(str(out))


def test_progress_ends_at_the_number_of_samples(rows: list[dict[str, Any]], tmp_path: Path):
    told: list[tuple[int, int]] = []
    made(rows, tmp_path / "shards", progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (30, 30)


def test_buckets_are_the_shortest_prefixes_that_are_small_enough():
    keys = [clip_id(str(number)) for number in range(1000)]
    cut = buckets(keys, 50)
    assert sorted(key for members in cut.values() for key in members) == sorted(keys)
    for bits, members in cut.items():
        assert members == sorted(members)
        assert 0 < len(members) <= 50
        siblings = [m for other, m in cut.items() if other.startswith(bits[:-1])]
        assert sum(map(len, siblings)) > 50
    assert list(buckets(keys, 1000)) == ["all"]
    assert buckets([], 10) == {}


def test_a_changed_sample_changes_the_shard_of_its_bucket_alone(
    rows: list[dict[str, Any]], tmp_path: Path
):
    out = tmp_path / "shards"
    made(rows, out)
    before = set(read_index(str(out))["shard"].to_pylist())
    changed = [*rows[:11], sample(11, tmp_path / "samples", take=2), *rows[12:]]
    assert made(changed, out).built == 1
    after = set(read_index(str(out))["shard"].to_pylist())
    (old,), (new,) = before - after, after - before
    assert old.split("-")[0] == new.split("-")[0]


def test_a_reader_of_the_old_index_reads_all_of_it_after_a_rebuild_until_pruned(
    rows: list[dict[str, Any]], tmp_path: Path
):
    out = tmp_path / "shards"
    made(rows, out)
    reader = ShardReader(str(out))
    before = list(reader)
    made(rows[5:25], out)
    assert list(reader) == before
    assert len(before) == 30
    assert len(ShardReader(str(out))) == 20
    assert reader.dataset_id != dataset_id(str(out))

    sizes = {path.name: path.stat().st_size for path in out.glob("*.tar")}
    loose = set(sizes) - set(read_index(str(out))["shard"].to_pylist())
    planned = prune(str(out), dry_run=True)
    assert (set(planned.shards), planned.size) == (loose, sum(sizes[name] for name in loose))
    assert len(list(out.glob("*.tar"))) == len(sizes)
    assert prune(str(out)) == planned
    assert {path.name for path in out.glob("*.tar")} == set(sizes) - loose
    assert verify(str(out)) == []


def test_samples_come_back_as_they_were_built(rows: list[dict[str, Any]], tmp_path: Path):
    made(rows, tmp_path / "shards")
    names = {row["clip_id"]: row["name"] for row in rows}
    for key, members in ShardReader(str(tmp_path / "shards")):
        assert members == unpack(key, (tmp_path / "samples" / names[key]).read_bytes())


def test_plain_webdataset_reads_the_shards(rows: list[dict[str, Any]], tmp_path: Path):
    out = tmp_path / "shards"
    made(rows, out)
    shards = [str(out / name) for name in (out / "shards.txt").read_text().split()]
    theirs = {
        item["__key__"]: {member: item[member] for member in MEMBERS}
        for item in WebDataset(shards, shardshuffle=False)
    }
    assert theirs == dict(ShardReader(str(out)))


def test_tars_say_nothing_of_the_machine_or_the_hour(rows: list[dict[str, Any]], tmp_path: Path):
    made(rows, tmp_path / "shards")
    for path in (tmp_path / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            said = {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in tar}
        assert said == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_sample_that_is_missing_or_damaged_is_named(
    rows: list[dict[str, Any]], tmp_path: Path, harm: str
):
    path = tmp_path / "samples" / rows[3]["name"]
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=rf"{rows[3]['clip_id']} is {harm}"):
        made(rows, tmp_path / "shards")
    assert not (tmp_path / "shards" / INDEX).exists()


def test_a_damaged_shard_of_a_killed_build_is_named(rows: list[dict[str, Any]], tmp_path: Path):
    out = tmp_path / "shards"
    made(rows, out)
    (out / INDEX).unlink()
    cut_off(min(out.glob("*.tar")))
    with pytest.raises(InputError, match="remove it and build again"):
        made(rows, out)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bogus_row(out: Path) -> None:
    index = pq.read_table(out / INDEX)
    row = {**index.to_pylist()[0], "key": "bogus", "offset": 512}
    pq.write_table(
        pa.concat_tables([index, pa.Table.from_pylist([row], index.schema)]), out / INDEX
    )


HARMS = {
    "missing": (lambda out, tar: tar.unlink(), "is missing"),
    "truncated": (lambda out, tar: cut_off(tar), "bytes, wanted"),
    "appended": (lambda out, tar: tar.write_bytes(tar.read_bytes() + b"\0" * 512), "wanted"),
    "bit in a header": (lambda out, tar: flip(tar, 5), "another sha256"),
    "bit in a member": (lambda out, tar: flip(tar, 600), "another sha256"),
    "bit behind the last": (lambda out, tar: flip(tar, -1), "behind its last"),
    "row without sample": (lambda out, tar: bogus_row(out), "sample bogus"),
    "list": (lambda out, tar: (out / "shards.txt").write_text("x.tar\n"), "other shards"),
    "no list": (lambda out, tar: (out / "shards.txt").unlink(), "shards.txt: is missing"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_verify_finds_every_damage(rows: list[dict[str, Any]], tmp_path: Path, harm: str):
    out = tmp_path / "shards"
    made(rows, out)
    assert verify(str(out)) == []
    do_harm, said = HARMS[harm]
    do_harm(out, min(out.glob("*.tar")))
    problems = list(map(str, verify(str(out))))
    assert any(said in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_damaged_sample_is_not_read(rows: list[dict[str, Any]], tmp_path: Path):
    out = tmp_path / "shards"
    made(rows, out)
    flip(out / read_index(str(out))["shard"][0].as_py(), 600)
    with pytest.raises(InputError, match="another sha256"):
        ShardReader(str(out))[0]


def test_a_sample_with_a_foreign_member_is_refused():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("abc.pickle"))
    with pytest.raises(InputError, match=r"abc\.pickle"):
        unpack("abc", file.getvalue())


def test_without_an_index_there_is_one_clear_error(tmp_path: Path):
    for ask in (verify, prune, ShardReader, dataset_id):
        with pytest.raises(InputError, match=r"found no index\.parquet"):
            ask(str(tmp_path))


def test_no_flipped_bit_of_an_index_goes_unseen(rows: list[dict[str, Any]], tmp_path: Path):
    out = tmp_path / "shards"
    made(rows, out)
    index, chance = read_index(str(out)), random.Random(7)
    whole = (out / INDEX).read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (out / INDEX).write_bytes(content)
        with suppress(InputError):
            assert read_index(str(out)).equals(index)
