"""Where the weights of a network lie: a folder or file here, or a copy that was fetched ahead.

Workers never download: a job looks before it starts them, and `python -m jobs.weights` fetches.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from pipeline.errors import InputError


@dataclass(frozen=True, slots=True)
class Weights:
    """What one network is loaded from.

    name: a folder or a file here, an https address of one file, or a model of the hub; setting: the
    key of the run file that names it; revision: of the hub, "" its newest; files: patterns of what
    is wanted of a model of the hub.
    """

    name: str
    setting: str
    revision: str = ""
    files: tuple[str, ...] = ("*.json", "*.safetensors", "*.txt", "*.model")


def find(weights: Weights) -> Path:
    """The folder or file, without asking any network. Raises InputError when it is not here."""
    if _is_path(weights.name):
        place = Path(weights.name).expanduser()
        if place.exists():
            return place
        raise InputError(
            f"{weights.setting}: found nothing at '{weights.name}'; wanted a file or folder there, "
            "or the name of a model on the hub"
        )
    if _is_address(weights.name):
        if (file := _cached(weights.name)).exists():
            return file
        raise _not_here(weights)
    try:
        return Path(_snapshot(weights, local_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError) as error:
        raise _not_here(weights) from error


def fetch(weights: Weights) -> Path:
    """The same, downloaded where it is not here yet. Raises InputError when it cannot be had."""
    if _is_path(weights.name):
        return find(weights)
    try:
        if _is_address(weights.name):
            return _download(weights.name)
        return Path(_snapshot(weights, local_only=False))
    except (
        LocalEntryNotFoundError,
        HFValidationError,
        HfHubHTTPError,
        urllib.error.URLError,
        OSError,
        ValueError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{weights.setting}: '{weights.name}' cannot be fetched ({reason}); wanted a model of "
            "the hub, an https address, or a file or folder here"
        ) from error


def _is_path(name: str) -> bool:
    """A hub name has one slash at most, and nothing of its name lies here."""
    return name.startswith(("/", "./", "../", "~")) or (
        not _is_address(name) and (Path(name).exists() or name.count("/") > 1)
    )


def _is_address(name: str) -> bool:
    return name.startswith("https://")


def _snapshot(weights: Weights, local_only: bool) -> str:
    return snapshot_download(
        weights.name,
        revision=weights.revision or None,
        allow_patterns=list(weights.files),
        local_files_only=local_only,
    )


def _cached(address: str) -> Path:
    """Where torch.hub keeps what it downloads, so that both find it."""
    home = os.environ.get("TORCH_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "torch"
    )
    return Path(home, "hub", "checkpoints", address.rpartition("/")[2])


def _download(address: str) -> Path:
    """Under its name only when it is whole."""
    file = _cached(address)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            urllib.request.urlretrieve(address, part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    return file


def _not_here(weights: Weights) -> InputError:
    revision = f" at revision {weights.revision}" if weights.revision else ""
    return InputError(
        f"{weights.setting}: the weights '{weights.name}'{revision} are not on this machine; run "
        "python -m jobs.weights with this run file first, or name a folder"
    )
