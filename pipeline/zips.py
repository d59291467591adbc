"""Clips that lie in zip files, as OpenVid ships them: read where they lie, without unpacking.

A zip may be split: `OpenVid_part9_partaa` and `OpenVid_part9_partab`, one after the other, are
`OpenVid_part9.zip`. A clip is found by its name in a zip, or by what follows the last slash of it
(OpenVid's own way to unpack, `unzip -j`, drops the folders).
"""

from __future__ import annotations

import io
import logging
import os
import re
import string
import struct
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.clip import Member
from pipeline.errors import InputError
from pipeline.ranged import Ranged

_log = logging.getLogger(__name__)

_GLOB = "/*.zip"
"""How a folder or url of zips is written; a local folder that holds zips needs no such ending."""

_PIECE = re.compile(r"(?P<stem>.+)_part(?P<letters>[a-z]{2})")
_LETTERS = tuple(map("".join, product(string.ascii_lowercase, repeat=2)))
"""aa, ab, ...: how the pieces of a zip are called, in their order."""

_READERS = 8
"""Directories read at once: in an object store each takes a few requests, one after the other."""

_ENCRYPTED = 1

_UNREADABLE = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    OverflowError,  # a size of 2^64 - 1
    RuntimeError,  # a version of the format that zipfile does not know
    struct.error,
    pa.ArrowException,
)
"""What comes of a zip that is no zip, cut off, or written by somebody strange."""

_MEMBERS = pa.schema(
    {
        "name": pa.string(),
        "zip": pa.int32(),
        "offset": pa.int64(),
        "packed": pa.int64(),
        "size": pa.int64(),
        "crc": pa.int64(),
        "method": pa.int32(),
    }
)


class Piece(NamedTuple):
    """One file of a zip."""

    url: str
    size: int


@dataclass(frozen=True, slots=True)
class Zip:
    """One zip file, whole or split. name: without `.zip`; pieces: its files, in their order."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.size for piece in self.pieces)

    @property
    def file_names(self) -> list[str]:
        """The files as they are called where they lie."""
        return [piece.url.rpartition("/")[2] for piece in self.pieces]


@dataclass(frozen=True)
class Zips:
    """All zips of a folder.

    members: every file in them: name, zip (its number here), offset of its header, bytes packed and
    unpacked, crc, method (8: deflated, 0: stored, -1: encrypted).
    loose: the files that lie beside the zips; one of a clip's name is taken first.
    """

    folder: str
    zips: tuple[Zip, ...]
    members: pa.Table
    loose: tuple[str, ...]

    def find(self, videos: pa.ChunkedArray) -> np.ndarray:
        """(N,) int: the row of each clip in `members`, -1 where it is in none of the zips."""
        return find_names(videos, self.members["name"])

    def is_loose(self, videos: pa.ChunkedArray) -> np.ndarray:
        """(N,) bool: whether the clip is a file of its own, beside the zips."""
        loose = np.fromiter(map(hash, self.loose), np.int64, len(self.loose))
        return _index(_hashes(videos), loose) >= 0

    def take(self, rows: np.ndarray) -> list[Member]:
        """These rows of `members`, as what a clip's path may be."""
        return [
            Member(
                name=record["name"],
                pieces=self.zips[record["zip"]].pieces,
                offset=record["offset"],
                packed=record["packed"],
                size=record["size"],
                crc=record["crc"],
                method=record["method"],
            )
            for record in self.members.take(pa.array(rows)).to_pylist()
        ]


def open_zips(place: str) -> Zips | None:
    """The zips of a place: a folder or url that ends in `/*.zip`, or a local folder that holds any.

    None for any other place. A zip that is broken or not all there is left out, with a warning.
    InputError when the ending promises zips and there are none.
    """
    if not _is_of_zips(place):
        return None
    folder = place.removesuffix(_GLOB)
    sizes = storage.sizes(folder)
    found = find_zips(folder, sizes)
    if not found:
        raise InputError(f"{folder}: found no zips, wanted NAME.zip, or NAME_partaa, NAME_partab")
    with ThreadPoolExecutor(_READERS) as pool:
        directories = list(pool.map(_directory, found))
    tables = [
        table.append_column("zip", pa.array([number] * len(table), pa.int32())).select(
            _MEMBERS.names
        )
        for number, table in enumerate(directories)
    ]
    return Zips(folder, tuple(found), pa.concat_tables(tables), tuple(sizes))


def list_zips(place: str) -> list[Zip]:
    """The zips of a place without opening them; none where it is no place of zips."""
    folder = place.removesuffix(_GLOB)
    return find_zips(folder, storage.sizes(folder)) if _is_of_zips(place) else []


def find_zips(folder: str, sizes: Mapping[str, int]) -> list[Zip]:
    """The zips among the files of a folder, in the order of their numbers.

    sizes: bytes of each file, by its name.
    """
    found: dict[str, tuple[Piece, ...]] = {}
    split: dict[str, dict[str, Piece]] = {}
    for name in sizes:
        piece = Piece(storage.join(folder, name), sizes[name])
        letters = _PIECE.fullmatch(name)
        if "/" in name:
            continue
        if name.lower().endswith(".zip"):
            found[name[:-4]] = (piece,)
        elif letters:
            split.setdefault(letters["stem"], {})[letters["letters"]] = piece
    for stem, pieces in split.items():
        if sorted(pieces) != list(_LETTERS[: len(pieces)]):
            _log.warning("%s/%s: found only the pieces %s", folder, stem, ", ".join(sorted(pieces)))
        else:
            found.setdefault(stem, tuple(pieces[letters] for letters in sorted(pieces)))
    return [Zip(name, found[name]) for name in sorted(found, key=_by_number)]


def _by_number(name: str) -> list[tuple[int, str]]:
    """part2 before part10."""
    return [(int(word), "") if word.isdigit() else (0, word) for word in re.split(r"(\d+)", name)]


def _is_of_zips(place: str) -> bool:
    if place.endswith(_GLOB):
        return True
    path = storage.local(place)
    if path is None or not path.is_dir():
        return False
    with os.scandir(path) as entries:
        return any(e.name.lower().endswith(".zip") or _PIECE.fullmatch(e.name) for e in entries)


def _directory(found: Zip) -> pa.Table:
    """What a zip says that it holds, without the folders; nothing if it is broken."""
    try:
        size = sum(piece.size for piece in found.pieces)
        joined = Ranged(size, partial(read_pieces, found.pieces))
        with zipfile.ZipFile(io.BufferedReader(joined, 1 << 16)) as file:
            return _table([info for info in file.infolist() if not info.is_dir()])
    except _UNREADABLE as error:
        _log.warning("%s: not a whole zip, its clips are missing: %s", found.pieces[0].url, error)
        return _table([])


def _table(infos: Sequence[zipfile.ZipInfo]) -> pa.Table:
    """The members of one zip. OverflowError when one claims more than fits a number."""
    columns = {
        "name": [info.filename for info in infos],
        "offset": [info.header_offset for info in infos],
        "packed": [info.compress_size for info in infos],
        "size": [info.file_size for info in infos],
        "crc": [info.CRC for info in infos],
        "method": [-1 if info.flag_bits & _ENCRYPTED else info.compress_type for info in infos],
    }
    return pa.table(columns, pa.schema([_MEMBERS.field(name) for name in columns]))


def read_pieces(pieces: Sequence[tuple[str, int]], offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on of files one after the other; fewer where they end."""
    read = []
    for url, length in pieces:
        if size > 0 and offset < length:
            part = storage.read_range(url, offset, min(size, length - offset))
            read.append(part)
            size -= len(part)
            offset += len(part)
        offset -= length
    return b"".join(read)


def find_names(videos: pa.ChunkedArray, names: pa.ChunkedArray) -> np.ndarray:
    """(N,) where each clip stands among the names of files: as it is called, or below folders.

    Of files of the same name it is the first. Compared by their hashes, 64 bits that are others in
    every process: of a million names two are the same once in ten million runs.
    """
    clips = _hashes(videos)
    rows = _index(clips, _hashes(names))
    return np.where(rows < 0, _index(clips, _hashes(names, bare=True)), rows)


def _hashes(words: pa.ChunkedArray, bare: bool = False) -> np.ndarray:
    """(N,) int64; bare: of what follows the last slash."""
    found = [np.empty(0, np.int64)]
    for chunk in words.chunks:
        texts = chunk.to_pylist()
        if bare:
            texts = [text.rpartition("/")[2] for text in texts]
        found.append(np.fromiter(map(hash, texts), np.int64, len(texts)))
    return np.concatenate(found)


def _index(wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(N,) the first place of each hash in `there`, -1 where it is not."""
    if len(there) == 0:
        return np.full(len(wanted), -1)
    order = np.argsort(there, kind="stable")
    at = np.minimum(np.searchsorted(there, wanted, sorter=order), len(there) - 1)
    return np.where(there[order[at]] == wanted, order[at], -1)
