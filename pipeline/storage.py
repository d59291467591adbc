"""Files here and in object stores: whole ones, finished before they are seen.

A url is a local path, or anything with `://` in it, which fsspec opens (`s3://`: pipeline/s3.py).
Local bytes go to a hidden file of the same folder, to the disk, and then under their name; an
object store gets one PUT of finished bytes (an exception inside an open handle would commit a
truncated object). What a person can mend is an InputError everywhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from pipeline.errors import InputError

_LEFTOVER = ".tmp-"
"""How the hidden files begin; one that is left over was being written when its writer died."""

_S3 = ("s3://", "s3a://")

_REFUSED = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOTDIR: "a file is in the place of a folder",
    errno.EEXIST: "a file is in the place of a folder",
    errno.ENOENT: "there is no such place",
    errno.EFBIG: "the file is larger than allowed here",
    errno.EISDIR: "a folder is in the place of the file",
    errno.ENAMETOOLONG: "the name is too long",
}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def local(url: str) -> Path | None:
    """The path of a local url; None when it lies in an object store."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    return None if "://" in url else Path(url)


def join(base: str, *parts: str) -> str:
    """A url below another one."""
    folder = base if base.endswith("/") or not base else f"{base}/"
    return folder + "/".join(parts)


def write(url: str, data: bytes | mmap) -> None:
    """Puts a whole file in place at once, over an older one."""
    with _explained(url, len(data)):
        path = local(url)
        if path is None:
            fs, key = _remote(url)
            fs.pipe_file(key, data)
            return
        with _finished(path, data) as finished:
            finished.replace(path)


def create(url: str, data: bytes) -> bool:
    """Puts a whole file in place unless it is there: then nothing is touched and this is False."""
    with _explained(url, len(data)):
        path = local(url)
        if path is None:
            fs, key = _remote(url)
            try:
                fs.pipe_file(key, data, mode="create")
            except FileExistsError:
                return False
            return True
        if path.exists():
            return False
        with _finished(path, data) as finished:
            return _link(finished, path)


def read(url: str) -> bytes:
    """The whole file. FileNotFoundError when it is not there."""
    path = local(url)
    if path is not None:
        return path.read_bytes()
    fs, key = _remote(url)
    return fs.cat_file(key)


def read_range(url: str, offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on, fewer at the end. FileNotFoundError when it is not there."""
    path = local(url)
    if path is None:
        fs, key = _remote(url)
        return fs.cat_file(key, start=offset, end=offset + size)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def open_binary(url: str) -> BinaryIO:
    """The file to read from bit by bit. FileNotFoundError when it is not there."""
    path = local(url)
    if path is not None:
        return path.open("rb")
    fs, key = _remote(url)
    return fs.open(key, "rb")


def exists(url: str) -> bool:
    """Whether a file or folder is there."""
    path = local(url)
    if path is not None:
        return path.exists()
    fs, key = _remote(url)
    return fs.exists(key)


def size(url: str) -> int:
    """Bytes of a file. FileNotFoundError when it is not there."""
    path = local(url)
    if path is not None:
        return path.stat().st_size
    fs, key = _remote(url)
    return int(fs.info(key)["size"])


def modified(url: str) -> float | None:
    """Seconds since 1970; None where the store does not say."""
    path = local(url)
    if path is not None:
        return path.stat().st_mtime
    fs, key = _remote(url)
    with suppress(NotImplementedError):
        return fs.modified(key).timestamp()
    return None


def state(url: str) -> str:
    """A word that is another one as soon as the file is: of its size and time, or its ETag."""
    path = local(url)
    if path is not None:
        stat = path.stat()
        return f"{stat.st_size} bytes, {stat.st_mtime_ns} ns, inode {stat.st_ino}"
    fs, key = _remote(url)
    return str(fs.ukey(key))


def names(url: str) -> list[str]:
    """What lies in a folder, sorted; [] when there is none. Unfinished files are left out."""
    path = local(url)
    try:
        if path is not None:
            found = [entry.name for entry in path.iterdir()]
        else:
            fs, key = _remote(url)
            found = [entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(key, detail=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if name and not name.startswith(_LEFTOVER))


def files(url: str) -> list[str]:
    """Every file below a folder, by its name relative to it, sorted; [] when there is none."""
    path = local(url)
    if path is not None:
        found = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    else:
        fs, key = _remote(url)
        found = [name.removeprefix(key).lstrip("/") for name in fs.find(key)]
    return sorted(name for name in found if not name.rpartition("/")[2].startswith(_LEFTOVER))


def sizes(url: str) -> dict[str, int]:
    """Every file below a folder and its bytes, by its name relative to it, sorted."""
    path = local(url)
    if path is not None:
        there: dict[str, int] = {}
        for name in files(url):
            with suppress(FileNotFoundError):  # removed just now
                there[name] = (path / name).stat().st_size
        return there
    fs, key = _remote(url)
    found = fs.find(key, detail=True)
    return {
        name.removeprefix(key).lstrip("/"): int(found[name]["size"] or 0) for name in sorted(found)
    }


def remove(url: str) -> None:
    """Deletes a file; one that is not there is no error."""
    with suppress(FileNotFoundError):
        path = local(url)
        if path is not None:
            path.unlink()
        else:
            fs, key = _remote(url)
            fs.rm_file(key)


def clear_uploads(url: str, older_s: float) -> int:
    """Takes away what killed writers of large objects left below a folder; returns how many.

    A store shows these parts to nobody and charges for them. older_s: begun so long ago, so that no
    writer that still works loses its own.
    """
    if not url.startswith(_S3):
        return 0
    fs, key = _remote(url)
    return fs.clear_uploads(key, older_s)


def _remote(url: str) -> tuple[Any, str]:
    """The file system of a url and the key in it; listings are never remembered."""
    protocol, _, key = url.partition("://")
    if "@" in key.partition("/")[0]:
        raise InputError(
            f"{protocol}://...@{key.partition('/')[0].rpartition('@')[2]}: found credentials in a "
            "url, where logs would show them; leave them out and set the environment's (docs: "
            "On an object store)"
        )
    if url.startswith(_S3):
        return _s3_store(url), key.rstrip("/")
    try:
        fs, key = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: cannot be opened: {error}") from error
    fs.invalidate_cache()
    return fs, key


def _s3_store(url: str) -> Any:
    """The one of this process; s3fs is imported when the first such url is met."""
    try:
        from pipeline.s3 import store_of
    except ImportError as error:
        raise InputError(f"{url}: {error}; install s3fs") from error
    return store_of(os.getpid())


@contextmanager
def _finished(path: Path, data: bytes | mmap) -> Iterator[Path]:
    """A hidden file beside `path` whose bytes are on the disk; gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f"{_LEFTOVER}{secrets.token_hex(8)}")
    try:
        with hidden.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield hidden
    finally:
        hidden.unlink(missing_ok=True)


def _link(finished: Path, path: Path) -> bool:
    """Gives finished bytes their name, if nothing has it."""
    try:
        path.hardlink_to(finished)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without links two writers may both win. What is created is named by its contents or a
        # lease, so this costs work only; the file is whole in any case.
        if path.exists():
            return False
        finished.replace(path)
    return True


@contextmanager
def _explained(url: str, num_bytes: int) -> Iterator[None]:
    """Turns what a user can mend (a full disk, a read-only folder) into one line."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        reason = _REFUSED.get(error.errno or 0)
        if isinstance(error, PermissionError):
            reason = "no permission"
        if reason is None:
            raise
        if error.errno == errno.ENOSPC:
            reason += _room(url)
        raise InputError(
            f"{url}: cannot be written ({num_bytes} bytes): {reason}; "
            "make room or name another output"
        ) from error


def _room(url: str) -> str:
    """What is left on a local disk, in words."""
    path = local(url)
    while path is not None and not path.exists() and path != path.parent:
        path = path.parent
    return "" if path is None else f", {shutil.disk_usage(path).free} bytes are free"
