"""Two runs at once: of one stage the second is told who works on it, of different ones both run."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from jobs import entities, probe

if TYPE_CHECKING:
    from conftest import Jobs


def wait_for(found: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not found():
        assert time.monotonic() < until
        time.sleep(0.01)


def rows(facts: Path, stage: str) -> int:
    return sum(pq.read_metadata(path).num_rows for path in facts.rglob(f"{stage}/*/part-*"))


def test_two_runs_at_once_on_one_folder(jobs: Jobs, say: Callable[..., str]) -> None:
    run, facts = jobs.run_file("both"), jobs.folder / "facts" / "both"
    first = jobs.start("probe", "--config", run)
    wait_for(lambda: bool(list(facts.rglob("probe/*/lease.json"))))
    os.kill(first.pid, signal.SIGSTOP)  # at work, for as long as we want
    said = say(probe.main, "--config", run, code=2)
    assert len(said.splitlines()) == 1
    told = rf"error: .*/lease.json: held by process {first.pid} on \S+ since .* \(probe of "
    assert re.match(told, said)
    assert f"python -m jobs.status --out {jobs.out('both')} says how far it is" in said
    assert "wait for it, or stop it: then the same command does what is left" in said
    say(entities.main, "--config", run, "--all")
    assert rows(facts, "entities") == 9
    os.kill(first.pid, signal.SIGCONT)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert rows(facts, "probe") == 9
    assert "nothing to do" in say(probe.main, "--config", run)


def test_what_a_killed_run_held_is_free_at_once(jobs: Jobs, say: Callable[..., str]) -> None:
    run, facts = jobs.run_file("killed"), jobs.folder / "facts" / "killed"
    first = jobs.start("probe", "--config", run)
    wait_for(lambda: bool(list(facts.rglob("probe/*/lease.json"))))
    first.kill()
    first.communicate()
    assert "probe: 9 of 9 clips done" in say(probe.main, "--config", run)
