"""Small files become few, and nobody who reads, writes or is killed meanwhile can tell."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from toys import Length

from pipeline import ledger_file, storage
from pipeline.clip import Failed, Measurement
from pipeline.compaction import compact
from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.ledger_file import is_merged, is_part

FOREVER = """
import sys
from toys import Length
from pipeline.compaction import compact
from pipeline.ledger import Ledger
ledger = Ledger(sys.argv[1], [Length()])
print("runs", flush=True)
while True:
    compact(ledger, "length", most=2)
"""


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "facts")
    fsspec.filesystem("memory").store.clear()
    return "memory://facts"


def opened(url: str) -> Ledger:
    return Ledger(url, [Length()])


def append(ledger: Ledger, chance: random.Random, number: int) -> None:
    """A part with some measured, some failed clips; now and then clips to be measured again."""
    clips = [f"{clip:016d}" for clip in chance.sample(range(40), 5)]
    if number % 7 == 6:
        ledger.measure_again("length", clips, "asked for")
    else:
        failed = [(clips[0], Failed("timeout", f"in part {number}"))]
        measured = [(c, Measurement({"letters": number})) for c in clips[1:]]
        ledger.append({"length": [*failed, *measured]})


def filled(url: str, parts: int = 30, seed: int = 5) -> Ledger:
    ledger, chance = opened(url), random.Random(seed)
    for number in range(parts):
        append(ledger, chance, number)
    return ledger


def said(url: str) -> pa.Table:
    """All that a ledger says, read anew, by each of its ways of reading."""
    ledger = opened(url)
    facts = ledger.facts("length")
    assert ledger.facts_of("length", facts["clip_id"]).equals(facts)
    parts = pa.concat_tables(ledger.parts("length", ["letters"]))
    assert parts.sort_by("clip_id").equals(
        facts.select(["clip_id", "code", "letters"]).sort_by("clip_id")
    )
    return facts


def names(url: str) -> list[str]:
    return storage.names(opened(url).folder("length"))


def age(url: str, name: str, year: str = "2020") -> None:
    """As if a file had been written long ago."""
    kind, _, rest = name.partition("-")
    ledger = opened(url)
    storage.write(
        ledger.url("length", f"{kind}-{year}{rest[4:]}"), storage.read(ledger.url("length", name))
    )
    storage.remove(ledger.url("length", name))


def test_what_the_ledger_says_stays_the_same_to_the_bit(url: str) -> None:
    ledger = filled(url)
    before, parts = said(url), names(url)
    assert (compact(ledger, "length", most=29).merged, compact(ledger, "length").merged) == (30, 0)
    (merged,) = filter(is_merged, names(url))
    assert {*parts, merged} == set(names(url))
    assert said(url).equals(before)
    assert ledger.facts("length").equals(before)  # also for one that knew the parts
    for gone in range(0, 30, 3):  # killed while it deleted them
        storage.remove(ledger.url("length", parts[gone]))
        assert said(url).equals(before)
    assert list(opened(url).standing_files("length")) == [merged]


def test_a_part_that_comes_late_still_stands_in_its_place(url: str) -> None:
    """A writer's clock was behind, or its part long on its way: the first in order has to win."""
    ledger = filled(url, parts=5)
    late = [(f"{clip:016d}", Measurement({"letters": 99})) for clip in range(40)]
    ledger.append({"length": late})
    first, *_, last = names(url)
    content = storage.read(ledger.url("length", last))
    storage.remove(ledger.url("length", last))
    compact(ledger, "length", most=1)
    second = f"{first.rpartition('-')[0]}-ffffffff.parquet"
    storage.write(ledger.url("length", second), content)
    with_it = said(url)
    assert with_it["letters"].to_pylist().count(99) > 30
    for name in filter(is_merged, names(url)):
        storage.remove(ledger.url("length", name))
    assert said(url).equals(with_it)


def test_what_was_merged_is_merged_again(url: str) -> None:
    ledger, chance = filled(url, parts=6), random.Random(1)
    for number in range(6, 18):
        append(ledger, chance, number)
        before = said(url)
        compact(ledger, "length", most=4)
        assert said(url).equals(before)
    assert len(ledger.standing_files("length")) <= 5
    assert sum(map(is_part, names(url))) == 18


def test_full_files_are_left_alone(url: str) -> None:
    ledger = filled(url, parts=12)
    before, size = said(url), storage.size(ledger.url("length", names(url)[0]))
    assert compact(ledger, "length", most=3, full_bytes=4 * size).into > 2
    merged = set(filter(is_merged, names(url)))
    assert compact(ledger, "length", most=3, full_bytes=size).merged == 0
    assert set(filter(is_merged, names(url))) == merged
    assert said(url).equals(before)


def test_the_replaced_are_deleted_a_day_later_and_never_for_a_torn_file(url: str) -> None:
    ledger = filled(url)
    before = said(url)
    compact(ledger, "length", most=10)
    assert compact(ledger, "length").deleted == 0
    (merged,) = filter(is_merged, names(url))
    age(url, merged)
    (merged,) = filter(is_merged, names(url))
    whole = storage.read(ledger.url("length", merged))
    storage.write(ledger.url("length", merged), whole[: len(whole) // 2])
    assert compact(ledger, "length").deleted == 0
    storage.write(ledger.url("length", merged), whole)
    knew = opened(url)
    knew.facts("length")
    assert compact(ledger, "length").deleted == 30
    assert names(url) == [merged]
    assert said(url).equals(before)
    assert knew.facts("length").equals(before)


def test_who_reads_while_files_are_replaced_and_deleted_gets_every_row(url: str) -> None:
    ledger = filled(url)
    rows, parts = said(url).num_rows, names(url)
    reader = opened(url).parts("length")
    read = len(next(reader))
    compact(ledger, "length", most=10)
    for part in parts:  # a day later, to a reader that listed them
        storage.remove(ledger.url("length", part))
    assert read + sum(map(len, reader)) == rows


def test_two_at_once_are_harmless(url: str) -> None:
    filled(url)
    before, together = said(url), threading.Barrier(2)

    def work() -> None:
        ledger = opened(url)
        together.wait()
        compact(ledger, "length", most=3)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said(url).equals(before)
    ledger = opened(url)
    ledger.append({"length": [(f"{99:016d}", Measurement({"letters": 1}))]})
    before = said(url)
    compact(ledger, "length", most=1)
    for name in list(filter(is_merged, names(url))):
        age(url, name)
    compact(ledger, "length", most=1)
    assert said(url).equals(before)
    assert not any(map(is_part, names(url)))


def test_killed_at_any_moment_with_a_reader_and_a_writer_beside_it(tmp_path: Path) -> None:
    """The view is compared with that of the parts alone, which nobody deletes within a day."""
    url, chance = str(tmp_path / "facts"), random.Random(20261129)
    writer = filled(url, parts=12)
    merges = 0
    for run in range(3):
        with compacting(url) as process:
            for number in range(12 + 4 * run, 16 + 4 * run):
                append(writer, chance, number)
                time.sleep(chance.uniform(0, 0.03))
                found = said(url)
                merges = sum(map(is_merged, names(url)))
                assert found.equals(of_parts_alone(url, tmp_path / f"parts-{number}"))
            process.send_signal(signal.SIGKILL)
    assert merges > 2


@contextmanager
def compacting(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing else."""
    process = subprocess.Popen(
        [sys.executable, "-c", FOREVER, url],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        yield process


def of_parts_alone(url: str, copy: Path) -> pa.Table:
    folder = Path(opened(url).folder("length"))
    place = Path(opened(str(copy)).folder("length"))
    place.mkdir(parents=True)
    for name in filter(is_part, names(url)):
        (place / name).hardlink_to(folder / name)
    return opened(str(copy)).facts("length")


def test_a_merged_file_that_is_torn_leaves_its_parts(url: str) -> None:
    ledger = filled(url)
    before = said(url)
    compact(ledger, "length", most=10)
    (merged,) = filter(is_merged, names(url))
    whole = storage.read(ledger.url("length", merged))
    for damaged in (whole[:-9], whole[:60] + b"\0\0\0" + whole[63:]):  # its end, its rows
        storage.write(ledger.url("length", merged), damaged)
        assert said(url).equals(before)


def test_a_merged_file_says_whose_rows_it_holds(url: str) -> None:
    ledger = filled(url, parts=4)
    parts = names(url)
    compact(ledger, "length", most=1)
    (merged,) = filter(is_merged, names(url))
    pieces, replaces = ledger_file.made_of(ledger.url("length", merged))
    assert [(piece.part, piece.rows) for piece in pieces] == [(name, 5) for name in parts]
    assert replaces == set(parts)


def test_no_flipped_bit_of_a_file_changes_what_the_ledger_says(tmp_path: Path) -> None:
    """It is noticed, or changes nothing; a merged file then gives way to its parts."""
    url, chance = str(tmp_path / "facts"), random.Random(3)
    ledger = filled(url, parts=5)
    compact(ledger, "length", most=1)
    (merged,) = filter(is_merged, names(url))
    place, before = Path(ledger.url("length", merged)), opened(url).facts("length")
    whole = place.read_bytes()
    for _ in range(400):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        place.write_bytes(content)
        with suppress(InputError):  # a column's name
            assert opened(url).facts("length").equals(before)
