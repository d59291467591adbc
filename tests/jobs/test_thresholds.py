"""What other thresholds would do is told from the facts alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import thresholds, whatif
from jobs.curation import open_house, recorded
from jobs.settings import CorpusSettings, Run
from pipeline.clip import Measurement, clip_id
from pipeline.errors import InputError
from pipeline.stage import Source

SIDES = [480, 720, 1080, 1080, 2160]


def measured(stage: Source, **values: object) -> Measurement:
    return Measurement({**dict.fromkeys(stage.columns.names), **values})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    """A run of five clips, of which probe has seen all and appearance three; what a job says."""
    corpus = tmp_path / "clips.csv"
    names = [f"{number}.mp4" for number in range(len(SIDES))]
    corpus.write_text("\n".join(["video,caption", *(f"{name},a fox" for name in names)]))
    with open_house(Run(str(tmp_path / "run"), corpus=CorpusSettings(str(corpus)))) as house:
        probe, appearance = house.measures[:2]
        sizes = [
            measured(probe, short_side=side, num_frames=100, fps=24.0, codec="h264")
            for side in SIDES
        ]
        looks = [measured(appearance, min_intersection=0.5 + 0.1 * number) for number in range(3)]
        ids = [clip_id(name) for name in names]
        house.curation.ledger.append(
            {
                "probe": list(zip(ids, sizes, strict=True)),
                "appearance": list(zip(ids[2:], looks, strict=True)),
            }
        )

    def say(main: Callable[[], int], *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["job", "--out", str(tmp_path / "run"), *arguments])
        assert main() == 0
        return capsys.readouterr().out

    return say


def test_every_filter_has_its_table_in_80_columns(run) -> None:
    said = run(thresholds.main)
    assert max(map(len, said.splitlines())) <= 80
    sides = said[said.index("probe.short_side: >= 1080\n  kept 0, unknown 2") :].split("\n\n")[0]
    assert [line.split() for line in sides.splitlines()[4:]] == [
        ["0.0%", "480", "0", "4", "-", "-"],
        ["20.0%", "720", "0", "3", "-", "-"],
        ["40.0%", "1080", "0", "2", "0", "1", "min"],
        ["80.0%", "2160", "0", "1", "0", "2"],
    ]
    assert "appearance.min_intersection: >= 0.6" in said
    assert "measured of 3 clips; 2 not measured" in said


def test_one_measure_is_shown_alone(run) -> None:
    said = run(thresholds.main, "--measure", "probe.codec")
    assert said.splitlines()[0] == "probe.codec: no filter"
    assert said.splitlines()[4].split() == ["h264", "5", "0", "2"]
    with pytest.raises(InputError, match=r"probe\.colour: no such measure; wanted one of .*codec"):
        run(thresholds.main, "--measure", "probe.colour")


def test_a_measure_without_any_number_has_no_table(run, tmp_path: Path) -> None:
    with open_house(recorded(str(tmp_path / "run"))) as house:
        motion = house.measures[2]
        none = measured(motion, top5=float("nan"))
        house.curation.ledger.append({"motion": [(clip_id("4.mp4"), none)]})
    assert len(run(thresholds.main, "--measure", "motion.top5").splitlines()) == 4


def test_what_if_counts_the_reasons_before_it_names_the_clips(run, tmp_path: Path) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text("[filters.probe.short_side]\nmin = 720\n")
    said = run(whatif.main, "--config", str(changed))
    _, _, changes = said.partition("\n\n")
    assert [line.strip() for line in changes.splitlines()] == [
        "1 verdicts change:",
        "1  rejected: probe.short_side, wanted >= 1080 -> pending: appearance",
        "",
        "1.mp4 | rejected: probe.short_side 720, wanted >= 1080 -> pending: appearance",
    ]
