"""Whether a folder of shards is what its index says, and what in it the index does not name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline import storage
from pipeline.errors import InputError, StoreError
from pipeline.sample_tar import tar_size, unpack
from pipeline.shard_reader import read_sample
from pipeline.shards import INDEX, SHARD_LIST, Row, read_index


@dataclass(frozen=True, slots=True)
class Pruned:
    """shards: names of those that the index does not name; size: their bytes together."""

    shards: tuple[str, ...]
    size: int


class Problem(NamedTuple):
    """A file of the folder, and what is wrong with it."""

    file: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: {self.found}"


def verify(url: str, tick: Callable[[int], None] = lambda done: None) -> list[Problem]:
    """What is wrong; [] when every byte is as the index says. tick: told of every sample.

    Raises InputError when there is no index, or it is damaged.
    """
    rows = read_index(url).to_pylist()
    by_shard: dict[str, list[Row]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], []).append(row)
    there = set(storage.names(url))
    problems = [
        Problem(INDEX, f"has {count} rows of sample {key}")
        for key, count in Counter(row["key"] for row in rows).items()
        if count > 1
    ]
    problems += _list_problems(url, there, sorted(by_shard))
    for shard, members in by_shard.items():
        if shard in there:
            problems += _shard_problems(url, shard, members)
        else:
            problems.append(Problem(shard, f"is missing, and {len(members)} samples with it"))
        tick(len(members))
    return problems


def prune(url: str, dry_run: bool = False) -> Pruned:
    """Deletes the shards that the index does not name; dry_run only finds them.

    A reader that opened an older index loses its samples. Raises InputError when there is no index.
    """
    named = set(read_index(url)["shard"].to_pylist())
    loose = [name for name in storage.names(url) if name.endswith(".tar") and name not in named]
    size = sum(storage.size(storage.join(url, name)) for name in loose)
    if not dry_run:
        for name in loose:
            storage.remove(storage.join(url, name))
    return Pruned(tuple(loose), size)


def _list_problems(url: str, there: set[str], shards: Sequence[str]) -> list[Problem]:
    if SHARD_LIST not in there:
        return [Problem(SHARD_LIST, "is missing")]
    listed = storage.read(storage.join(url, SHARD_LIST)).decode("utf-8", "replace").split()
    if listed == list(shards):
        return []
    return [Problem(SHARD_LIST, "names other shards than the index")]


def _shard_problems(url: str, shard: str, rows: Sequence[Row]) -> list[Problem]:
    problems: list[Problem] = []
    end = 0
    for row in sorted(rows, key=lambda row: row["offset"]):
        if row["offset"] != end:
            problems.append(
                Problem(shard, f"sample {row['key']} begins at {row['offset']}, wanted {end}")
            )
        end = row["offset"] + row["size"]
        try:
            unpack(row["key"], read_sample(url, row))
        except StoreError:
            raise
        except InputError as error:
            place = storage.join(url, shard)
            problems.append(Problem(shard, str(error).removeprefix(f"{place}: ")))
    found = storage.size(storage.join(url, shard))
    if found != tar_size(end):
        problems.append(Problem(shard, f"has {found} bytes, wanted {tar_size(end)}"))
    elif any(storage.read_range(storage.join(url, shard), end, found - end)):
        problems.append(Problem(shard, "holds bytes behind its last sample"))
    return problems
