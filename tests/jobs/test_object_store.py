"""Corpus, facts, samples and shards in an object store that fails as these do.

The shards are the very bytes of a run on a disk that nobody disturbed.
"""

from __future__ import annotations

import hashlib
import io
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from faulty_proxy import BUSY, CUT, ERROR, RESET_AFTER, RESET_BEFORE, SLOW, Faults
from s3_server import SECRET

if TYPE_CHECKING:
    from conftest import Jobs
    from s3_server import S3Server

    RunFile = Callable[[str, str], Path]

SEED = 20261129
KILLS = 1
SHARES = {ERROR: 0.03, BUSY: 0.03, RESET_BEFORE: 0.03, RESET_AFTER: 0.03, SLOW: 0.01, CUT: 0.03}
TIMES = {"longest_pause_s": 0.5, "config_kwargs": {"read_timeout": 4}}
SLOW_S = 6.0


@pytest.fixture(scope="module")
def corpus(jobs: Jobs) -> Path:
    """Four rows of the small corpus, beside its clips: two are kept, one is torn, one is gone."""
    path = jobs.folder / "four.csv"
    header, *rows = (jobs.folder / "corpus.csv").read_text().splitlines(keepends=True)
    wanted = ("good 0.mp4", "good 1.mp4", "torn.mp4", "gone.mp4")
    path.write_text(header + "".join(row for row in rows[:9] if row.startswith(wanted)))
    return path


@pytest.fixture(scope="module")
def undisturbed(jobs: Jobs, corpus: Path) -> dict[str, str]:
    """The shards of a run on a disk."""
    jobs.run("dataset", "--config", jobs.run_file("undisturbed"), "--corpus", corpus)
    folder = jobs.out("undisturbed") / "shards"
    return {path.name: sha256(path.read_bytes()) for path in folder.iterdir()}


@pytest.fixture
def run_file(
    jobs: Jobs, corpus: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunFile]:
    """The corpus lies in the bucket; run files by name and runner, for jobs that are led there."""
    for path in (corpus, *jobs.folder.glob("*.mp4")):
        s3.client.upload_file(str(path), "corpus", f"small/{path.name}")
    for name, value in s3.environment(**TIMES).items():
        monkeypatch.setenv(name, value)

    def write(name: str, runner: str) -> Path:
        path = jobs.run_file(name, runner)
        text = path.read_text().replace(f"{jobs.folder}/corpus.csv", "s3://corpus/small/four.csv")
        path.write_text(text.replace(f'"{jobs.folder}/', '"s3://corpus/'))
        return path

    yield write
    s3.spare()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "runner",
    ["local", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])],  # three clusters
)
def test_a_store_that_fails_and_a_driver_that_is_killed_change_nothing(
    jobs: Jobs, s3: S3Server, run_file: RunFile, undisturbed: dict[str, str], runner: str
) -> None:
    run, chance = run_file(f"broken-{runner}", runner), random.Random(SEED)
    faults = s3.suffer(Faults(SEED, SHARES, slow_s=SLOW_S))
    for _ in range(KILLS):
        job = jobs.start("dataset", "--config", run)
        until = faults.seen.total() + chance.randint(20, 120)
        while job.poll() is None and faults.seen.total() < until:
            time.sleep(0.02)
        job.kill()
        assert job.wait() == -signal.SIGKILL, job.communicate()[0]
    job = jobs.start("dataset", "--config", run)
    said, _ = job.communicate(timeout=900)
    assert job.returncode == 0, said
    print(f"seed {SEED}, {runner}: {KILLS} kills, {faults.seen}, {faults.happened}")
    found = s3.objects(f"runs/broken-{runner}/shards/")
    assert {name: sha256(data) for name, data in found.items()} == undisturbed
    verdicts = pq.read_table(io.BytesIO(s3.objects(f"runs/broken-{runner}/")["verdicts.parquet"]))
    assert sorted(verdicts["verdict"].to_pylist()) == ["failed", "failed", "kept", "kept"]
    assert faults.happened.keys() == SHARES.keys()
    s3.spare()
    assert "no problems" in jobs.run("verify", "--out", f"s3://corpus/runs/broken-{runner}")
    written = s3.objects()
    assert not [name for name, data in written.items() if SECRET.encode() in data]
    assert SECRET not in said
