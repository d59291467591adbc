"""Checkpoints of one run: whole or not there, and only for the run that wrote them.

A folder `step-<number>` holds the weights, `optimizer.safetensors` and, written last before the
folder gets its name, `state.json`. All files of checkpoints are touched here, and in an object
store in training/stored.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline import storage
from pipeline.errors import InputError
from training.stored import FOLDER, STATE, Stored, name_of, step_of

_UNFINISHED = ".tmp-"
_OPTIMIZER = "optimizer.safetensors"
_DAMAGED = "remove this folder, and the run goes on from the one before it"


class Weights(Protocol):
    """What is trained, as files in a folder."""

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stood. step: optimizer steps done; samples: trained on, so the next position.

    constants: numbers that must not move during a run. settings: dotted key -> value of all that
    its numbers depend on. files: the SHA-256 of everything beside it, by name.
    """

    step: int
    samples: int
    constants: Mapping[str, float]
    settings: Mapping[str, Any]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Checkpoints:
    """The checkpoints below one folder of the local disk.

    The last `keep` are kept, and those of which `forever` says so by their step.
    """

    def __init__(
        self, folder: Path, keep: int, forever: Callable[[int], bool] = lambda step: False
    ) -> None:
        self.folder = folder
        self._keep, self._forever = keep, forever

    def save(self, state: State, weights: Weights, optimizer: Mapping[str, Tensor]) -> Path:
        """Writes a new checkpoint, then removes the oldest. Raises InputError on a full disk."""
        done = self.folder / name_of(state.step)
        unfinished = self.folder / f"{_UNFINISHED}{done.name}"
        try:
            _remove(unfinished)
            unfinished.mkdir(parents=True)
            weights.save(unfinished)
            tensors = {name: one.detach().cpu().contiguous() for name, one in optimizer.items()}
            safetensors.torch.save_file(tensors, unfinished / _OPTIMIZER)
            told = dataclasses.replace(state, files=_hashes(unfinished))
            (unfinished / STATE).write_text(json.dumps(dataclasses.asdict(told), indent=1))
            _to_disk(unfinished)
            if done.exists():  # a run that was started again from an older one comes by once more
                _remove(done)
            unfinished.rename(done)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)  # its bytes may be those that lack
            raise InputError(
                f"{done}: cannot be written: {error}; the older one stays: make room, and start "
                "the same command again"
            ) from error
        self._remove_old()
        return done

    def _remove_old(self) -> None:
        for old in self._all()[: -self._keep]:
            if not self._forever(step_of(old.name) or 0):
                _remove(old)

    def latest(self) -> Path | None:
        """The last whole checkpoint; None when there is none."""
        found = self._all()
        return found[-1] if found else None

    def _all(self) -> list[Path]:
        """By their steps; a folder of another name, such as a copy, is left alone."""
        return sorted(path for path in self.folder.glob("*/") if step_of(path.name) is not None)


def find(place: str) -> str:
    """The newest checkpoint where `place` is the folder of a training; else `place` itself.

    One in an object store is copied here, until this process ends.
    """
    folder = storage.local(place)
    newest = _fetched(place)[1] if folder is None else Checkpoints(folder / FOLDER, 1).latest()
    return place if newest is None else str(newest)


@cache
def _fetched(url: str) -> tuple[TemporaryDirectory[str], Path | None]:
    """Removed with the first of the two."""
    folder = TemporaryDirectory(prefix="checkpoint-")
    return folder, Stored(url).fetch(Path(folder.name))


def is_checkpoint(folder: Path) -> bool:
    """Whether a training wrote this folder."""
    return (folder / STATE).exists()


def read_state(folder: Path) -> State:
    """What a checkpoint says of itself. Raises InputError when it is damaged."""
    try:
        return State(**json.loads((folder / STATE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: damaged checkpoint: {STATE}: {error}; {_DAMAGED}") from error


def restore(
    folder: Path,
    settings: Mapping[str, Any],
    weights: Weights,
    restore_optimizer: Callable[[Mapping[str, Tensor]], None],
) -> State:
    """Puts a run back where it stood. Raises InputError when the checkpoint is another run's."""
    state = read_state(folder)
    refuse_other(folder, state.settings, settings)
    try:
        _check_files(folder, state.files)
        weights.load(folder)
        restore_optimizer(safetensors.torch.load_file(folder / _OPTIMIZER))
    except KeyError as error:
        raise InputError(f"{folder}: damaged checkpoint: found no {error}; {_DAMAGED}") from error
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: damaged checkpoint: {error}; {_DAMAGED}") from error
    return state


def refuse_other(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises InputError, which names the first key that differs."""
    there, here = (json.loads(json.dumps(settings)) for settings in (stored, wanted))
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key):
            if key in there:
                found, asked = f"{key} = {there[key]}", here.get(key, f"no {key}")
            else:
                found, asked = f"no {key}", f"{key} = {here[key]}"
            raise InputError(
                f"{folder}: this checkpoint has {found}, the run {asked}; set it back, or give "
                "the run another folder"
            )


def flat(settings: Any, above: str = "") -> dict[str, Any]:
    """A settings dataclass as dotted key -> value."""
    if not dataclasses.is_dataclass(settings):
        return {above: settings}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        inner = f"{above}.{field.name}" if above else field.name
        found.update(flat(getattr(settings, field.name), inner))
    return found


def _hashes(folder: Path) -> dict[str, str]:
    """Of every file below it."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def _check_files(folder: Path, wanted: Mapping[str, str]) -> None:
    """Raises ValueError where a bit of one is another: its weights would load all the same."""
    found = _hashes(folder) if wanted else {}
    for name, digest in wanted.items():
        if found.get(name) != digest:
            raise ValueError(f"{name} is not what was written")


def _to_disk(folder: Path) -> None:
    """A power cut after this costs none of its files."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Takes the name away first: a folder that is half removed is no checkpoint."""
    if not folder.exists():
        return
    hidden = folder.with_name(f"{_UNFINISHED}removed-{folder.name.removeprefix(_UNFINISHED)}")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
