"""The rehearsal: real classes, random weights, real files, and a word about each backend."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from jobs import rehearse

CLIPS = Path(__file__).parents[2].parent / "shared" / "clips"
LINES = [
    *("appearance", "motion", "overlay", "entities"),
    *("segment (transformers)", "pair (transformers)", "segment (original)", "pair (original)"),
]

Rehearse = Callable[..., tuple[int, str]]


@pytest.fixture
def rehearsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Rehearse:
    """The exit code of the job on two clips of a corpus, and what it said."""
    run = tmp_path / "run.toml"
    run.write_text("[filters.probe.short_side]\nmin = 160\n")

    def rehearsed(corpus: Path) -> tuple[int, str]:
        arguments = ["--config", str(run), "--corpus", str(corpus), "--clips", "2"]
        monkeypatch.setattr(sys, "argv", ["rehearse", *arguments])
        code = rehearse.main()
        return code, capsys.readouterr().out

    return rehearsed


@pytest.fixture
def drawn(draw: Callable[..., Path], tmp_path: Path) -> Path:
    """Two small clips, one with a caption."""
    (tmp_path / "clips").mkdir()
    for number in range(2):
        draw(tmp_path / "clips" / f"{number}.mp4", seed=number, speed=2.0)
    (tmp_path / "clips" / "0.txt").write_text("A red ball moves over a floor.")
    return tmp_path / "clips"


def test_every_backend_gives_each_clip_an_outcome(rehearsed: Rehearse, drawn: Path) -> None:
    """Of the real clips, where they are."""
    real = CLIPS / "clips.csv"
    code, said = rehearsed(real if real.exists() else drawn)
    assert code == 0, said
    found = re.findall(r"^(\w+(?: \(\w+\))?) +(\d) measured, (\d) failed", said, re.MULTILINE)
    assert [title for title, _, _ in found] == LINES
    assert all(int(measured) + int(failed) == 2 for _, measured, failed in found)
    assert "every backend works here" in said


def test_a_package_that_is_broken_is_one_line_and_the_code_1(
    rehearsed: Rehearse, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "segment_anything.py").write_text('raise ImportError("made for another torch")')
    monkeypatch.syspath_prepend(shadow)  # the hosts look where we look
    monkeypatch.setattr(rehearse, "REHEARSED", {"original": rehearse.REHEARSED["original"]})
    code, said = rehearsed(drawn)
    assert code == 1
    broken = [line for line in said.splitlines() if "does not work" in line]
    assert len(broken) == 1
    assert re.match(r"segment \(original\) +does not work: .*made for another torch$", broken[0])


@pytest.mark.parametrize(
    ("values", "clips", "code", "wrong"),
    [
        ([0.5, None], 2, None, ""),
        ([0.5, float("nan")], 2, None, "score is not a finite number"),
        ([0.5, 0.5], 3, None, "2 of 3 clips have an outcome"),
        ([0.5, None], 2, "no_mask", ""),
        ([0.5, None], 2, "changed", "b failed: changed: why"),
    ],
)
def test_what_random_weights_may_give_is_told_from_what_they_may_not(
    values: list[float | None], clips: int, code: str | None, wrong: str
) -> None:
    facts = pa.table(
        {
            "clip_id": ["a", "b"],
            "code": pa.array([None, code], pa.string()),
            "message": [None, "why"],
            "score": values,
            "embedding": [[0.5, 1.0], None],
        }
    )
    assert rehearse.what_is_wrong(facts, clips, ("no_mask",)) == wrong
