"""Many small files of the ledger become few; what the ledger says stays the same to the bit.

A merged file is written whole under a new name before anything else happens, and the files that it
stands for stay for a day: whoever is killed, reads or writes meanwhile finds every row, once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline import ledger_file, storage
from pipeline.ledger import Ledger
from pipeline.ledger_file import Contents, DamagedError, MergedWriter

_log = logging.getLogger(__name__)

MOST_FILES = 100
"""Above so many small files a stage is worth it: every command opens all of them."""
FULL_BYTES = 64 << 20
"""A merged file grows up to here; it is held in memory while it is written, and while read."""
KEEP = timedelta(days=1)
"""How long the files that it replaces stay: longer than anybody reads one listing (the design)."""
_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Compacted:
    """merged: files that are new ones now; into: how many those are; deleted: replaced long ago."""

    merged: int
    into: int
    deleted: int


def compact(
    ledger: Ledger, stage: str, most: int = MOST_FILES, full_bytes: int = FULL_BYTES
) -> Compacted:
    """Merges the small files of a stage if there are more than `most`, and deletes what files that
    are a day old replace. Two at once do the work twice, and no harm.

    Raises InputError where nothing can be written; then nothing has changed.
    """
    deleted = _delete_replaced(ledger, stage)
    names = list(ledger.standing_files(stage))
    if len(names) <= most:
        return Compacted(0, 0, deleted)
    sizes = storage.sizes(ledger.folder(stage))
    small = [name for name in names if sizes.get(name, full_bytes) < full_bytes / 2]
    if len(small) <= most:
        return Compacted(0, 0, deleted)
    _log.warning("%s: its facts lie in %d small files, which are merged", stage, len(small))
    merged = into = 0
    for group in _groups(small, sizes, full_bytes):
        count = _merge(ledger, stage, group)
        merged, into = merged + count, into + (count > 0)
    return Compacted(merged, into, deleted)


def _groups(
    names: Sequence[str], sizes: dict[str, int], full_bytes: int
) -> Iterator[Sequence[str]]:
    """Neighbours that make a full file together; one alone stays."""
    group: list[str] = []
    filled = 0
    for name in names:
        if len(group) > 1 and filled + sizes[name] > full_bytes:
            yield group
            group, filled = [], 0
        group.append(name)
        filled += sizes[name]
    if len(group) > 1:
        yield group


def _merge(ledger: Ledger, stage: str, names: Sequence[str]) -> int:
    """Writes one file that replaces these; how many it replaces. Torn ones are left out."""
    writer = MergedWriter(ledger.schema(stage), ledger.about(stage), _ROWS_AT_ONCE)
    seen: set[str] = set()
    replaces: list[str] = []
    for name in names:
        contents = _whole(ledger, stage, name)
        if contents is None:
            continue
        replaces.append(name)
        for part, rows in contents.by_part():
            if part not in seen:
                seen.add(part)
                writer.add(part, rows)
    if not replaces:
        return 0
    url = ledger.url(stage, ledger_file.new_name(ledger_file.MERGED, ledger.latest(stage)))
    storage.create(url, writer.finish(replaces))
    return len(replaces)


def _delete_replaced(ledger: Ledger, stage: str) -> int:
    """Deletes what merged files of yesterday stand for, after a look at every byte of them."""
    there = set(ledger.files(stage))
    deleted = 0
    for name in sorted(filter(_is_of_yesterday, there)):
        try:
            _, replaces = ledger_file.made_of(ledger.url(stage, name))
        except (DamagedError, FileNotFoundError):
            continue
        gone = sorted(replaces & there)
        if gone and _whole(ledger, stage, name) is not None:
            for old in gone:
                storage.remove(ledger.url(stage, old))
            there.difference_update(gone)
            deleted += len(gone)
    return deleted


def _is_of_yesterday(name: str) -> bool:
    written = ledger_file.time_of(name)
    old = written is not None and datetime.now(UTC) - written > KEEP
    return old and ledger_file.is_merged(name)


def _whole(ledger: Ledger, stage: str, name: str) -> Contents | None:
    """All of a file; None when it is torn, or gone by now."""
    schema = ledger.schema(stage)
    try:
        return ledger_file.read(ledger.url(stage, name), schema, schema.names)
    except (DamagedError, FileNotFoundError):
        return None
