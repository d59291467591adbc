"""The bytes of a clip as a local file, which is what decoders open.

What lies in a zip or in an object store becomes an anonymous memory file: nothing is unpacked onto
a disk, and the kernel frees it with its last holder, however that one died.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

from pipeline import storage
from pipeline.clip import Location, Member
from pipeline.container import DecodeError
from pipeline.zips import read_pieces

MAX_BYTES = 2 << 30
"""A larger clip is not taken into memory; ours: a worker holds 8 GiB, OpenVid's clips are 5 MB."""

_CHUNK = 16 << 20
"""Bytes asked for at once: few requests to an object store, little memory; ours."""

_HEADER = 30
"""Bytes of a zip's local header before the name; two of its lengths stand at 26 and 28."""

_STORED, _DEFLATED = 0, 8


@contextmanager
def local_file(location: Location) -> Iterator[str]:
    """A path that any process of this machine can open while the block runs.

    Raises DecodeError: missing, empty, unreadable (a damaged zip, a checksum that is wrong),
    unreachable (an object store refused), too_large.
    """
    path = storage.local(location) if isinstance(location, str) else None
    if path is not None:
        yield str(path)
        return
    with os.fdopen(os.memfd_create("clip"), "wb") as file:
        try:
            _unpack(location, file) if isinstance(location, Member) else _fetch(location, file)
        except FileNotFoundError as error:
            raise DecodeError("missing", "no such file") from error
        except OSError as error:
            raise DecodeError("unreachable", f"cannot be fetched: {_one_line(error)}") from error
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def size_and_time(location: Location) -> tuple[int, float | None]:
    """Bytes of the clip, and when it, or the zip that it lies in, was last changed (1970 = 0)."""
    if isinstance(location, Member):
        return location.size, _modified(location.pieces[0][0])
    return storage.size(location), storage.modified(location)


@lru_cache(maxsize=1_000)
def _modified(url: str) -> float | None:
    """Of a zip, which holds thousands of clips."""
    return storage.modified(url)


def _fetch(url: str, file: BinaryIO) -> None:
    size = storage.size(url)
    if size == 0:
        raise DecodeError("empty", "the file has 0 bytes")
    _check_size(size)
    for offset in range(0, size, _CHUNK):
        file.write(storage.read_range(url, offset, min(_CHUNK, size - offset)))


def _unpack(member: Member, file: BinaryIO) -> None:
    if member.size == 0:
        raise DecodeError("empty", "the file has 0 bytes")
    if member.method not in (_STORED, _DEFLATED):
        raise DecodeError("unreadable", f"packed in the zip by method {member.method}, wanted 0, 8")
    _check_size(member.size)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == _DEFLATED else None
    size, crc = 0, 0
    try:
        for packed in _packed(member):
            part = inflater.decompress(packed, member.size + 1 - size) if inflater else packed
            size, crc = size + len(part), zlib.crc32(part, crc)
            file.write(part)
            if size > member.size:
                break
    except zlib.error as error:
        raise DecodeError("unreadable", f"damaged in the zip: {_one_line(error)}") from error
    if (size, crc) != (member.size, member.crc):
        found = f"{size} bytes" if size != member.size else "another checksum"
        raise DecodeError("unreadable", f"damaged in the zip: {found}, wanted {member.size} bytes")


def _packed(member: Member) -> Iterator[bytes]:
    """The packed bytes, piece by piece; the local header says where they begin."""
    header = read_pieces(member.pieces, member.offset, _HEADER)
    if header[:4] != b"PK\x03\x04" or len(header) < _HEADER:
        raise DecodeError("unreadable", "the zip has changed: there is no header where one was")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    start = member.offset + _HEADER + name + extra
    for offset in range(0, member.packed, _CHUNK):
        yield read_pieces(member.pieces, start + offset, min(_CHUNK, member.packed - offset))


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise DecodeError("too_large", f"{size >> 20} MiB, at most {MAX_BYTES >> 20} are read")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
