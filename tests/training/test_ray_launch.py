"""The loop in Ray Train's workers: the bits of any other workers, also when one of them dies."""

from functools import partial
from pathlib import Path

import pytest
from safetensors import safe_open
from small_world import Order, dying, workers

from pipeline.stop import Stop
from training.course import LoopSettings
from training.launch import LaunchSettings

LOOP = LoopSettings(steps=12, global_batch=8, batch=2, checkpoint_every=5)
PAIR = LaunchSettings(runner="ray", workers=2, cpus=0.5, gpus=0, max_failures=1)


def _weights(folder: Path) -> dict[str, bytes]:
    last = folder / "checkpoints" / "step-00000012"
    found = {}
    for file in last.glob("*.safetensors"):
        with safe_open(file, "numpy") as tensors:
            names = tensors.keys()
            found |= {f"{file.name}/{k}": tensors.get_tensor(k).tobytes() for k in names}
    return found


@pytest.mark.ray
def test_a_worker_that_is_killed_costs_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from training.ray_launch import run_on_ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with workers(2) as meet:
        meet(2, Order(tmp_path / "unbroken", LOOP))
    run = tmp_path / "killed"
    code = run_on_ray(partial(dying, folder=run, loop=LOOP), PAIR, run / "ray", "killed-1", Stop())
    assert code == 0
    assert (run / "died").exists()
    assert "a worker was lost: all begin again at the last checkpoint" in capsys.readouterr().err
    assert _weights(run) == _weights(tmp_path / "unbroken")
