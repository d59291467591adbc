"""Every manifest row has one verdict, with the first reason in the order of the stages."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from pipeline.clip import Failed, Measurement, Outcome, clip_id
from pipeline.errors import InputError
from pipeline.filters import Filter, Filters, defaults, first_rejection
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest, read_manifest
from pipeline.replay import judge
from pipeline.stage import Stage
from pipeline.verdicts import check_sum, flip_counts, flips, funnel, reason, tally


class Size(Stage):
    """The first stage of two."""

    name = "size"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema([("side", pa.int64()), ("score", pa.float64())])
    filters: ClassVar[Mapping[str, Filter]] = {
        "side": Filter(min=1080),
        "score": Filter(min=5.3, absent="pass"),
    }

    def settings(self) -> Mapping[str, Any]:
        return {}

    def measure(self, clips, frames, facts) -> Sequence[Outcome]:
        raise NotImplementedError


class Kind(Size):
    """The second one."""

    name = "kind"
    columns = pa.schema([("word", pa.string())])
    filters: ClassVar[Mapping[str, Filter]] = {"word": Filter(one_of=("human", "animal"))}


STAGES = (Size(), Kind())


def size(side: int, score: float | None) -> Measurement:
    return Measurement({"side": side, "score": score})


def kind(word: str | None) -> Measurement:
    return Measurement({"word": word})


@pytest.fixture
def listed(tmp_path):
    """Makes a manifest and a ledger of these rows: (CSV rows, outcomes) -> (manifest, facts)."""

    def make(rows: Sequence[str], **outcomes: Mapping[str, Outcome]):
        corpus = tmp_path / "clips.csv"
        corpus.write_text("\n".join(["video,caption", *rows]))
        ledger = Ledger(str(tmp_path / "facts"), STAGES)
        ledger.append(
            {
                stage: [(clip_id(video), outcome) for video, outcome in of.items()]
                for stage, of in outcomes.items()
            }
        )
        return read_manifest(str(corpus)), {s.name: ledger.facts(s.name) for s in STAGES}

    return make


def reasons(manifest: Manifest, facts: Mapping[str, pa.Table], filters: Filters) -> list[str]:
    return [reason(row) for row in judge(manifest, STAGES, filters, facts).table().to_pylist()]


def test_the_reason_is_the_first_in_order(listed) -> None:
    sizes: dict[str, Outcome] = {
        "good": size(1080, 5.5),
        "small": size(720, 1.0),
        "ugly": size(1080, 5.0),
        "unscored": size(2160, None),
        "broken": Failed("partial", "12 of 20 frames"),
        "house": size(1080, 6.0),
        "wordless": size(1080, 6.0),
        "waiting": size(1080, 6.0),
    }
    kinds: dict[str, Outcome] = {
        **dict.fromkeys(("good", "small", "unscored", "broken"), kind("human")),
        "house": kind("building"),
        "wordless": kind(None),
    }
    rows = ["a,b,c", *(f"{name},c" for name in sizes), "new,c", "good,c"]
    manifest, facts = listed(rows, size=sizes, kind=kinds)
    assert reasons(manifest, facts, defaults(STAGES)) == [
        "failed: manifest malformed",
        "kept",
        "rejected: size.side 720, wanted >= 1080",
        "rejected: size.score 5, wanted >= 5.3",
        "kept",
        "failed: size partial",
        "rejected: kind.word building, wanted one of human, animal",
        "failed: kind.word absent, wanted one of human, animal",
        "pending: kind",
        "pending: size",
        "rejected: manifest duplicate",
    ]


def test_verdicts_add_up_to_the_manifest(listed) -> None:
    manifest, facts = listed(["a,c", "b,c", "c,c"], size={"a": size(1080, 6), "b": size(1, 6)})
    verdicts = judge(manifest, STAGES, defaults(STAGES), facts)
    assert tally(verdicts) == {"kept": 0, "rejected": 1, "failed": 0, "pending": 2}
    check_sum(verdicts.table(), manifest)
    with pytest.raises(ValueError, match="2 verdicts are not those of 3 rows"):
        check_sum(verdicts.table().slice(1), manifest)


def test_without_filters_what_was_measured_is_kept(listed) -> None:
    manifest, facts = listed(["a,c"], size={"a": size(1, 0)}, kind={"a": kind(None)})
    assert reasons(manifest, facts, {}) == ["kept"]
    off = {"size": {"side": Filter(min=1080, off=True)}}
    assert reasons(manifest, facts, off) == ["kept"]


def test_a_replay_says_what_the_workers_said(listed) -> None:
    draw = random.Random(3)
    names = [f"clip {i}" for i in range(300)]
    sizes = {n: size(draw.choice([720, 1080]), draw.choice([None, 5.0, 6.0])) for n in names}
    kinds = {n: kind(draw.choice(["human", "building", None])) for n in names}
    manifest, facts = listed([f"{n},c" for n in names], size=sizes, kind=kinds)
    for absent in ("pass", "reject", "fail"):
        filters = {
            "size": {"score": Filter(min=5.3, absent=absent), "side": Filter(min=1080)},
            "kind": {"word": Filter(one_of=("human",), absent=absent)},
        }
        verdicts = judge(manifest, STAGES, filters, facts).table().to_pylist()
        for name, verdict in zip(names, verdicts, strict=True):
            said = first_rejection(filters["size"], sizes[name].values)
            said = said or first_rejection(filters["kind"], kinds[name].values)
            word = "kept" if said is None else "failed" if said.failed else "rejected"
            assert verdict["verdict"] == word
            if said is not None:
                fields = ("measure", "value", "threshold", "code")
                assert [verdict[f] for f in fields] == [getattr(said, f) for f in fields]


def test_flips_are_the_rows_with_another_verdict(listed) -> None:
    manifest, facts = listed(
        ["a,c", "b,c"],
        size={"a": size(720, 6), "b": size(1080, 6)},
        kind={"a": kind("human"), "b": kind("human")},
    )
    before = judge(manifest, STAGES, defaults(STAGES), facts)
    after = judge(manifest, STAGES, {"size": {"side": Filter(min=720)}}, facts)
    flipped = flips(before, after)
    assert flipped.tolist() == [0]
    assert [reason(row) for row in before.table(flipped).to_pylist()] == [
        "rejected: size.side 720, wanted >= 1080"
    ]
    assert flip_counts(before, after, flipped) == {
        ("rejected: size.side, wanted >= 1080", "kept"): 1
    }
    assert len(flips(after, after)) == 0
    other, _ = listed(["a,c"])
    with pytest.raises(InputError, match="of other clips"):
        flips(judge(other, STAGES, {}, facts), after)


def test_the_funnel_shows_what_left_it_where(listed) -> None:
    manifest, facts = listed(
        ["a,c", "b,c", "c,c", "d,c", "e,c", "a,c", "f,c", "g,c"],
        size={
            **dict.fromkeys("ab", size(720, 6)),
            "c": Failed("unreadable", ""),
            **dict.fromkeys("def", size(1080, 6)),
        },
        kind={"d": kind("human"), "e": kind(None)},
    )
    verdicts = judge(manifest, STAGES, defaults(STAGES), facts)
    text = funnel(verdicts, STAGES)
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "rows of the manifest 8 100.0%",
        "rejected: duplicate 1 12.5%",
        "-> size 7 87.5%",
        "rejected: wanted side >= 1080 2 25.0%",
        "failed: unreadable 1 12.5%",
        "pending 1 12.5%",
        "-> kind 3 37.5%",
        "failed: word is absent 1 12.5%",
        "pending 1 12.5%",
        "kept 1 12.5%",
        "rejected 3 37.5%",
        "failed 2 25.0%",
        "pending 2 25.0%",
    ]
    assert max(map(len, text.splitlines())) <= 80
