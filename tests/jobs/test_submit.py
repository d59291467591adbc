"""A job that is submitted to a cluster, killed and submitted again, does what it does here."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from jobs.submit import exit_code

if TYPE_CHECKING:
    from conftest import Jobs

SCRIPTS = Path(sys.executable).parent


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Head:
    """A cluster of one machine with a dashboard, and what a client needs to speak to it."""

    address: str
    environment: dict[str, str]
    process: psutil.Process

    def driver(self, job: str) -> psutil.Process | None:
        """The process of a job that runs in the cluster."""
        for process in self.process.children(recursive=True):
            try:
                line = process.cmdline()
            except psutil.Error:
                continue
            if f"jobs.{job}" in line and "run.toml" in line:
                return process
        return None


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="cvx-head-", ignore_cleanup_errors=True) as folder:
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(32))
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        }
        port = free_port()
        own = ("dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port")
        command = [str(SCRIPTS / "ray"), "start", "--head", "--block", "--port=0"]
        command += [f"--temp-dir={folder}/ray", "--num-cpus=2", "--object-store-memory=100000000"]
        command += ["--include-dashboard=true", f"--dashboard-port={port}"]
        command += [f"--{name}={free_port()}" for name in own]
        with Path(folder, "log").open("wb") as log:
            start = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        process = psutil.Process(start.pid)
        try:
            until = time.monotonic() + 60
            while "Ray runtime started" not in Path(folder, "log").read_text():
                assert time.monotonic() < until, Path(folder, "log").read_text()
                time.sleep(0.2)
            yield Head(f"http://127.0.0.1:{port}", environment, process)
        finally:
            left = process.children(recursive=True)
            start.terminate()
            start.wait(60)
            for child in psutil.wait_procs(left, 10)[1]:
                child.kill()


def submit(head: Head, *arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.submit", "--address", head.address, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**head.environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def shards(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (out / "shards").iterdir()
    }


@pytest.mark.ray
def test_killed_and_submitted_again_it_makes_the_same_shards(jobs: Jobs, head: Head) -> None:
    jobs.run("dataset", "--config", jobs.run_file("here"))
    run = jobs.run_file("there", "ray")
    run.write_text(run.read_text().replace("count = 2", "count = 1"))
    first = submit(head, "--config", run, "--", "dataset")
    measured, until = jobs.folder / "facts" / "there", time.monotonic() + 120
    while not list(measured.rglob("part-*.parquet")):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)
    driver = head.driver("dataset")
    assert driver is not None
    os.kill(driver.pid, signal.SIGKILL)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 137, said
    again = submit(head, "dataset", "--config", run)
    said, _ = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert "rows of the manifest" in said, "the job's output is followed"
    assert shards(jobs.out("there")) == shards(jobs.out("here"))


@pytest.mark.ray
def test_a_plan_asks_the_cluster_itself(jobs: Jobs, head: Head) -> None:
    run = jobs.run_file("unplaced", "ray")
    run.write_text(run.read_text().replace("count = 2", "cpus = 3"))
    plan = submit(head, "plan", "--config", run)
    said, _ = plan.communicate(timeout=200)
    assert plan.returncode == 2, said
    assert "none has a place on 1 machine(s), the largest of 2 CPUs" in said


@pytest.mark.ray
@pytest.mark.slow  # a cluster's worker for each of five passes
def test_a_dry_run_measures_on_the_cluster(jobs: Jobs, head: Head) -> None:
    plan = submit(head, "plan", "--config", jobs.run_file("planned", "ray"), "--clips", "2")
    said, _ = plan.communicate(timeout=400)
    assert plan.returncode == 0, said
    assert "dry run: 2 clips" in said
    assert "worker s a clip" in said


@pytest.mark.ray
def test_without_the_token_nothing_is_submitted(jobs: Jobs, head: Head) -> None:
    wrong = submit(head, "--config", jobs.run_file("x"), "score", RAY_AUTH_TOKEN="00" * 32)
    said, _ = wrong.communicate(timeout=60)
    assert wrong.returncode == 2, said
    assert "RAY_AUTH_TOKEN" in said
    assert "Traceback" not in said


def test_a_place_that_only_this_folder_knows_is_refused(jobs: Jobs) -> None:
    run = jobs.run_file("relative")
    for given in (("--out", "runs/mine"), ("--corpus", "clips.csv")):
        said = jobs.run("submit", "--config", run, *given, "--", "dataset", code=2)
        assert "every machine of the cluster sees" in said
    assert "wanted one of jobs" in jobs.run("submit", "--config", run, "datasets", code=2)


def test_an_address_that_is_none_is_named_in_one_line(jobs: Jobs) -> None:
    run = jobs.run_file("nowhere")
    said = jobs.run("submit", "--config", run, "--address", "nowhere", "--", "dataset", code=2)
    assert "error: nowhere: found no Ray cluster that takes jobs, wanted http://" in said


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 143, 143),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
    ],
)
def test_the_exit_code_is_the_jobs_own(status: str, code: int | None, wanted: int) -> None:
    assert exit_code(status, code) == wanted
