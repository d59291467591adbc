"""A file is there whole, or not at all, here and in an object store."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import InputError

if TYPE_CHECKING:
    from s3_server import S3Server


@pytest.fixture(params=["local", "memory", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path, on_s3: Callable[..., S3Server]) -> str:
    if request.param == "local":
        return str(tmp_path)
    if request.param == "s3":
        return f"{on_s3().url}/{tmp_path.name}"
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/runs"


def test_what_was_written_is_read_again_whole_and_in_part(base: str) -> None:
    url = storage.join(base, "deep", "a b.bin")
    storage.write(url, b"old")
    storage.write(url, b"0123456789")
    assert storage.read(url) == b"0123456789"
    assert storage.read_range(url, 3, 4) == b"3456"
    assert storage.read_range(url, 8, 10) == b"89"
    assert (storage.size(url), storage.exists(url)) == (10, True)


def test_the_first_creation_wins(base: str) -> None:
    url = storage.join(base, "shard.tar")
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda i: storage.create(url, bytes([i]) * 100), range(16)))
    assert sum(won) == 1
    assert storage.read(url) == bytes([won.index(True)]) * 100


def test_a_folder_lists_what_it_holds_now(base: str) -> None:
    folder = storage.join(base, "parts")
    assert storage.names(folder) == []
    for name in ("b", "a", "deeper/c"):
        storage.write(storage.join(folder, name), b"x")
    assert storage.names(folder) == ["a", "b", "deeper"]
    assert storage.files(folder) == ["a", "b", "deeper/c"]
    storage.remove(storage.join(folder, "a"))
    storage.remove(storage.join(folder, "a"))
    assert storage.names(folder) == ["b", "deeper"]
    assert not storage.exists(storage.join(folder, "a"))


def test_what_is_not_there_cannot_be_read(base: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read(storage.join(base, "nothing"))


def test_urls_are_joined_below_a_root_a_bucket_and_a_relative_folder() -> None:
    assert storage.join("/", "a") == "/a"
    assert storage.join("runs/", "a", "b") == "runs/a/b"
    assert storage.join("s3://bucket", "a") == "s3://bucket/a"


def test_the_leftover_of_a_killed_writer_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123").write_bytes(b"half")
    storage.write(str(tmp_path / "whole"), b"x")
    assert storage.names(str(tmp_path)) == storage.files(str(tmp_path)) == ["whole"]


@pytest.mark.parametrize("put", [storage.write, storage.create])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    old = tmp_path / "old"
    old.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"/new: cannot be written \(7 bytes\): no space left"):
        put(str(tmp_path / "new"), b"content")
    with pytest.raises(InputError, match="no space left"):
        storage.write(str(old), b"content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old"}


def test_an_output_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for url in (str(tmp_path / "file" / "below"), "/proc/nothing/below"):
        with pytest.raises(InputError, match="cannot be written"):
            storage.write(url, b"x")
    with pytest.raises(InputError, match="nosuch"):
        storage.write("nosuch://bucket/key", b"x")


def test_where_links_are_unsupported_a_file_is_created_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    url = str(tmp_path / "a")
    assert storage.create(url, b"first")
    assert not storage.create(url, b"second")
    assert (storage.read(url), storage.names(str(tmp_path))) == (b"first", ["a"])
