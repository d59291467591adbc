"""One file of the ledger: how it is called, read and written.

`part-<time>-<random>.parquet` holds outcomes in the order in which they came. `merged-...` holds
the rows of several parts one after the other; its metadata says whose rows they are, so that the
order in which they came is not lost. No file is ever changed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import InputError

PART, MERGED, SUFFIX = "part-", "merged-", ".parquet"
_TIME = "%Y%m%dT%H%M%S.%fZ"
_MAGIC = b"PAR1"  # how a Parquet file begins
_MADE_OF, _MADE_OF_SHA256 = b"made_of", b"made_of_sha256"
_TORN = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What Arrow raises of a file that is no whole one."""


class DamagedError(Exception):
    """The file is no whole Parquet file."""


class Piece(NamedTuple):
    """The rows of one part: its name, and how many they are."""

    part: str
    rows: int


@dataclass(frozen=True, slots=True)
class Contents:
    """Of one file: the rows of its parts, one part after the other.

    replaces: the files that need not be read beside it.
    """

    pieces: tuple[Piece, ...]
    replaces: frozenset[str]
    table: pa.Table

    def by_part(self) -> Iterator[tuple[str, pa.Table]]:
        """The rows of every part."""
        start = 0
        for piece in self.pieces:
            yield piece.part, self.table.slice(start, piece.rows)
            start += piece.rows


def is_part(name: str) -> bool:
    """Whether it holds outcomes as they came."""
    return name.startswith(PART) and name.endswith(SUFFIX)


def is_merged(name: str) -> bool:
    """Whether it stands for several parts."""
    return name.startswith(MERGED) and name.endswith(SUFFIX)


def order(name: str) -> str:
    """What files are ordered by: the time in their name, then the random part."""
    return name.partition("-")[2]


def new_name(kind: str, behind: str) -> str:
    """A name that stands behind this `order`, also where this machine's clock is slow."""
    time, latest = datetime.now(UTC), time_of(kind + behind)
    if latest is not None and time <= latest:
        time = latest + timedelta(microseconds=1)
    return f"{kind}{time.strftime(_TIME)}-{secrets.token_hex(4)}{SUFFIX}"


def time_of(name: str) -> datetime | None:
    """When a file was written, as its name says."""
    try:
        return datetime.strptime(name.split("-")[1], _TIME).replace(tzinfo=UTC)
    except (IndexError, ValueError):
        return None


def read(url: str, wanted: pa.Schema, names: Sequence[str]) -> Contents:
    """These columns of a file, checked.

    Raises DamagedError, FileNotFoundError, and InputError when its columns are not the wanted ones.
    """
    path = storage.local(url)
    source = pa.BufferReader(storage.read(url)) if path is None else path
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            found = file.schema_arrow.remove_metadata()
            about = file.metadata.metadata
            table = None
            if found.equals(wanted):
                table = file.read(columns=list(names), use_threads=False)
    except _TORN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of what is on it
        raise DamagedError(str(error)) from error
    if table is None:
        raise InputError(
            f"{url}: {_difference(found, wanted)}; raise the version of stage "
            f"{url.split('/')[-3]}, or move this part away"
        )
    pieces, replaces = _made_of(url, about or {}, table.num_rows)
    return Contents(pieces, replaces, table.replace_schema_metadata().select(names))


def made_of(url: str) -> tuple[tuple[Piece, ...], frozenset[str]]:
    """What `read` says of its pieces and of what it replaces, from the end of the file alone.

    Raises DamagedError, FileNotFoundError.
    """
    size = storage.size(url)
    length = int.from_bytes(storage.read_range(url, max(size - 8, 0), 8)[:4], "little")
    start = max(size - 8 - length, 0)
    footer = storage.read_range(url, start, size - start)
    try:
        found = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
    except _TORN as error:
        raise DamagedError(str(error)) from error
    return _made_of(url, found.metadata or {}, found.num_rows)


def part_bytes(table: pa.Table, about: Mapping[str, str]) -> bytes:
    """A part, finished; its pages carry checksums."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(dict(about)), sink, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


class MergedWriter:
    """A merged file, piece by piece in memory; about: the metadata of its parts."""

    def __init__(self, schema: pa.Schema, about: Mapping[str, str], rows_at_once: int) -> None:
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink, schema.with_metadata(dict(about)), write_page_checksum=True
        )
        self._rows_at_once = rows_at_once
        self._waiting: list[pa.Table] = []
        self._pieces: list[Piece] = []

    def add(self, part: str, rows: pa.Table) -> None:
        """The rows of one part."""
        self._pieces.append(Piece(part, len(rows)))
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._rows_at_once:
            self._flush()

    def finish(self, replaces: Iterable[str]) -> bytes:
        """The file, which stands for these."""
        self._flush()
        made_of = json.dumps({"pieces": self._pieces, "replaces": sorted(replaces)})
        digest = hashlib.sha256(made_of.encode()).hexdigest()
        self._writer.add_key_value_metadata(
            {_MADE_OF.decode(): made_of, _MADE_OF_SHA256.decode(): digest}
        )
        self._writer.close()
        return self._sink.getvalue().to_pybytes()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def _made_of(
    url: str, metadata: Mapping[bytes, bytes], rows: int
) -> tuple[tuple[Piece, ...], frozenset[str]]:
    name = url.rpartition("/")[2]
    if is_part(name):
        return (Piece(name, rows),), frozenset()
    # Checked by itself: Parquet has checksums of its pages, and none of its metadata.
    made_of = metadata.get(_MADE_OF, b"")
    if hashlib.sha256(made_of).hexdigest().encode() != metadata.get(_MADE_OF_SHA256):
        raise DamagedError("what it says of its parts is damaged")
    said = json.loads(made_of)
    pieces = tuple(Piece(*piece) for piece in said["pieces"])
    if sum(piece.rows for piece in pieces) != rows:
        raise DamagedError(f"found {rows} rows, wanted {sum(piece.rows for piece in pieces)}")
    return pieces, frozenset(said["replaces"])


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    """In words, what tells two schemas apart."""
    extra = [str(f) for f in found if f not in wanted]
    missing = [str(f) for f in wanted if f not in found]
    if not extra and not missing:
        return f"found the columns in the order {found.names}, wanted {wanted.names}"
    return f"found column {', '.join(extra) or 'none'}, wanted {', '.join(missing) or 'none'}"
