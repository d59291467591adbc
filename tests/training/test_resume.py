"""A training that is killed, or stopped, and started again equals an unbroken one to the bit."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from small_training import quiet, small_trainer

from training.course import LoopSettings
from training.metrics import ANEW, read_metrics

LOOP = LoopSettings(steps=12, global_batch=4, batch=2, checkpoint_every=5, text_drop=0.3)
ROOT = Path(__file__).parents[2]


def _train(folder: Path, loop: LoopSettings = LOOP, stop: Callable[[], bool] = lambda: False):
    return small_trainer(folder, loop).run(stop, quiet)


def _weights(folder: Path) -> dict[str, bytes]:
    """Every tensor of the last checkpoint, to the bit."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found = {}
    for file in last.glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            names = tensors.keys()
            found |= {f"{file.name}/{k}": tensors.get_tensor(k).tobytes() for k in names}
    return found


def _told(folder: Path) -> list[dict]:
    """The metrics without speed and memory."""
    lines = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ANEW} for line in lines]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    assert _train(folder).done
    return folder


def _killed_at(step: int) -> Callable[[], bool]:
    """Asked before every step; takes the process with it before that one."""
    left = [step]

    def stop() -> bool:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    return stop


def test_killed_at_any_step_and_resumed_equals_unbroken(unbroken: Path, tmp_path: Path):
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "import os, sys; from pathlib import Path\n"
        "sys.path[:0] = [sys.argv[1], sys.argv[1] + '/tests', sys.argv[1] + '/tests/training']\n"
        "from test_resume import _killed_at, _train\n"
        "for step in range(1, 13):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        _train(Path(sys.argv[2]) / str(step), stop=_killed_at(step))\n"
        "        os._exit(0)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9\n"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT), str(tmp_path)], check=True, timeout=100)
    for step in range(1, 13):
        folder = tmp_path / str(step)
        assert _train(folder).done
        assert _weights(folder) == _weights(unbroken)
        assert _told(folder) == _told(unbroken)


def test_stopped_it_saves_at_once_and_goes_on_from_there(unbroken: Path, tmp_path: Path):
    asked = iter([False, False, False, True])
    report = _train(tmp_path, stop=lambda: next(asked))
    assert (report.step, report.done) == (3, False)
    assert report.checkpoint is not None
    assert report.checkpoint.name == "step-00000003"
    assert _train(tmp_path).done
    assert _weights(tmp_path) == _weights(unbroken)
    assert _told(tmp_path) == _told(unbroken)


def test_more_steps_go_on_from_a_finished_run(unbroken: Path, tmp_path: Path):
    _train(tmp_path, replace(LOOP, steps=7))
    _train(tmp_path)
    assert _weights(tmp_path) == _weights(unbroken)


def test_readers_and_checkpoints_change_no_number(unbroken: Path, tmp_path: Path):
    _train(tmp_path, replace(LOOP, readers=7, checkpoint_every=2, keep=9))
    assert _weights(tmp_path) == _weights(unbroken)
    assert _told(tmp_path) == _told(unbroken)


def test_the_same_samples_in_smaller_batches_give_the_same_step(unbroken: Path, tmp_path: Path):
    _train(tmp_path, replace(LOOP, batch=1))
    for here, there in zip(_told(tmp_path)[1:], _told(unbroken)[1:], strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-5)
        assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=1e-4)


def test_what_a_kill_left_half_written_is_ignored(unbroken: Path, tmp_path: Path):
    asked = iter([False] * 6 + [True])
    _train(tmp_path, stop=lambda: next(asked))
    torn = tmp_path / "checkpoints" / ".tmp-step-00000009"
    torn.mkdir()
    (torn / "w.safetensors").write_bytes(b"half")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    assert _train(tmp_path).done
    assert _weights(tmp_path) == _weights(unbroken)
    assert _told(tmp_path) == _told(unbroken)


def test_metrics_have_a_line_per_step_with_the_held_out_losses(unbroken: Path):
    lines = read_metrics(unbroken / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(13))
    for line in lines[1:]:
        assert {"loss", "lr", "grad_norm", "samples_per_s"} <= line.keys()
    measured = [line for line in lines if "held_out_right" in line]
    assert [line["step"] for line in measured] == [0, 4, 8, 12]
    assert all({"held_out_shuffled", "held_out_none"} <= line.keys() for line in measured)
    assert len({line["held_out_none"] for line in measured}) == 1
    assert json.loads((unbroken / "checkpoints/step-00000012/state.json").read_text())["step"] == 12
