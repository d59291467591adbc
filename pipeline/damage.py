"""Which files of a ledger, and which builds that it names, are not what they should be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline import ledger_file, storage
from pipeline.errors import InputError, StoreError
from pipeline.ledger import Ledger
from pipeline.ledger_file import DamagedError

_READERS = 4
"""Builds read at once: an object store answers slowly."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is damaged or missing: what was found, and what it costs to mend.

    stage: whose pass makes it again; clips: those that have to be measured again for it, as far as
    a file does not say so by its absence.
    """

    url: str
    found: str
    cost: str
    stage: str = ""
    clips: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.url}: {self.found}; to mend it, {self.cost}"


def of_facts(ledger: Ledger, stage: str, tick: Callable[[int], None]) -> Iterator[Damage]:
    """The files of a stage that cannot be read, or have other columns; tick: told of each file."""
    schema = ledger.schema(stage)
    there = set(ledger.files(stage))
    for name in ledger.standing_files(stage):
        url = ledger.url(stage, name)
        try:
            ledger_file.read(url, schema, schema.names)
        except StoreError:
            raise
        except (DamagedError, InputError) as error:
            found = "is damaged" if isinstance(error, DamagedError) else "has other columns"
            yield Damage(url, f"{found} ({error})", _cost(url, stage, there), stage)
        tick(1)


def of_builds(
    ledger: Ledger, stage: str, builds_url: str, tick: Callable[[int], None]
) -> Iterator[Damage]:
    """The builds of a stage that are missing, or others than recorded; tick: told of each build."""
    facts = ledger.facts(stage, ["name", "bytes", "sha256"])
    rows = facts.filter(facts["code"].is_null()).to_pylist()
    with ThreadPoolExecutor(_READERS) as readers:
        for some in _batched(rows):
            found = readers.map(
                lambda row: _problem(storage.join(builds_url, row["name"]), row), some
            )
            for row, problem in zip(some, found, strict=True):
                if problem:
                    url = storage.join(builds_url, row["name"])
                    cost = "its clip is built again"
                    yield Damage(url, problem, cost, stage, (row["clip_id"],))
            tick(len(some))


def num_builds(ledger: Ledger, stage: str) -> int:
    """How many there should be."""
    return ledger.facts(stage, ())["code"].null_count


def _batched(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), _READERS):
        yield rows[start : start + _READERS]


def _problem(url: str, row: Mapping[str, Any]) -> str | None:
    try:
        content = storage.read(url)
    except FileNotFoundError:
        return "is missing"
    if len(content) != row["bytes"]:
        return f"has {len(content)} bytes, wanted {row['bytes']}"
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        return "has another sha256 than recorded"
    return None


def _cost(url: str, stage: str, there: set[str]) -> str:
    """Of a file of facts."""
    try:
        pieces, replaces = ledger_file.made_of(url)
    except DamagedError:
        return f"those of its clips that no other file knows are measured again by {stage}"
    if replaces and replaces <= there:
        return "nothing is measured: the files that it stands for are still there"
    rows = sum(piece.rows for piece in pieces)
    return f"up to {rows} clips are measured again by {stage}"
