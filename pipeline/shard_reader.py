"""The samples of a dataset, each read alone: the index says which bytes of which shard it is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from pipeline import storage
from pipeline.errors import InputError, StoreError
from pipeline.sample_tar import unpack, views
from pipeline.shards import Row, index_bytes, parse_index

_WAITS_S = (0.1, 0.5, 2.0)
"""Before a read that failed is tried again: what a store's short failure takes (ours)."""


class ShardReader:
    """The samples of the dataset that the index named when this was opened.

    A later build does not disturb it: old shards stay until they are pruned. Threads may read at
    once.
    """

    def __init__(self, url: str) -> None:
        """url: a folder of shards."""
        content = index_bytes(url)
        self.url = url
        self.dataset_id = hashlib.sha256(content).hexdigest()
        self.index = parse_index(url, content)

    def __len__(self) -> int:
        """How many samples."""
        return self.index.num_rows

    def __getitem__(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and members of one sample, read alone. Raises InputError when it is damaged."""
        row = self._row(number)
        return row["key"], unpack(row["key"], read_sample(self.url, row))

    def views(self, number: int) -> tuple[str, dict[str, memoryview]]:
        """The same without a copy of its bytes."""
        row = self._row(number)
        return row["key"], views(row["key"], read_sample(self.url, row))

    def _row(self, number: int) -> Row:
        return {name: self.index[name][number].as_py() for name in self.index.column_names}

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """All of them, in the order of the index."""
        return (self[number] for number in range(len(self)))


def read_sample(url: str, row: Row) -> bytes:
    """The tar of the sample of one index row, checked.

    Raises InputError when it is missing, damaged, or cannot be read after some tries.
    """
    shard = storage.join(url, row["shard"])
    where = f"{shard}: sample {row['key']}"
    try:
        packed = _read_range(shard, row["offset"], row["size"])
    except FileNotFoundError as error:
        raise InputError(f"{where}: the shard is missing; build the shards again") from error
    except StoreError:
        raise
    except OSError as error:
        raise InputError(
            f"{where}: cannot be read, {1 + len(_WAITS_S)} times in a row: "
            f"{str(error) or type(error).__name__}; see to the disk or the store, and start again"
        ) from error
    if hashlib.sha256(packed).hexdigest() != row["sha256"]:
        raise InputError(
            f"{where}: found {len(packed)} bytes of another sha256, wanted the {row['size']} that "
            "the index names; remove the shard and build again"
        )
    return packed


def _read_range(url: str, offset: int, size: int) -> bytes:
    """One request. A store that does not answer for a moment is asked again."""
    for wait_s in _WAITS_S:
        try:
            return storage.read_range(url, offset, size)
        except (FileNotFoundError, StoreError):  # a StoreError has been tried often enough
            raise
        except OSError:
            time.sleep(wait_s)
    return storage.read_range(url, offset, size)
