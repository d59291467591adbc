"""A training's folder in an object store: worked on here, and copied there with every checkpoint.

There is no rename there. The files of a checkpoint are written one by one, `state.json` last, and
removed with `state.json` first: without it a checkpoint is none, so that half of one never counts.
What lies there is what counts: a run begins with the newest checkpoint of the store, on whichever
machine, and what a killed one had not copied yet is trained again.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import storage
from pipeline.errors import InputError
from training.metrics import FILE as METRICS

FOLDER = "checkpoints"
"""Of a training's folder."""
STATE = "state.json"

_NAME = re.compile(r"step-(\d{8,})")
_CHUNK = 64 << 20


def name_of(step: int) -> str:
    """Of the checkpoint after so many steps."""
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """Of a checkpoint's folder; None when the name is none of ours."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


class Stored:
    """A training's folder at a url: its checkpoints, and what it tells of itself beside them.

    The last `keep` are kept, and those of which `forever` says so by their step.
    """

    def __init__(
        self, url: str, keep: int = 1, forever: Callable[[int], bool] = lambda step: False
    ) -> None:
        self.url = url
        self._keep, self._forever = keep, forever
        self._told: dict[str, tuple[int, int]] = {}

    def steps(self) -> list[int]:
        """Of the whole checkpoints, in their order."""
        found = [name.split("/") for name in storage.files(storage.join(self.url, FOLDER))]
        steps = (step_of(parts[0]) for parts in found if parts[1:] == [STATE])
        return sorted(step for step in steps if step is not None)

    def put(self, checkpoint: Path) -> None:
        """Copies one that stands on the disk, after the metrics that led to it; old ones go."""
        self.tell(checkpoint.parent.parent)
        there = storage.join(self.url, FOLDER, checkpoint.name)
        storage.remove(storage.join(there, STATE))  # of a run that comes by a second time
        files = [file for file in sorted(checkpoint.rglob("*")) if file.is_file()]
        for file in sorted(files, key=lambda file: file.name == STATE):
            _put(file, storage.join(there, file.relative_to(checkpoint).as_posix()))
        for step in self.steps()[: -self._keep]:
            if not self._forever(step):
                self._remove(step)

    def tell(self, folder: Path) -> None:
        """Copies what changed in a training's folder besides the checkpoints."""
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder).as_posix()
            if file.is_file() and not name.startswith(f"{FOLDER}/"):
                state = _state(file)
                if self._told.get(name) != state:
                    _put(file, storage.join(self.url, name))
                    self._told[name] = state

    def fetch(self, folder: Path) -> Path | None:
        """The newest one, copied into an empty folder with the metrics; None when there is none."""
        steps = self.steps()
        if not steps:
            return None
        there = self._place(steps[-1])
        checkpoint = folder / FOLDER / there.rpartition("/")[2]
        _fetch_all(there, checkpoint)
        metrics = storage.join(self.url, METRICS)
        if storage.exists(metrics):
            _fetch(metrics, folder / METRICS)
            self._told[METRICS] = _state(folder / METRICS)
        return checkpoint

    def _place(self, step: int) -> str:
        return storage.join(self.url, FOLDER, name_of(step))

    def _remove(self, step: int) -> None:
        there = self._place(step)
        for name in sorted(storage.files(there), key=lambda name: name != STATE):
            storage.remove(storage.join(there, name))


@contextmanager
def at_hand(
    url: str, keep: int, forever: Callable[[int], bool]
) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """A training's folder on the disk while the block runs, and whom to tell of a new checkpoint.

    That of a url in a store is a temporary one of this worker: what it alone wrote there is copied
    at the end.
    """
    folder = storage.local(url)
    if folder is not None:
        yield folder, lambda checkpoint: None
        return
    with tempfile.TemporaryDirectory(prefix="training-") as here:
        stored = Stored(url, keep, forever)
        stored.fetch(Path(here))
        try:
            yield Path(here), stored.put
        finally:
            stored.tell(Path(here))


@contextmanager
def copied(url: str) -> Iterator[Path]:
    """A folder on the disk while the block runs: itself, or a copy of one in an object store.

    Raises InputError when nothing is there.
    """
    folder = storage.local(url)
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="copied-") as here:
        if not _fetch_all(url, Path(here)):
            raise InputError(f"{url}: found nothing there, wanted a folder of a training")
        yield Path(here)


def _state(file: Path) -> tuple[int, int]:
    """Another one once it was written to."""
    seen = file.stat()
    return seen.st_size, seen.st_mtime_ns


def _put(file: Path, url: str) -> None:
    """Without having all of a large file in memory."""
    with file.open("rb") as content:
        if file.stat().st_size <= _CHUNK:
            storage.write(url, content.read())
            return
        with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            storage.write(url, mapped)


def _fetch_all(url: str, folder: Path) -> int:
    """Returns how many files there were."""
    names = storage.files(url)
    for name in names:
        _fetch(storage.join(url, name), folder / name)
    return len(names)


def _fetch(url: str, file: Path) -> None:
    size = storage.size(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as content:
        for offset in range(0, size, _CHUNK):
            content.write(storage.read_range(url, offset, min(_CHUNK, size - offset)))
