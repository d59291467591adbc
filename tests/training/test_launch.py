"""How workers meet, and what is said when they cannot."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError
from training.launch import join

ROOT = Path(__file__).parents[2]


def test_a_process_that_nobody_launched_is_the_whole_world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join() as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)
        assert world.total(0.1) == 0.1
        assert world.gather("alone") == ["alone"]


def test_a_port_in_use_is_one_line_and_exit_code_2(tmp_path: Path):
    run_file = tmp_path / "run.toml"
    run_file.write_text(f'out = "{tmp_path}"\nbase = "tiny"\nadapter = "none"')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        who = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ended = subprocess.run(
            [sys.executable, "-m", "jobs.train", "--config", str(run_file)],
            cwd=ROOT,
            env={**os.environ, **who, **place, "OMP_WAIT_POLICY": "PASSIVE"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2, ended.stderr
    assert lines[-1].startswith(f"error: MASTER_ADDR:MASTER_PORT 127.0.0.1:{port}: 2 workers ")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("who", "error"),
    [
        ({"WORLD_SIZE": "2"}, "2 workers cannot meet there: .*RANK"),
        ({"WORLD_SIZE": "two"}, 'WORLD_SIZE: found "two", wanted a whole number'),
    ],
)
def test_an_environment_that_says_half_is_one_line(
    who: dict, error: str, monkeypatch: pytest.MonkeyPatch
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in who.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=error), join():
        pass
