"""What the corpus publishes is judged first, before anything is measured."""

from pathlib import Path

import pytest

from jobs.reading import published_filters
from jobs.settings import Run
from pipeline.errors import InputError
from pipeline.filters import FilterChange
from pipeline.manifest import Manifest, read_manifest
from pipeline.replay import judge
from pipeline.verdicts import check_sum, funnel

ROWS = "a.mp4,c,5.2,static\nb.mp4,c,5.4,pan\nshort\nc.mp4,c,,static\na.mp4,c,9,static\nd.mp4,c,6,\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "clips.csv").write_text(f"video,caption,aesthetic score,camera motion\n{ROWS}")
    return read_manifest(str(tmp_path / "clips.csv"))


def run(**limits: FilterChange) -> Run:
    return Run(filters={"manifest": {name.replace("_", " "): limits[name] for name in limits}})


def test_every_row_has_one_verdict_in_the_order_of_the_corpus(manifest: Manifest) -> None:
    asked = run(
        aesthetic_score=FilterChange(min=5.3), camera_motion=FilterChange(one_of=("static",))
    )
    verdicts = judge(manifest, (), published_filters(asked, manifest), {})
    check_sum(verdicts.table(), manifest)
    rows = verdicts.table().to_pylist()
    assert [(row["verdict"], row["measure"], row["value"], row["code"]) for row in rows] == [
        ("rejected", "aesthetic score", "5.2", None),
        ("rejected", "camera motion", "pan", None),
        ("failed", None, None, "malformed"),
        ("kept", None, None, None),  # without a score: our own measures will tell
        ("rejected", None, None, "duplicate"),
        ("kept", None, None, None),
    ]
    assert "rejected: wanted aesthetic score >= 5.3" in funnel(verdicts, ())


def test_a_run_may_ask_that_a_score_is_there(manifest: Manifest) -> None:
    asked = run(aesthetic_score=FilterChange(min=5.3, absent="reject"))
    verdicts = judge(manifest, (), published_filters(asked, manifest), {}).table()
    assert verdicts["code"].to_pylist()[3] == "absent"


def test_nothing_is_asked_of_what_no_run_names(manifest: Manifest) -> None:
    verdicts = judge(manifest, (), published_filters(Run(), manifest), {})
    assert verdicts.are("kept").tolist() == [True, True, False, True, False, True]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (run(aesthetic_scor=FilterChange(min=5)), "did you mean aesthetic score"),
        (run(camera_motion=FilterChange(min=5)), "wanted one_of"),
        (run(caption=FilterChange(one_of=("c",))), "no such measure"),
    ],
)
def test_a_column_that_is_not_there_is_refused(manifest: Manifest, asked: Run, words: str) -> None:
    with pytest.raises(InputError, match=words):
        published_filters(asked, manifest)
