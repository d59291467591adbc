"""Of clips that look alike one is kept: the first that nothing else rejects."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from pipeline.clip import Failed, Measurement, Outcome, clip_id
from pipeline.compare import run_comparison
from pipeline.crowds import MOST
from pipeline.errors import InputError
from pipeline.filters import Changes, Filter, FilterChange, defaults, merge
from pipeline.ledger import Ledger
from pipeline.manifest import read_manifest
from pipeline.neighbours import NearDuplicate, Pairs, Vectors, copies
from pipeline.passes import Curation
from pipeline.progress import Progress
from pipeline.stage import Stage
from pipeline.verdicts import reason
from pipeline.yields import Yield, Yields

NAMES = ["a", "b", "c", "d", "e", "f"]


class Appearance(Stage):
    """Its name, its embedding and a score matter here."""

    name = "appearance"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        {"score": pa.float64(), "embedding": pa.list_(pa.float16())}
    )
    filters: ClassVar[Mapping[str, Filter]] = {"score": Filter(min=5.0)}

    def settings(self) -> Mapping[str, Any]:
        return {}

    def measure(self, clips, frames, facts) -> Sequence[Outcome]:
        raise NotImplementedError


STAGES = (Appearance(), NearDuplicate())


def at(degrees: float, score: float = 6.0) -> Measurement:
    """A clip that looks in this direction: cos 5 degrees is 0.996, cos 10 degrees 0.985."""
    angle = np.deg2rad(degrees)
    return Measurement({"score": score, "embedding": [np.cos(angle), np.sin(angle)]})


@pytest.fixture
def house(tmp_path: Path):
    """A run over six clips: (filters changed) -> its curation, all with one ledger."""
    corpus = tmp_path / "clips.csv"
    corpus.write_text("\n".join(["video,caption", *(f"{name},c" for name in NAMES), "a,c"]))
    manifest = read_manifest(str(corpus))
    ledger = Ledger(str(tmp_path / "facts"), STAGES)

    def make(**changes: FilterChange) -> Curation:
        tables: Changes = {
            stage: {measure: changes[measure]}
            for stage, measure in (("appearance", "score"), ("near_duplicate", "similarity"))
            if measure in changes
        }
        filters = merge(defaults(STAGES), tables)
        return Curation(manifest, STAGES, filters, ledger)

    return make


def measured(curation: Curation, **outcomes: Outcome) -> None:
    rows = [(clip_id(name), outcome) for name, outcome in outcomes.items()]
    curation.ledger.append({"appearance": rows})


def compare(curation: Curation, tmp_path: Path, stops: bool = False) -> int:
    def progress(name: str, total: int) -> Progress:
        return Progress(name, total, str(tmp_path / "status.json"), runner="local")

    return run_comparison("duplicates", curation, lambda: stops, 30.0, progress).todo


def said(curation: Curation) -> list[str]:
    return [reason(row) for row in curation.verdicts().table().to_pylist()[: len(NAMES)]]


def test_the_first_of_near_copies_is_kept_and_the_others_name_it(house, tmp_path) -> None:
    run = house()
    measured(run, a=at(0, score=4.0), b=at(0), c=at(5), d=at(14), e=at(90), f=Failed("torn", ""))
    assert said(run)[1] == "pending: near_duplicate"
    assert compare(run, tmp_path) == 4
    assert said(run) == [
        "rejected: appearance.score 4, wanted >= 5",
        "kept",
        "rejected: near_duplicate.similarity 0.9962 to b, wanted <= 0.98",
        "kept",  # 9 degrees from c, which is no longer there
        "kept",
        "failed: appearance torn",
    ]
    assert compare(run, tmp_path) == 0


def test_other_thresholds_are_replayed(house, tmp_path) -> None:
    run = house()
    measured(run, a=at(0, score=4.0), b=at(0), c=at(5), d=at(14), e=at(90))
    compare(run, tmp_path)
    strict = house(similarity=FilterChange(max=0.999))
    assert [word.partition(":")[0] for word in said(strict)[1:5]] == ["kept"] * 4
    without = house(similarity=FilterChange(off=True))
    assert said(without)[1:5] == ["kept"] * 4
    loose = house(score=FilterChange(min=3.0))
    assert said(loose)[:2] == ["pending: near_duplicate", "kept"]
    assert compare(loose, tmp_path) == 1
    assert said(loose)[1] == "rejected: near_duplicate.similarity 1 to a, wanted <= 0.98"
    low = house(similarity=FilterChange(max=0.5))
    with pytest.raises(InputError, match=r"max 0\.5 below the floor.*wanted 0\.9"):
        compare(low, tmp_path)


def test_a_clip_that_comes_later_is_compared_with_those_that_were_there(house, tmp_path) -> None:
    run = house()
    measured(run, b=at(0), e=at(90))
    compare(run, tmp_path)
    measured(run, a=at(1), d=at(91))
    assert compare(run, tmp_path) == 2
    assert said(run)[:5] == [
        "kept",
        "rejected: near_duplicate.similarity 0.9998 to a, wanted <= 0.98",
        "pending: appearance",
        "kept",
        "rejected: near_duplicate.similarity 0.9998 to d, wanted <= 0.98",
    ]


def test_without_the_filter_nothing_waits_for_a_comparison(house, tmp_path) -> None:
    run = house(similarity=FilterChange(off=True))
    measured(run, a=at(0), b=at(0))
    assert said(run)[:2] == ["kept", "kept"]
    assert compare(run, tmp_path) == 0


def test_a_clip_without_an_embedding_has_no_copies(house, tmp_path) -> None:
    run = house()
    measured(run, a=Measurement({"score": 6.0, "embedding": None}), b=at(0))
    compare(run, tmp_path)
    assert said(run)[:2] == ["kept", "kept"]


def test_a_copy_of_a_copy_is_kept_unless_it_is_like_one_that_is() -> None:
    draw = np.random.default_rng(7)
    for _ in range(200):
        alike = np.triu(draw.random((12, 12)) < 0.2, 1)
        earlier, later = np.nonzero(alike)
        kept: list[int] = []
        for row in range(12):
            if not any(alike[first, row] for first in kept):
                kept.append(row)
        found = copies(Pairs(later, earlier, draw.random(len(later))), 12)
        assert sorted(set(range(12)) - set(kept)) == found.later.tolist()
        assert set(found.earlier.tolist()) <= set(kept)


@pytest.fixture
def crowded(tmp_path: Path) -> Callable[..., Curation]:
    """A run over so many clips that all look alike, of which the first ones have bad scores."""

    def make(count: int, later: int, bad: int = 0) -> Curation:
        names = [f"{number}" for number in range(count)]
        corpus = tmp_path / "clips.csv"
        corpus.write_text("\n".join(["video,caption", *(f"{name},c" for name in names)]))
        manifest = read_manifest(str(corpus))
        ledger = Ledger(str(tmp_path / "facts"), STAGES)
        run = Curation(manifest, STAGES, merge(defaults(STAGES), {}), ledger)
        looks = {name: at(0, score=4.0 if int(name) < bad else 6.0) for name in names}
        for some in (names[later:], names[:later]):
            measured(run, **{name: looks[name] for name in some})
            compare(run, tmp_path)
        return run

    return make


@pytest.mark.parametrize(("later", "bad"), [(0, 0), (0, 20), (300, 0), (300, 20)])
def test_of_a_crowd_one_is_kept_though_not_all_pairs_are_recorded(crowded, later, bad) -> None:
    run = crowded(600, later, bad)
    kept = np.flatnonzero(run.verdicts().are("kept"))
    assert kept.tolist() == [bad]
    recorded = run.ledger.facts(NearDuplicate.name)["others"].combine_chunks().value_lengths()
    assert sum(recorded.to_pylist()) <= 2 * 2 * MOST * 600  # in two passes, of 359,400


@pytest.mark.parametrize("width", [8, 256])
def test_every_pair_is_found_that_is_there(width: int) -> None:
    draw = np.random.default_rng(width)
    spread = np.arange(1, width + 1) ** -0.5
    vectors = draw.standard_normal((900, width)) * spread + spread
    vectors[600:] = vectors[:300] + draw.standard_normal((300, width)) * spread * 0.4
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    cosines = exact @ exact.T
    np.fill_diagonal(cosines, 0)
    block = np.arange(100, 700)
    found = zip(*Vectors(vectors, 0.9).near(block), strict=True)
    i, j, cosine = (np.concatenate(column) for column in found)
    wanted = np.argwhere(cosines[block] >= 0.9)
    assert len(wanted) > 100
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(m, n) for m, n in wanted.tolist()]
    np.testing.assert_allclose(cosine, cosines[block][i, j], rtol=0, atol=1e-12)


def test_the_yield_of_a_threshold_is_what_its_replay_keeps(house, tmp_path) -> None:
    run = house(score=FilterChange(min=3.0))
    measured(run, a=at(0, score=4.0), b=at(0), c=at(5), d=at(14, 5.5), e=at(90, 5.2))
    compare(run, tmp_path)
    run = house()
    yields = Yields(run.replay(), run.filters)
    scores = [3.0, 4.5, 5.3, 5.8, 7.0]
    found = yields.at("appearance", "score", [Filter(min=score) for score in scores])
    for score, one in zip(scores, found, strict=True):
        verdicts = house(score=FilterChange(min=score)).verdicts()
        assert one.kept == int(verdicts.are("kept").sum())
    assert found[0] == Yield(kept=3, unknown=1)
    bounds = [0.95, 0.99, 0.999]
    found = yields.at("near_duplicate", "similarity", [Filter(max=bound) for bound in bounds])
    for bound, one in zip(bounds, found, strict=True):
        verdicts = house(similarity=FilterChange(max=bound)).verdicts()
        assert one.kept == int(verdicts.are("kept").sum())
