"""Whatever is killed, however often: nothing is lost, nothing is done twice in the end."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from conftest import Jobs

KILLS = 10
SEED = 20261120
_MODULES = {"pipeline.host_main": "host", "pipeline.decoder_main": "decoder"}


def role(process: psutil.Process) -> str | None:
    """What a process of a running job is, as far as it may be killed."""
    try:
        line = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return None
    if any(word.startswith("ray::_Worker") for word in line):
        return "actor"
    return next((_MODULES[word] for word in line if word in _MODULES), None)


def kill_one(job: subprocess.Popen[str], kind: str, chance: random.Random) -> bool:
    """Kills one process of this kind; False when there is none just now."""
    if kind == "driver":
        job.kill()
        job.communicate()
        return True
    victims = [p for p in psutil.Process(job.pid).children(recursive=True) if role(p) == kind]
    if not victims:
        return False
    chance.choice(victims).kill()
    return True


def run_with_kills(jobs: Jobs, run: Path, kinds: list[str], pause_s: float) -> dict[str, int]:
    """Starts the job again and again until it is done; how often each kind was killed."""
    chance = random.Random(SEED)
    killed = dict.fromkeys(kinds, 0)
    order = [kinds[i % len(kinds)] for i in range(KILLS)]
    chance.shuffle(order)
    job = jobs.start("dataset", "--config", run)
    until = time.monotonic() + 300
    while order:
        assert time.monotonic() < until, f"seed {SEED}: {killed}"
        time.sleep(chance.uniform(0.05, pause_s))
        if kill_one(job, order[-1], chance):
            killed[order.pop()] += 1
        if job.poll() is not None:  # killed, or done before all kills: it has nothing left to do
            job = jobs.start("dataset", "--config", run)
    said, _ = job.communicate(timeout=240)
    assert job.returncode == 0, said
    return killed


def ledger(folder: Path) -> dict[str, dict[str, dict]]:
    """Stage -> clip -> the first row in (time, name) order."""
    view: dict[str, dict[str, dict]] = {}
    for path in sorted(folder.rglob("part-*.parquet")):
        stage = view.setdefault(path.parts[-3], {})
        for row in pq.read_table(path).to_pylist():
            stage.setdefault(row["clip_id"], row)
    return view


def shards(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (out / "shards").iterdir()
        if not path.name.startswith(".")
    }


@pytest.mark.parametrize(
    ("runner", "kinds", "pause_s"),
    [
        ("local", ["driver", "host", "decoder"], 0.5),
        pytest.param("ray", ["driver", "actor", "host", "decoder"], 1.5, marks=pytest.mark.ray),
    ],
)
def test_ten_kills_change_nothing(
    jobs: Jobs, runner: str, kinds: list[str], pause_s: float
) -> None:
    jobs.run("dataset", "--config", jobs.run_file("unbroken"))
    killed = run_with_kills(jobs, jobs.run_file(f"broken-{runner}", runner), kinds, pause_s)
    print(f"seed {SEED}, {runner}: {killed}")
    assert sum(killed.values()) == KILLS
    broken = f"broken-{runner}"
    assert ledger(jobs.folder / "facts" / broken) == ledger(jobs.folder / "facts/unbroken")
    assert shards(jobs.out(broken)) == shards(jobs.out("unbroken"))
    assert "no problems" in jobs.run("verify", "--out", jobs.out(broken))
