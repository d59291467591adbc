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


def run_with_kills(
    jobs: Jobs, runner: str, kinds: list[str], pause_s: float
) -> tuple[dict[str, int], list[str]]:
    """Starts the job again and again, with kills in between: how many of each kind, the run names.

    A run that is done before all kills were given is followed by another one from nothing.
    """
    chance = random.Random(SEED)
    killed = dict.fromkeys(kinds, 0)
    order = [kinds[i % len(kinds)] for i in range(KILLS)]
    chance.shuffle(order)
    names: list[str] = []
    until = time.monotonic() + 400
    while order:
        names.append(f"broken-{runner}-{len(names)}")
        run = jobs.run_file(names[-1], runner)
        run.write_text(run.read_text().replace("[[workers]]", "[[workers]]\ndecoders = 2"))
        job = jobs.start("dataset", "--config", run)
        while job.poll() is None or job.returncode < 0:
            assert time.monotonic() < until, f"seed {SEED}: {killed}"
            if job.poll() is not None:  # it was the driver that was killed
                job = jobs.start("dataset", "--config", run)
            time.sleep(chance.uniform(0.05, pause_s))
            if order and job.poll() is None and kill_one(job, order[-1], chance):
                killed[order.pop()] += 1
        assert job.returncode == 0, job.communicate()[0]
    return killed, names


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
        ("local", ["driver", "host", "decoder"], 0.4),
        pytest.param("ray", ["driver", "actor", "host", "decoder"], 1.0, marks=pytest.mark.ray),
    ],
)
def test_ten_kills_change_nothing(
    jobs: Jobs, runner: str, kinds: list[str], pause_s: float
) -> None:
    jobs.run("dataset", "--config", jobs.run_file("unbroken"))
    killed, names = run_with_kills(jobs, runner, kinds, pause_s)
    print(f"seed {SEED}, {runner}: {killed} in {len(names)} runs")
    assert sum(killed.values()) == KILLS
    for name in names:
        assert ledger(jobs.folder / "facts" / name) == ledger(jobs.folder / "facts/unbroken")
        assert shards(jobs.out(name)) == shards(jobs.out("unbroken"))
        assert "no problems" in jobs.run("verify", "--out", jobs.out(name))
