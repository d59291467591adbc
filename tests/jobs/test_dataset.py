"""From a corpus to shards, as a user runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from pipeline.shard_reader import ShardReader

if TYPE_CHECKING:
    from conftest import Jobs

WANTED = {
    **{f"good {n}.mp4": ("kept", None, None) for n in range(5)},
    "still.mp4": ("rejected", "motion", None),
    "-two.mp4": ("rejected", "entities", None),
    "torn.mp4": ("failed", "probe", "unreadable"),
    "gone.mp4": ("failed", "probe", "missing"),
}


def verdicts(out: Path) -> Mapping[str, tuple[str, str | None, str | None]]:
    rows = pq.read_table(out / "verdicts.parquet").to_pylist()
    assert len(rows) == 10
    return {
        row["video"]: (row["verdict"], row["stage"], row["code"])
        for row in rows
        if row["code"] != "duplicate"
    }


def tree(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def facts(folder: Path) -> dict[str, list]:
    """Stage -> its rows, sorted, whatever parts they are in."""
    parts: dict[str, list] = {}
    for path in folder.rglob("part-*.parquet"):
        rows = pq.read_table(path).to_pylist()
        parts.setdefault(path.parts[-3], []).extend(rows)
    return {stage: sorted(rows, key=lambda r: r["clip_id"]) for stage, rows in parts.items()}


def test_every_row_has_its_verdict_and_the_shards_hold_the_kept(jobs: Jobs) -> None:
    run = jobs.run_file("first")
    said = jobs.run("dataset", "--config", run)
    assert verdicts(jobs.out("first")) == WANTED
    assert "kept" in said
    samples = list(ShardReader(str(jobs.out("first") / "shards")))
    assert len(samples) == 5
    assert "no problems" in jobs.run("verify", "--out", jobs.out("first"))
    assert "5 samples" in jobs.run("dataset", "--out", jobs.out("first"))
    assert "contact sheets" in jobs.run("report", "--out", jobs.out("first"))
    assert (jobs.out("first") / "report" / "index.html").exists()


def test_a_second_run_does_nothing_and_says_so(jobs: Jobs) -> None:
    run = jobs.run_file("twice")
    jobs.run("dataset", "--config", run)
    before = tree(jobs.out("twice") / "shards"), facts(jobs.folder / "facts" / "twice")
    said = jobs.run("dataset", "--config", run)
    assert "score: nothing to do" in said
    assert "nothing changed" in said
    assert (tree(jobs.out("twice") / "shards"), facts(jobs.folder / "facts" / "twice")) == before


@pytest.mark.ray
def test_both_engines_give_the_same_facts_and_shards(jobs: Jobs) -> None:
    for runner in ("local", "ray"):
        jobs.run("dataset", "--config", jobs.run_file(f"by-{runner}", runner))
    here, on_ray = jobs.out("by-local"), jobs.out("by-ray")
    assert tree(here / "shards") == tree(on_ray / "shards")
    assert facts(jobs.folder / "facts/by-local") == facts(jobs.folder / "facts/by-ray")


def test_other_thresholds_build_only_what_is_new(jobs: Jobs) -> None:
    tight = "[filters.segment.x0]\nmax = 0.0\n[shards]\nsamples_per_shard = 2"
    jobs.run("dataset", "--config", jobs.run_file("what"), code=0)
    old = ShardReader(str(jobs.out("what") / "shards"))
    built = facts(jobs.folder / "facts/what")["sample"]
    other = jobs.run_file("what", extra=tight.replace("max = 0.0", "max = 0.9"))
    said = jobs.run("whatif", "--config", other, "--out", jobs.out("what"))
    assert "no verdict changes" in said
    jobs.run("dataset", "--config", other)
    assert facts(jobs.folder / "facts/what")["sample"] == built
    assert len(list(old)) == 5
    none = jobs.run_file("what", extra=tight)
    said = jobs.run("whatif", "--config", none, "--out", jobs.out("what"))
    assert "5 verdicts change" in said
    assert "x0" in said
    assert "would be deleted" in jobs.run("prune", "--out", jobs.out("what"), "--dry-run")
    assert len(list(old)) == 5
    assert "1 shards" in jobs.run("prune", "--out", jobs.out("what"))
    assert "no problems" in jobs.run("verify", "--out", jobs.out("what"))
    assert "10 rows" in jobs.run("manifest", "--config", none)
    assert "kept" in jobs.run("status", "--out", jobs.out("what"))
