"""Parts never change; the first one that has a clip says what is known of it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.clip import Failed, Measurement, Outcome
from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.stage import Stage


class Colour(Stage):
    """A stage of which only name, columns and settings matter here."""

    name = "colour"
    version = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        [("hue", pa.float64()), ("word", pa.string()), ("others", pa.list_(pa.string()))]
    )

    def __init__(self, bins: int = 8) -> None:
        self.bins = bins

    def settings(self) -> dict[str, Any]:
        return {"bins": self.bins}

    def measure(self, clips, frames, facts) -> Sequence[Outcome]:
        raise NotImplementedError


class WiderColour(Colour):
    """The same address with one more column: somebody forgot to raise the version."""

    columns = pa.schema([*Colour.columns, ("depth", pa.int64())])


def colour(hue: float | None, word: str = "red", others: Sequence[str] = ()) -> Measurement:
    return Measurement({"hue": hue, "word": word, "others": list(others)})


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "facts")
    fsspec.filesystem("memory").store.clear()
    return "memory://facts"


def parts(ledger: Ledger) -> list[str]:
    return storage.names(ledger.folder("colour"))


def test_outcomes_come_back_as_they_were(url: str) -> None:
    rows: list[tuple[str, Outcome]] = [
        ("a", colour(0.5, "dünn", ["x", "y"])),
        ("b", Failed("partial", "12 of 20 frames")),
        ("c", colour(None)),
    ]
    Ledger(url, [Colour()]).append({"colour": rows})
    absent = {"code": None, "message": None}
    assert Ledger(url, [Colour()]).facts("colour").to_pylist() == [
        {"clip_id": "a", **absent, "hue": 0.5, "word": "dünn", "others": ["x", "y"]},
        {
            "clip_id": "b",
            "code": "partial",
            "message": "12 of 20 frames",
            "hue": None,
            "word": None,
            "others": None,
        },
        {"clip_id": "c", **absent, "hue": None, "word": "red", "others": []},
    ]


def test_of_two_writers_the_first_part_wins(url: str) -> None:
    one, two = Ledger(url, [Colour()]), Ledger(url, [Colour()])
    one.append({"colour": [("a", colour(1.0)), ("b", colour(1.0)), ("b", colour(1.5))]})
    two.append({"colour": [("b", colour(2.0)), ("c", colour(2.0))]})
    for ledger in (one, two):
        facts = ledger.facts("colour")
        hues = dict(zip(facts["clip_id"].to_pylist(), facts["hue"].to_pylist(), strict=True))
        assert hues == {"a": 1.0, "b": 1.0, "c": 2.0}
        assert ledger.measured("colour") == {"a", "b", "c"}


def test_a_view_sees_what_came_since(url: str) -> None:
    ledger, other = Ledger(url, [Colour()]), Ledger(url, [Colour()])
    assert ledger.facts("colour").num_rows == 0
    other.append({"colour": [("a", colour(1.0))]})
    assert ledger.measured("colour") == {"a"}
    other.append({"colour": [("b", colour(1.0))]})
    assert ledger.measured("colour") == {"a", "b"}


def test_a_stage_without_outcomes_gets_no_part(url: str) -> None:
    ledger = Ledger(url, [Colour()])
    ledger.append({"colour": []})
    assert parts(ledger) == []


def test_other_settings_are_other_facts(url: str) -> None:
    Ledger(url, [Colour(8)]).append({"colour": [("a", colour(1.0))]})
    assert Ledger(url, [Colour(16)]).measured("colour") == set()
    assert Ledger(url, [Colour(8)]).measured("colour") == {"a"}


def test_a_part_says_how_its_numbers_were_made(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), [Colour(16)])
    ledger.append({"colour": [("a", colour(1.0))]})
    said = pq.read_schema(Path(ledger.folder("colour"), parts(ledger)[0])).metadata
    assert said[b"version"] == b"1"
    assert said[b"settings"] == b'{"bins": 16}'


def test_a_torn_part_is_left_out_and_named(url: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(url, [Colour()])
    ledger.append({"colour": [("a", colour(1.0))]})
    ledger.append({"colour": [("b", colour(1.0))]})
    torn = storage.join(ledger.folder("colour"), parts(ledger)[0])
    storage.write(torn, storage.read(torn)[:-20])
    with caplog.at_level(logging.WARNING):
        again = Ledger(url, [Colour()])
        assert again.measured("colour") == {"b"}
        assert again.measured("colour") == {"b"}
        again.facts_of("colour", pa.chunked_array([["a"]]))
    assert [torn in record.getMessage() for record in caplog.records] == [True]
    again.set_aside("colour", torn.rpartition("/")[2])
    assert [name.rpartition(".")[2] for name in parts(again)] == ["torn", "parquet"]


def test_a_part_with_other_columns_is_an_error_that_names_it(url: str) -> None:
    Ledger(url, [Colour()]).append({"colour": [("a", colour(1.0))]})
    ledger = Ledger(url, [WiderColour()])
    with pytest.raises(InputError, match=rf"{parts(ledger)[0]}.*depth.*raise the version"):
        ledger.facts("colour")


def test_parts_read_before_are_not_read_again(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), [Colour()])
    ledger.append({"colour": [("a", colour(1.0))]})
    assert ledger.measured("colour") == {"a"}
    Path(ledger.folder("colour"), parts(ledger)[0]).write_bytes(b"nobody looks at this again")
    ledger.append({"colour": [("b", colour(1.0))]})
    assert ledger.measured("colour") == {"a", "b"}


@pytest.mark.parametrize("values", [{"hue": 1.0}, {"hue": "red", "word": "", "others": []}])
def test_a_measurement_that_does_not_fit_is_a_bug(url: str, values: dict[str, Any]) -> None:
    ledger = Ledger(url, [Colour()])
    with pytest.raises(ValueError, match=r"stage colour: .*(hue|others)"):
        ledger.append({"colour": [("a", Measurement(values))]})
    assert parts(ledger) == []


def test_what_is_not_a_part_is_no_fact(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), [Colour()])
    folder = Path(ledger.folder("colour"))
    folder.mkdir(parents=True)
    (folder / "lease.json").write_text("{}")
    pq.write_table(pa.table({"clip_id": ["a"]}), folder / "part-x.parquet.torn")
    assert ledger.measured("colour") == set()


def test_only_the_columns_asked_for_are_read(url: str) -> None:
    ledger = Ledger(url, [Colour()])
    ledger.append({"colour": [("a", colour(1.0)), ("b", Failed("partial", "12 of 20"))]})
    ledger.append({"colour": [("a", colour(2.0)), ("c", colour(3.0))]})
    assert ledger.facts("colour", ["hue"]).to_pylist() == [
        {"clip_id": "a", "code": None, "hue": 1.0},
        {"clip_id": "b", "code": "partial", "hue": None},
        {"clip_id": "c", "code": None, "hue": 3.0},
    ]
    assert [part.num_rows for part in ledger.parts("colour", ["word"])] == [2, 1]
    with pytest.raises(KeyError, match=r"no columns.*shade"):
        ledger.facts("colour", ["shade"])


def test_the_facts_of_some_clips_are_those_of_the_whole(url: str) -> None:
    ledger = Ledger(url, [Colour()])
    for hue in (1.0, 2.0):
        ledger.append({"colour": [(clip, colour(hue)) for clip in ("a", "b", "c")]})
    some = ledger.facts_of("colour", pa.chunked_array([["c", "z", "a"]]))
    assert some.equals(ledger.facts("colour").take([0, 2]))


def hues(ledger: Ledger) -> dict[str, float | str | None]:
    """What counts of every clip: its hue, or the code of its failure."""
    rows = ledger.facts("colour").to_pylist()
    return {row["clip_id"]: row["code"] or row["hue"] for row in rows}


def test_a_clip_that_is_to_be_measured_again_is_not_known_until_it_is(url: str) -> None:
    ledger, other = Ledger(url, [Colour()]), Ledger(url, [Colour()])
    ledger.append({"colour": [("a", Failed("timeout", "")), ("b", colour(1.0))]})
    ledger.append({"colour": [("a", colour(9.0)), ("c", Failed("crash", ""))]})
    ledger.measure_again("colour", ["a", "c"], "asked for")
    assert hues(ledger) == hues(other) == {"b": 1.0}
    assert [len(part) for part in ledger.parts("colour", ["hue"])] == [1, 0, 0]
    ledger.append({"colour": [("a", colour(2.0))]})
    other.append({"colour": [("a", colour(3.0)), ("c", Failed("crash", ""))]})
    for each in (ledger, other):
        assert hues(each) == {"b": 1.0, "a": 2.0, "c": "crash"}
        some = each.facts_of("colour", pa.chunked_array([["c", "a"]]))
        assert some.equals(each.facts("colour").filter([False, True, True]))
    ledger.measure_again("colour", ["c"], "asked for once more")
    assert hues(other) == {"b": 1.0, "a": 2.0}


def test_a_slow_clock_writes_behind_what_it_has_seen(url: str) -> None:
    ledger = Ledger(url, [Colour()])
    ledger.append({"colour": [("a", Failed("timeout", ""))]})
    first = storage.join(ledger.folder("colour"), parts(ledger)[0])
    ahead = storage.join(ledger.folder("colour"), "part-29991231T235959.000000Z-00000000.parquet")
    storage.write(ahead, storage.read(first))
    storage.remove(first)
    slow = Ledger(url, [Colour()])
    slow.measure_again("colour", ["a"], "asked for")
    assert hues(slow) == {}
    slow.append({"colour": [("a", colour(1.0))]})
    assert hues(Ledger(url, [Colour()])) == {"a": 1.0}


def test_a_part_whose_bytes_have_rotted_is_noticed(url: str) -> None:
    ledger = Ledger(url, [Colour()])
    ledger.append({"colour": [(f"{n}", colour(n / 7)) for n in range(1000)]})
    rotten = storage.join(ledger.folder("colour"), parts(ledger)[0])
    content = bytearray(storage.read(rotten))
    content[len(content) // 2] ^= 1
    storage.write(rotten, bytes(content))
    assert hues(Ledger(url, [Colour()])) == {}
