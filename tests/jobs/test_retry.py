"""Clips that failed are measured again on request, and a run with too many failures says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import compact, probe, retry, score, status, summary

RUN = """
out = "{folder}/runs/one"
[corpus]
manifest = "{folder}/corpus.csv"
[engine]
runner = "local"
failed_share = {share}
"""


@pytest.fixture
def corpus(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """Four rows: one good, one whose file comes later, one torn, one that is no video."""
    draw(tmp_path / "good.mp4", seed=0, speed=2.0)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    names = ("good.mp4", "later.mp4", "torn.mp4", "text.mp4")
    rows = "".join(f"{name},A ball.\n" for name in names)
    (tmp_path / "corpus.csv").write_text(f"video,caption\n{rows}")
    return tmp_path


def run_file(folder: Path, share: float) -> Path:
    (folder / "run.toml").write_text(RUN.format(folder=folder, share=share))
    return folder / "run.toml"


def parts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("part-*.parquet")
    }


def test_what_failed_is_measured_again_and_nothing_else(
    corpus: Path, say: Callable[..., str]
) -> None:
    out = corpus / "runs" / "one"
    said = say(score.main, "--config", run_file(corpus, 0.75))
    assert "failed: 2 unreadable in probe, 1 missing in probe" in said
    before = parts(corpus / "runs" / "facts")
    (corpus / "later.mp4").write_bytes((corpus / "good.mp4").read_bytes())
    said = say(retry.main, "--errors", "missing,unreadable", "--out", out)
    assert "3 clips are measured again: 2 unreadable in probe, 1 missing in probe" in said
    assert "score: 3 of 3 clips done" in said
    assert "of 3 retried 1 now measured, 2 failed again: 2 unreadable in probe" in said
    after = parts(corpus / "runs" / "facts")
    assert {name: after[name] for name in before} == before
    assert "failed: 2 unreadable in probe" in say(status.main, "--out", out)
    assert "failed: 2 unreadable in probe" in say(summary.main, "--out", out)
    said = say(retry.main, "--errors", "timeout", "--out", out)
    assert "no clip failed as timeout in a stage; failed are: 2 unreadable in probe" in said
    assert parts(corpus / "runs" / "facts") == after
    told = say(status.main, "--out", out)
    assert "probe: 3 files became 1, 0 that others had replaced are gone; 1 to read" in say(
        compact.main, "--out", out
    )
    assert say(status.main, "--out", out) == told


def test_too_many_failures_end_with_1_and_say_what_to_do(
    corpus: Path, say: Callable[..., str]
) -> None:
    out = corpus / "runs" / "one"
    said = say(probe.main, "--config", run_file(corpus, 0.5), code=1)
    assert f"{out}: 3 of 4 clips failed (75.0%, engine.failed_share allows 50.0%): 2 unr" in said
    command = f"python -m jobs.retry --errors missing,unreadable --out {out}"
    assert command in said
    assert say(probe.main, "--config", corpus / "run.toml", code=1).count(command) == 1
    for name in ("later.mp4", "torn.mp4"):
        (corpus / name).write_bytes((corpus / "good.mp4").read_bytes())
    said = say(retry.main, "--errors", "missing,unreadable", "--out", out)
    assert "of 3 retried 2 now measured, 1 failed again: 1 unreadable in probe" in said


def test_an_unknown_code_is_one_line(corpus: Path, say: Callable[..., str]) -> None:
    said = say(retry.main, "--errors", "decode_timeout", "--out", corpus / "no-run", code=2)
    assert said == "error: errors: unknown code decode_timeout; did you mean timeout?\n"
