"""What a large corpus holds besides videos: each ends as one row with its code.

Every file of tests/hostile.py goes through probe, appearance and motion, then through segment and
pair, in one run, every caption through entities in another.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import hostile
import pyarrow.parquet as pq
import pytest

from jobs.curation import look_at, recorded

if TYPE_CHECKING:
    from conftest import Jobs

LIMITS = """
[engine]
runner = "local"
unit_size = 16
failed_share = 1.0
[engine.limits]
decode_s = 30
measure_s = 10
"""


def corpus(folder: Path, rows: list[tuple[str, str]]) -> Path:
    with (folder / "corpus.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "caption"])
        writer.writerows(rows)
    (folder / "run.toml").write_text(
        f'out = "{folder}/runs/one"\n[corpus]\nmanifest = "{folder}/corpus.csv"\n{LIMITS}'
    )
    return folder / "run.toml"


def outcomes(folder: Path, stages: tuple[str, ...]) -> dict[str, str]:
    """Video -> "measured" by all these stages, or the first code of failure."""
    house = look_at(recorded(str(folder / "runs" / "one")))
    rows = house.curation.manifest.rows
    names = dict(zip(rows["clip_id"].to_pylist(), rows["video"].to_pylist(), strict=True))
    found: dict[str, list[str | None]] = {}
    for stage in stages:
        facts = house.curation.ledger.facts(stage)
        for clip_id, code in zip(
            facts["clip_id"].to_pylist(), facts["code"].to_pylist(), strict=True
        ):
            found.setdefault(names[clip_id], []).append(code)
    ended = {}
    for name, codes in found.items():
        failed = [code for code in codes if code]
        whole = "measured" if len(codes) == len(stages) else f"measured by {len(codes)} stages only"
        ended[name] = failed[0] if failed else whole
    return ended


@pytest.fixture(scope="module")
def scored(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("hostile")
    for kind in hostile.FILES:
        kind.make(folder / kind.name)
    run = corpus(folder, [(kind.name, "A dog runs.") for kind in hostile.FILES])
    jobs.run("score", "--config", run, "--all")
    verdicts = pq.read_table(folder / "runs" / "one" / "verdicts.parquet")
    assert sorted(verdicts["video"].to_pylist()) == sorted(kind.name for kind in hostile.FILES)
    assert "pending" not in verdicts["verdict"].to_pylist()
    found = outcomes(folder, ("probe", "appearance", "motion"))
    jobs.run("entities", "--config", run, "--all")
    jobs.run("segment", "--config", run, "--all")
    subjects = outcomes(folder, ("segment", "pair"))
    assert {name for name, end in found.items() if end == "measured"} <= subjects.keys()
    assert not {"crash", "timeout", "memory"} & set(subjects.values())
    return found


@pytest.mark.parametrize("kind", hostile.FILES, ids=lambda kind: kind.name)
def test_every_file_ends_as_one_row_with_its_code(
    scored: dict[str, str], kind: hostile.Kind
) -> None:
    assert scored[kind.name] in kind.outcome.split("|")


def test_a_clip_that_is_deleted_between_two_stages_is_missing(jobs: Jobs, tmp_path: Path) -> None:
    for name in ("stays.mp4", "goes.mp4"):
        hostile.write(tmp_path / name)
    run = corpus(tmp_path, [("stays.mp4", "A dog."), ("goes.mp4", "A dog.")])
    jobs.run("probe", "--config", run)
    (tmp_path / "goes.mp4").unlink()
    jobs.run("appearance", "--config", run, "--all")
    assert outcomes(tmp_path, ("appearance",)) == {"stays.mp4": "measured", "goes.mp4": "missing"}


def test_every_caption_ends_as_one_row_and_changes_no_other(jobs: Jobs, tmp_path: Path) -> None:
    rows = [(f"{n}.mp4", caption) for n, caption in enumerate(hostile.CAPTIONS)]
    run = corpus(tmp_path, [*rows, ("control.mp4", "A dog runs.")])
    jobs.run("entities", "--config", run, "--all")
    ended = outcomes(tmp_path, ("entities",))
    wanted = {f"{n}.mp4": code for n, code in enumerate(hostile.CAPTIONS.values())}
    assert ended == {**wanted, "control.mp4": "measured"}
