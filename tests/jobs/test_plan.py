"""A plan says what would stop a run, and what it would take, without touching anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jobs.estimate import Crew, Machine, Tried, bound, cost, hours, interval, room
from jobs.preflight import check_store, clips_open, has_room
from jobs.settings import PriceSettings
from pipeline.clip import Clip
from pipeline.errors import InputError
from pipeline.work import WAITING, WorkerKind

if TYPE_CHECKING:
    from conftest import Jobs
    from s3_server import S3Server

GPU = WorkerKind(gpus=1, cpus=8, count=16)


def test_it_says_what_all_clips_would_take_and_leaves_nothing(jobs: Jobs) -> None:
    prices = "[prices]\ncpu_hour = 36000\n"
    said = jobs.run("plan", "--config", jobs.run_file("planned", extra=prices), "--clips", "8")
    assert "problem" not in said
    assert said.rstrip().endswith("a pass can run")
    assert "corpus: 10 rows" in said
    assert "9 clips to do" in said, "one stands there twice"
    assert re.search(r"7 of 8 clips could be opened|6 of 8 clips could be opened", said)
    for name in ("score", "entities", "segment", "samples"):
        assert re.search(rf"{name} +\d+ of 8 clips come to it, +\d+\.\d+ worker s a clip", said)
    assert re.search(r"[1-9][\d.,]* at the given prices", said)
    assert re.search(r"yield +[1-8] of 8: \d+ to \d clips kept", said)
    assert "bound by" in said
    left = [*(jobs.folder / "facts" / "planned").rglob("*"), *jobs.out("planned").rglob("*")]
    assert [path for path in left if path.is_file()] == []


def test_it_ends_with_2_and_names_everything_that_is_in_the_way(jobs: Jobs, tmp_path: Path) -> None:
    run = jobs.run_file("stuck", runner="ray")
    text = run.read_text().replace("[[workers]]", "[[workers]]\ngpus = 64")
    run.write_text(f'{text}\n[motion]\nbackend = "reference"\nmodel = "/nowhere/raft.pth"\n')
    blocked = tmp_path / "a file"
    blocked.write_text("not a folder")
    said = jobs.run("plan", "--config", run, "--out", blocked / "run", code=2)
    problems = [line for line in said.splitlines() if line.startswith("problem")]
    assert len(problems) == 3, said
    assert "out:" in problems[0]
    assert "/nowhere/raft.pth" in problems[1]
    assert "gpus = 64" in problems[2]
    assert "dry run" not in said


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # As R's prop.test without continuity correction and scipy's binomtest(...).proportion_ci
    # (method="wilson") have them.
    [(10, 20, 0.2993, 0.7007), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (1, 8, 0.0224, 0.4709)],
)
def test_the_interval_of_a_yield_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    assert interval(hits, of) == pytest.approx((low, high), abs=1e-4)


def test_workers_fit_where_both_their_cpus_and_their_gpus_are() -> None:
    machines = [Machine(64, 8), Machine(20, 8), Machine(96, 0)]
    assert room(GPU, machines) == 8 + 2
    assert room(WorkerKind(cpus=10), machines) == 6 + 2 + 9


def test_hours_and_cost_follow_from_seconds_and_workers() -> None:
    crew = Crew(((GPU, 16), (WorkerKind(cpus=4), 4)))
    tried = Tried("score", todo=10, done=5, spent={WAITING: 4.0, "motion": 6.0})
    seconds = tried.per_clip(20)  # 2 s for each clip that comes to it, and every second one does
    assert sum(seconds.values()) == pytest.approx(1.0)
    took = hours(1.0, 72_000, crew)
    assert took == pytest.approx(1.0)
    assert cost(took, crew, PriceSettings(cpu_hour=0.1, gpu_hour=2)) == pytest.approx(14.4 + 32)
    assert bound(seconds).startswith("motion: 60%")
    assert bound({WAITING: 2.0, "motion": 1.0}).startswith("decoding: waiting for frames is 67%")


class Overwriting(MemoryFileSystem):
    """A store that takes no notice of conditions, as some that speak S3 do."""

    protocol = "overwriting"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        super().pipe_file(path, value, mode="overwrite", **options)


def test_a_store_that_overwrites_what_is_there_is_refused() -> None:
    fsspec.register_implementation("overwriting", Overwriting, clobber=True)
    check_store("memory://facts")
    with pytest.raises(InputError, match="conditional writes"):
        check_store("overwriting://facts")


def test_clips_in_an_object_store_are_looked_for_there(
    jobs: Jobs, on_s3: Callable[..., S3Server]
) -> None:
    on_s3().client.upload_file(str(jobs.folder / "good 0.mp4"), "corpus", "plan/here.mp4")
    here, gone = (
        Clip(name, name, f"s3://corpus/plan/{name}", "", "") for name in ("here.mp4", "gone")
    )
    assert clips_open([here]).kind == "ok"
    assert "1 of 2 clips could be opened" in str(clips_open([here, gone]))
    assert str(clips_open([gone])).startswith("problem")


def test_a_disk_without_room_is_a_problem(tmp_path: Path) -> None:
    assert has_room(str(tmp_path / "not" / "yet"), 0.001).kind == "ok"
    assert has_room(str(tmp_path), 1e9).kind == "problem"
    assert has_room("memory://facts", 1e9).kind == "note"
