"""Samples in WebDataset shards: written and indexed.

A shard is a copy of the samples of one hash bucket, its name known before it is built, so present
means done. `index.parquet`, written last, alone says what belongs to the dataset: its SHA-256 is
the dataset's id. `shard_reader.py` reads them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import InputError, StoreError
from pipeline.sample_tar import pack, tar_size, tar_writer, unpack

INDEX = "index.parquet"
SHARD_LIST = "shards.txt"
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("clip_id", pa.string()),
        ("source_id", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""offset, size: the sample's bytes in its shard, tar headers included; sha256: of these bytes."""

_READERS = 4
"""Samples read at once while one shard is written: an object store answers slowly."""
_KEY_BITS = 80

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a build did. built, reused: shards; samples: in the dataset.

    changed: False when all was there already and nothing was written. dataset_id: None
    when the build was stopped before the index.
    """

    built: int
    reused: int
    samples: int
    changed: bool
    dataset_id: str | None


def buckets(keys: Sequence[str], most: int) -> dict[str, list[str]]:
    """Bits -> its keys, sorted: the shortest prefixes of the keys' bits with `most` keys or fewer.

    keys: 16 base32 characters each. The prefix of all is called `all`. So a key that comes or goes
    changes its own bucket alone, or splits or joins it.
    """
    numbered = sorted((int.from_bytes(base64.b32decode(key, casefold=True)), key) for key in keys)
    if len(set(keys)) != len(keys):
        raise ValueError("a key occurs twice")
    if most < 1:
        raise InputError(f"samples_per_shard: found {most}, wanted 1 or more")

    def split(bits: str, members: Sequence[tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
        if len(members) <= most:
            if members:
                yield bits or "all", sorted(key for _, key in members)
            return
        first_one = int(bits + "1", 2) << (_KEY_BITS - len(bits) - 1)
        middle = bisect_left(members, (first_one, ""))
        yield from split(bits + "0", members[:middle])
        yield from split(bits + "1", members[middle:])

    return dict(split("", numbered))


def build(
    samples: pa.Table,
    sample_url: str,
    out_url: str,
    samples_per_shard: int = 1000,  # design: about 1 GB a shard, which is also held in memory
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> ShardReport:
    """Makes the shards and the index of these samples; what is there already stays.

    samples: clip_id, source_id, address, name (below sample_url) and sha256, one row per sample, in
    any order. progress: told (done, total) samples; stop: asked before every sample. Raises
    InputError when a sample is missing or damaged.
    """
    rows = {row["clip_id"]: row for row in samples.to_pylist()}
    old = _old_index(out_url)
    there = set(storage.names(out_url))
    index: list[Row] = []
    built = reused = 0
    shards: list[str] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for bits, keys in buckets(samples["clip_id"].to_pylist(), samples_per_shard).items():
            members = [rows[key] for key in keys]
            shard = _shard_name(bits, members)
            shards.append(shard)
            if shard in there:
                index += old.get(shard) or _scan(out_url, shard, members)
                reused += 1
            else:
                tick = partial(_tick, progress, len(index), len(rows))
                fetched = _fetch(pool, sample_url, members)
                entries = _build_shard(fetched, out_url, shard, tick, stop)
                if entries is None:
                    return ShardReport(built, reused, len(index), built > 0, None)
                index += entries
                built += 1
            progress(len(index), len(rows))
    changed = _write_index(out_url, shards, index)
    return ShardReport(built, reused, len(index), built > 0 or changed, dataset_id(out_url))


def dataset_id(url: str) -> str:
    """The SHA-256 of the index, in hex."""
    return hashlib.sha256(index_bytes(url)).hexdigest()


def read_index(url: str) -> pa.Table:
    """The index of a shard folder. Raises InputError when there is none, or it is damaged."""
    return parse_index(url, index_bytes(url))


def _tick(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _shard_name(bits: str, members: Sequence[Row]) -> str:
    addresses = "\n".join(row["address"] for row in members)
    return f"{bits}-{hashlib.sha256(addresses.encode()).hexdigest()[:12]}.tar"


def _fetch(
    pool: ThreadPoolExecutor, sample_url: str, rows: Sequence[Row]
) -> Iterator[tuple[Row, bytes]]:
    """The samples' tars, checked, read a few ahead and in order."""
    for start in range(0, len(rows), _READERS):
        ahead = rows[start : start + _READERS]
        yield from zip(
            ahead, pool.map(lambda row: _read_packed(sample_url, row), ahead), strict=True
        )


def _read_packed(sample_url: str, row: Row) -> bytes:
    where = f"{storage.join(sample_url, row['name'])}: the sample of clip {row['clip_id']}"
    try:
        packed = storage.read(storage.join(sample_url, row["name"]))
    except FileNotFoundError as error:
        raise InputError(f"{where} is missing; build it again") from error
    if hashlib.sha256(packed).hexdigest() != row["sha256"]:
        raise InputError(
            f"{where} is damaged: its sha256 is not the one recorded; remove it and build it again"
        )
    return packed


def _build_shard(
    fetched: Iterator[tuple[Row, bytes]],
    out_url: str,
    shard: str,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> list[Row] | None:
    """Writes one shard whole. Returns its index rows, or None when stopped."""
    file = io.BytesIO()
    places: list[tuple[Row, int, int]] = []
    with tar_writer(file) as tar:
        for row, packed in fetched:
            if stop():
                return None
            start = tar.tarstream.offset
            tar.write({"__key__": row["clip_id"], **unpack(row["clip_id"], packed)})
            places.append((row, start, tar.tarstream.offset))
            progress(len(places))
    content = file.getvalue()
    storage.create(storage.join(out_url, shard), content)
    return [_index_row(row, shard, content, start, end) for row, start, end in places]


def _index_row(row: Row, shard: str, content: bytes, start: int, end: int) -> Row:
    return {
        "key": row["clip_id"],
        "clip_id": row["clip_id"],
        "source_id": row["source_id"],
        "shard": shard,
        "offset": start,
        "size": end - start,
        "sha256": hashlib.sha256(memoryview(content)[start:end]).hexdigest(),
    }


def _scan(out_url: str, shard: str, members: Sequence[Row]) -> list[Row]:
    """The index rows of a shard that a killed build finished but did not index."""
    url = storage.join(out_url, shard)
    content = storage.read(url)
    ends: dict[str, int] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for entry in tar:
                blocks = -(-entry.size // tarfile.BLOCKSIZE)
                key = entry.name.partition(".")[0]
                ends[key] = entry.offset_data + blocks * tarfile.BLOCKSIZE
    except tarfile.TarError as error:
        raise InputError(f"{url}: is damaged: {error}; remove it and build again") from error
    whole = tar_size(max(ends.values(), default=0)) == len(content)
    if not whole or list(ends) != [row["clip_id"] for row in members]:
        raise InputError(f"{url}: does not hold its samples; remove it and build again")
    starts = [0, *ends.values()]
    for row, start, end in zip(members, starts, ends.values(), strict=False):
        key = row["clip_id"]
        packed = pack(key, unpack(key, content[start:end]))
        if hashlib.sha256(packed).hexdigest() != row["sha256"]:
            raise InputError(
                f"{url}: its sample {key} is not the one recorded; remove it and build again"
            )
    return [
        _index_row(row, shard, content, start, end)
        for row, start, end in zip(members, starts, ends.values(), strict=False)
    ]


def _old_index(url: str) -> dict[str, list[Row]]:
    """The rows of the last build by shard; a missing or damaged index is simply made again."""
    if not storage.exists(storage.join(url, INDEX)):
        return {}
    try:
        rows = read_index(url).to_pylist()
    except StoreError:
        raise
    except InputError:
        return {}
    by_shard: dict[str, list[Row]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], []).append(row)
    return by_shard


def _write_index(url: str, shards: Sequence[str], rows: Sequence[Row]) -> bool:
    """False when both files are there already, to the byte."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), INDEX_SCHEMA)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    listed = "".join(f"{name}\n" for name in sorted(shards)).encode()
    changed = False
    for name, content in ((SHARD_LIST, listed), (INDEX, sink.getvalue())):
        place = storage.join(url, name)
        if not storage.exists(place) or storage.read(place) != content:
            storage.write(place, content)
            changed = True
    return changed


def index_bytes(url: str) -> bytes:
    """The index as it lies there. Raises InputError when there is none."""
    try:
        return storage.read(storage.join(url, INDEX))
    except FileNotFoundError as error:
        raise InputError(f"{url}: found no {INDEX}; build the shards first") from error


def parse_index(url: str, content: bytes) -> pa.Table:
    """Its rows. Raises InputError when it is damaged."""
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            found = file.read()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{url}: its {INDEX} is damaged; build the shards again") from error
    if not found.schema.equals(INDEX_SCHEMA):
        raise InputError(
            f"{url}: its {INDEX} has the columns {found.schema.names}, wanted "
            f"{INDEX_SCHEMA.names}; build the shards again"
        )
    return found
