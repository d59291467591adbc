"""The 17 real clips of ../shared: allowed verdicts only, every kept mask on its subject."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from conftest import Jobs

CLIPS = Path(__file__).parents[2].parent / "shared" / "clips"
CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "clips.toml"
MUST_KEEP = {"sam2_juggle.mp4", "mdnla_frog.mp4", "mdnla_elf.mp4"}

pytestmark = pytest.mark.skipif(
    not (CLIPS / "expected.csv").exists(), reason=f"the real clips are not here: {CLIPS}"
)


def expected() -> dict[str, dict[str, str]]:
    with (CLIPS / "expected.csv").open(newline="") as file:
        return {row["video"]: row for row in csv.DictReader(file)}


def box_iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Of boxes (x0, y0, x1, y1)."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return common / (sum(areas) - common)


def test_the_verdicts_are_those_a_person_allows(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "clips"
    corpus = ("--corpus", CLIPS / "clips.csv", "--out", out, "--runner", "local")
    jobs.run("dataset", "--config", CONFIG, *corpus)
    wanted = expected()
    rows = pq.read_table(out / "verdicts.parquet").to_pylist()
    assert {row["video"] for row in rows} == set(wanted)
    for row in rows:
        said = row["verdict"] if row["verdict"] == "kept" else f"{row['verdict']}:{row['stage']}"
        assert said in wanted[row["video"]]["allowed"].split(";"), row
    kept = {row["clip_id"]: row["video"] for row in rows if row["verdict"] == "kept"}
    assert set(kept.values()) >= MUST_KEEP
    for part in (tmp_path / "runs" / "facts").glob("*/segment/*/part-*.parquet"):
        for facts in pq.read_table(part).to_pylist():
            if facts["clip_id"] in kept:
                subject = wanted[kept[facts["clip_id"]]]
                theirs = tuple(float(subject[side]) for side in ("x0", "y0", "x1", "y1"))
                ours = tuple(facts[side] for side in ("x0", "y0", "x1", "y1"))
                assert box_iou(ours, theirs) >= 0.5, kept[facts["clip_id"]]
