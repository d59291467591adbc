"""One sample as an uncompressed tar: what a worker writes and a shard holds."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from webdataset.writer import TarWriter

MEMBERS = ("json", "mask.png", "mp4", "reference.png")
"""The files of a sample, each `<key>.<member>`."""
LATENTS = ("safetensors",)
"""The file of a sample that was encoded for training."""


def tar_writer(file: io.BytesIO) -> TarWriter:
    """Writes samples as webdataset does, without anything of this machine or hour."""
    # Imported here: it brings torch along where that is installed, seconds for every command.
    from webdataset.writer import TarWriter

    return TarWriter(file, user="", group="", mode=0o644, compress=False, encoder=False, mtime=0)


def tar_size(end: int) -> int:
    """Bytes of a tar whose last member ends at `end`: two zero blocks, filled to a record."""
    return -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def pack(key: str, members: Mapping[str, bytes]) -> bytes:
    """One sample as an uncompressed tar; the same members make the same bytes."""
    file = io.BytesIO()
    with tar_writer(file) as tar:
        tar.write({"__key__": key, **members})
    return file.getvalue()


def unpack(key: str, packed: bytes) -> dict[str, bytes]:
    """The members of a sample, encoded or not: a whole tar, or its byte range of a shard.

    Raises InputError when a member is damaged, missing or another sample's.
    """
    return {name: bytes(content) for name, content in views(key, packed).items()}


def views(key: str, packed: bytes) -> dict[str, memoryview]:
    """The same where it lies in `packed`: latents are megabytes, and are copied soon enough."""
    members: dict[str, memoryview] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            for entry in tar:
                end = entry.offset_data + entry.size
                if end > len(packed):
                    raise tarfile.ReadError("unexpected end of data")
                members[entry.name] = memoryview(packed)[entry.offset_data : end]
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"sample {key}: its tar is damaged: {error}") from error
    wanted = [f"{key}.{member}" for member in MEMBERS]
    encoded = [f"{key}.{member}" for member in LATENTS]
    if sorted(members) not in (wanted, encoded):
        raise InputError(f"sample {key}: found members {sorted(members)}, wanted {wanted}")
    return {name.removeprefix(f"{key}."): content for name, content in members.items()}
