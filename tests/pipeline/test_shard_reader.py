"""Reading one sample: a store may fail for a moment, and what stays wrong is one line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import shards, storage
from pipeline.clip import clip_id
from pipeline.errors import InputError
from pipeline.sample_tar import pack
from pipeline.shard_reader import ShardReader

KEYS = sorted(clip_id(f"{number}.mp4") for number in range(5))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Five samples in an object store."""
    rows = []
    for key in KEYS:
        packed = pack(key, {"safetensors": key.encode() * 100})
        (tmp_path / f"{key}.tar").write_bytes(packed)
        sha = hashlib.sha256(packed).hexdigest()
        rows.append({"clip_id": key, "source_id": key, "address": sha, "name": f"{key}.tar"})
        rows[-1]["sha256"] = sha
    url = f"memory://{tmp_path.name}/latents"
    shards.build(pa.Table.from_pylist(rows), str(tmp_path), url, samples_per_shard=2)
    return url


class Failing:
    """A store whose ranged reads fail `times` times; counts them all."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int) -> None:
        self.reads = 0
        works = MemoryFileSystem.cat_file

        def cat_file(fs: MemoryFileSystem, path: str, start: Any = None, **more: Any) -> bytes:
            self.reads += start is not None
            if start is not None and self.reads <= times:
                raise TimeoutError("no answer")
            return works(fs, path, start, **more)

        patch.setattr(MemoryFileSystem, "cat_file", cat_file)


def test_each_sample_of_an_object_store_is_one_request(url: str, monkeypatch: pytest.MonkeyPatch):
    store = Failing(monkeypatch, times=0)
    read = dict(ShardReader(url))
    assert read == {key: {"safetensors": key.encode() * 100} for key in KEYS}
    assert store.reads == len(KEYS)


def test_a_store_that_fails_for_a_moment_is_asked_again(url: str, monkeypatch: pytest.MonkeyPatch):
    reader = ShardReader(url)
    store = Failing(monkeypatch, times=2)
    key, members = reader[0]
    assert members == {"safetensors": key.encode() * 100}
    assert store.reads == 3


def test_a_store_that_stays_away_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch):
    reader = ShardReader(url)
    Failing(monkeypatch, times=100)
    with pytest.raises(InputError, match=r"\.tar: sample \w{16}: cannot be read, 4 times"):
        reader[0]


def test_a_shard_that_is_gone_is_not_asked_for_again(url: str, monkeypatch: pytest.MonkeyPatch):
    reader = ShardReader(url)
    storage.remove(storage.join(url, reader.index["shard"][0].as_py()))
    store = Failing(monkeypatch, times=0)
    with pytest.raises(InputError, match="the shard is missing"):
        reader[0]
    assert store.reads == 1


def test_a_damaged_sample_is_named_with_its_shard(url: str):
    reader = ShardReader(url)
    keys, shard = reader.index["key"].to_pylist(), reader.index["shard"][2].as_py()
    content = bytearray(storage.read(storage.join(url, shard)))
    content[reader.index["offset"][2].as_py() + 700] ^= 1
    storage.write(storage.join(url, shard), bytes(content))
    with pytest.raises(InputError, match=rf"{shard}: sample {keys[2]}: .* of another sha256"):
        reader[2]
    assert [reader[number][0] for number in (0, 1, 3, 4)] == [*keys[:2], *keys[3:]]
