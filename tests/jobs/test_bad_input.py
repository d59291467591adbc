"""Bad input ends with one clear line and exit code 2, and overwrites nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs import manifest
from jobs.command import finish

if TYPE_CHECKING:
    from conftest import Jobs


def refused(jobs: Jobs, job: str, *arguments: str | Path) -> str:
    said = jobs.run(job, *arguments, code=2)
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_missing_corpus(jobs: Jobs, tmp_path: Path) -> None:
    line = refused(jobs, "dataset", "--corpus", tmp_path / "no.csv", "--out", tmp_path / "run")
    assert "no.csv" in line
    assert not (tmp_path / "run").exists()


def test_no_corpus_and_no_run_folder(jobs: Jobs, tmp_path: Path) -> None:
    assert "--corpus" in refused(jobs, "dataset", "--out", tmp_path / "run")
    assert "--out" in refused(jobs, "dataset", "--corpus", jobs.folder / "corpus.csv")


def test_a_csv_without_videos(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("vidoe,caption\na.mp4,A dog.\n")
    line = refused(jobs, "dataset", "--corpus", tmp_path / "a.csv", "--out", tmp_path / "run")
    assert "vidoe" in line
    assert "video" in line


def test_a_folder_without_captions(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"x")
    line = refused(jobs, "dataset", "--corpus", tmp_path / "clips", "--out", tmp_path / "run")
    assert "caption" in line


def test_an_unknown_key_names_the_nearest(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("[motion]\nstep = 0.5\n")
    line = refused(jobs, "score", "--config", tmp_path / "run.toml")
    assert "motion.step" in line
    assert "step_s" in line
    (tmp_path / "run.toml").write_text("[filters.motion.top55]\nmin = 0.5\n")
    corpus = ("--corpus", jobs.folder / "corpus.csv", "--out", tmp_path / "run")
    assert "top5" in refused(jobs, "score", "--config", tmp_path / "run.toml", *corpus)


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ("motion", "step_s = 0.0"),
        ("overlay", "step_s = -1.0"),
        ("appearance", "area_px = 0"),
        ("motion.placement", "batch = 0"),
        ("near_duplicate", "floor = 1.5"),
        ("segment.detector", "box_threshold = -0.1"),
        ("overlay.detector", "map_threshold = 2.0"),
        ("engine.limits", "memory_gib = nan"),
    ],
)
def test_a_number_that_makes_no_sense(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: str,
    wrong: str,
) -> None:
    (tmp_path / "run.toml").write_text(f"[{table}]\n{wrong}\n")
    monkeypatch.setattr(sys, "argv", ["manifest", "--config", str(tmp_path / "run.toml")])
    with pytest.raises(SystemExit) as ended:
        finish(manifest.main)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert re.search(rf"run\.toml: {table}\.\w+: found .*, wanted (greater|less) than", line)


def test_another_manifest_in_the_run_folder(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "run"
    jobs.run("probe", "--corpus", jobs.folder / "corpus.csv", "--out", out, "--runner", "local")
    before = {path: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "other.csv").write_text("video,caption\na.mp4,A dog.\n")
    line = refused(jobs, "probe", "--corpus", tmp_path / "other.csv", "--out", out)
    assert "another manifest" in line
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_folder_that_cannot_be_written(jobs: Jobs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am a file")
    corpus = ("--corpus", jobs.folder / "corpus.csv")
    assert "file" in refused(jobs, "probe", *corpus, "--out", tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "I am a file"


def test_weights_that_are_not_here_stop_a_run_before_its_first_worker(jobs: Jobs) -> None:
    reference = '[entities]\nbackend = "reference"\nmodel = "nobody/no-model"\n'
    run = jobs.run_file("weightless", extra=reference)
    line = refused(jobs, "dataset", "--config", run)
    assert line.startswith("error: entities.model: the weights 'nobody/no-model'")
    assert "python -m jobs.weights" in line
    assert not list((jobs.folder / "facts" / "weightless").rglob("*.parquet"))
