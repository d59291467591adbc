"""Where the weights of a network lie: a folder or file here, or a copy that was fetched ahead.

Workers never download: a job looks before it starts them, and `python -m jobs.weights` fetches.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import InputError

ONE_FILE: tuple[str, ...] = ()
"""For `Weights.files`: the name is that of a single file, here or at an address."""

_TIMEOUT_S = 60.0
"""Without a byte for so long, a server is taken for dead (ours)."""
_END_BYTES = 1 << 20
_DIGEST = re.compile(r"-([0-9a-f]{8,})\.[a-z]+$")
"""How names end that torch.hub keeps files under: with their SHA-256."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What one network is loaded from.

    name: a folder or a file here, the https (or http) address of one file, or a model of the hub;
    setting: the key of the run file that names it; revision: of the hub, "" its newest; files:
    patterns of what is wanted of a folder; needed: patterns of which each must be met by one of
    these files, "a|b": one of the two.
    """

    name: str
    setting: str
    revision: str = ""
    files: tuple[str, ...] = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
    needed: tuple[str, ...] = ("*.safetensors",)


def find(weights: Weights) -> Path:
    """The folder or file, without asking any network.

    Raises InputError when it is not here, or not whole: a fetch was broken off half way, or a
    folder holds something else.
    """
    if _is_address(weights.name):
        if not (place := _cached(weights.name)).exists():
            raise _not_here(weights)
    elif _is_of_the_hub(weights):
        try:
            place = Path(_snapshot(weights, local_only=True))
        except OSError as error:
            raise _not_here(weights) from error
        if not any(_wanted(place, weights)):
            raise _not_here(weights)
    else:
        place = _here(weights)
    if lacking := next(_lacking(place, weights), None):
        raise InputError(
            f"{weights.setting}: found no {lacking} in {place}, wanted '{weights.name}' whole; "
            "fetch it again"
        )
    return place


def fetch(weights: Weights) -> Path:
    """The same, downloaded where it is not here yet. Raises InputError when it cannot be had."""
    try:
        if _is_address(weights.name):
            _download(weights.name)
        elif _is_of_the_hub(weights):
            _snapshot(weights, local_only=False)
    except OSError as error:  # of the network, of the hub, of the disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{weights.setting}: '{weights.name}' cannot be fetched ({reason}); wanted a model of "
            "the hub, an address, or a file or folder here"
        ) from error
    return find(weights)


def identity(weights: Weights) -> str:
    """Which weights the name stands for here and now: of the hub the commit, else 40 hex digits.

    These are of a SHA-256 over each file's name, size, first and last MB: enough to tell trainings
    apart, and read in no time. Raises InputError as `find` does.
    """
    place = find(weights)
    if _is_of_the_hub(weights):
        return place.name
    digest = hashlib.sha256()
    for file in [place] if place.is_file() else sorted(_wanted(place, weights)):
        name = file.name if place.is_file() else file.relative_to(place).as_posix()
        digest.update(f"{name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(_END_BYTES))
            content.seek(max(0, file.stat().st_size - _END_BYTES))
            digest.update(content.read(_END_BYTES))
    return digest.hexdigest()[:40]


def size_bytes(place: Path, weights: Weights) -> int:
    """What it takes on disk, of what is wanted."""
    files = [place] if place.is_file() else _wanted(place, weights)
    return sum(file.stat().st_size for file in files)


def is_path(name: str) -> bool:
    """Whether it names a place here: a hub name has one slash at most, and nothing lies there."""
    return name.startswith(("/", "./", "../", "~")) or (
        not _is_address(name) and (Path(name).exists() or name.count("/") > 1)
    )


def _is_of_the_hub(weights: Weights) -> bool:
    single = weights.files == ONE_FILE
    return not (single or _is_address(weights.name) or is_path(weights.name))


def _here(weights: Weights) -> Path:
    """What the name says, where it is a place on this machine."""
    place, single = Path(weights.name).expanduser(), weights.files == ONE_FILE
    kind = "a file there, or its address" if single else "a folder there, or a model of the hub"
    if not weights.name or not place.exists():
        raise InputError(f"{weights.setting}: found nothing at '{weights.name}'; wanted {kind}")
    if single and place.is_dir():
        raise InputError(f"{weights.setting}: found the folder '{weights.name}'; wanted {kind}")
    return place


def _is_address(name: str) -> bool:
    return name.startswith(("https://", "http://"))


def _snapshot(weights: Weights, local_only: bool) -> str:
    """The hub's cache lists what a model is made of, so that half of one is not taken for it."""
    import httpx2  # here, for every host imports this file for its `Weights` alone
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return snapshot_download(
            weights.name,
            revision=weights.revision or None,
            allow_patterns=list(weights.files),
            local_files_only=local_only,
        )
    except (HFValidationError, httpx2.HTTPError) as error:
        raise OSError(str(error)) from error


def _wanted(folder: Path, weights: Weights) -> Iterator[Path]:
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and any(fnmatch(name, pattern) for pattern in weights.files):
            yield file


def _lacking(place: Path, weights: Weights) -> Iterator[str]:
    """What is needed and not there, and shards that an index names: folders keep no list."""
    if place.is_file():
        return
    files = list(_wanted(place, weights))
    names = [file.relative_to(place).as_posix() for file in files]
    for either in weights.needed:
        if not any(fnmatch(name, pattern) for name in names for pattern in either.split("|")):
            yield either.replace("|", " or ")
    for index in files:
        if index.name.endswith(".safetensors.index.json"):
            shards = set(json.loads(index.read_text())["weight_map"].values())
            yield from (shard for shard in sorted(shards) if not (index.parent / shard).exists())


def _cached(address: str) -> Path:
    """Where torch.hub keeps what it downloads, so that both find it.

    Under torch.hub's name where that ends with a hash; another name may be that of many files, so
    a hash of the address stands before it.
    """
    home = os.environ.get("TORCH_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "torch"
    )
    name = urlsplit(address).path.rpartition("/")[2]
    if not _DIGEST.search(name):
        name = f"{hashlib.sha256(address.encode()).hexdigest()[:8]}-{name}"
    return Path(home, "hub", "checkpoints", name)


def _download(address: str) -> None:
    """Under its name only when it is whole."""
    import urllib.request

    from tqdm import tqdm

    file = _cached(address)
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer, part.open("wb") as to:
            length = int(answer.headers.get("Content-Length", 0))
            with tqdm.wrapattr(answer, "read", length or None, desc=file.name) as counted:
                shutil.copyfileobj(counted, to, 1 << 20)
        _check_whole(part, file.name, length)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _check_whole(part: Path, name: str, length: int) -> None:
    """By its length, and by the hash that torchvision's names end with."""
    found = part.stat().st_size
    if length and found != length:
        raise OSError(f"{found} of {length} bytes came")
    if digest := _DIGEST.search(name):
        with part.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        if not sha256.startswith(digest[1]):
            raise OSError(f"its SHA-256 begins with {sha256[:8]}, its name says {digest[1]}")


def _not_here(weights: Weights) -> InputError:
    revision = f" at revision {weights.revision}" if weights.revision else ""
    return InputError(
        f"{weights.setting}: the weights '{weights.name}'{revision} are not on this machine; run "
        "python -m jobs.weights with this run file first, or name a folder"
    )
