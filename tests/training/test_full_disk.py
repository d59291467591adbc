"""A disk that fills while a checkpoint is written: one line, and nothing is lost."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_training import quiet, small_trainer

from pipeline.errors import InputError
from training.checkpoint import Checkpoints, State
from training.course import LoopSettings
from training.metrics import read_metrics

LOOP = LoopSettings(steps=6, global_batch=4, batch=2, checkpoint_every=3, keep=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here: not root, or no such right")
    yield folder
    # Lazily: what was read from it may still be mapped into memory.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(folder: Path, leave: int) -> None:
    """Takes all room but so many bytes."""
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - leave))


def _train(folder: Path, steps: int = 6, fill_at: int = 0, leave: int = 0) -> None:
    asked = 0

    def stop() -> int:
        nonlocal asked
        asked += 1
        if asked == fill_at:
            _fill(folder, leave)
        return 0

    assert small_trainer(folder, replace(LOOP, steps=steps)).run(stop, quiet).done


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("leave", [0, 8192, 12288])
def test_a_full_disk_costs_no_checkpoint_and_no_line(small_disk: Path, tmp_path: Path, leave: int):
    _train(tmp_path / "unbroken")
    run = small_disk / "run"
    _train(run, steps=3)
    older = _files(run / "checkpoints")
    before = read_metrics(run / "metrics.jsonl")
    with pytest.raises(InputError, match=r"cannot be written.*make room") as raised:
        _train(run, fill_at=3, leave=leave)
    assert "\n" not in str(raised.value)
    assert _files(run / "checkpoints") == older
    assert read_metrics(run / "metrics.jsonl")[: len(before)] == before
    (run / "filler").unlink()
    _train(run)
    last = "checkpoints/step-00000006"
    assert _files(run / last) == _files(tmp_path / "unbroken" / last)


class _Large:
    """Weights of a megabyte."""

    def save(self, folder: Path) -> None:
        (folder / "w").write_bytes(bytes(2**20))

    def load(self, folder: Path) -> None:
        raise AssertionError("nothing is loaded here")


def test_what_was_half_written_gives_its_room_back(small_disk: Path):
    checkpoints = Checkpoints(small_disk / "checkpoints", 1)
    with pytest.raises(InputError, match=r"step-00000004: cannot be written: .*No space left"):
        checkpoints.save(State(4, 16, {}, {}), _Large(), {})
    assert checkpoints.latest() is None
    assert not list((small_disk / "checkpoints").iterdir())
