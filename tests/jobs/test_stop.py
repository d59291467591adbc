"""A job that is asked to stop keeps what it has, says so, and goes on when it is started again."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from conftest import Jobs


def wait_for_first(status: Path) -> None:
    """Until a pass has begun and the job is in the middle of it."""
    until = time.monotonic() + 60
    while not status.exists() or json.loads(status.read_text())["state"] != "running":
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("runner", "sent", "code"),
    [
        ("local", signal.SIGINT, 130),
        pytest.param("ray", signal.SIGTERM, 143, marks=pytest.mark.ray),
    ],
)
def test_a_stopped_job_is_resumed(jobs: Jobs, runner: str, sent: int, code: int) -> None:
    name = f"stopped-{runner}-{code}"
    run = jobs.run_file(name, runner)
    job = jobs.start("dataset", "--config", run)
    wait_for_first(jobs.out(name) / "status.json")
    job.send_signal(sent)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == code, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert json.loads((jobs.out(name) / "status.json").read_text())["state"] == "stopped"
    if runner == "local":
        jobs.run("dataset", "--config", run)
        rows = pq.read_table(jobs.out(name) / "verdicts.parquet").to_pylist()
        assert sum(row["verdict"] == "kept" for row in rows) == 5
        assert not any(row["verdict"] == "pending" for row in rows)
