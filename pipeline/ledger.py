"""Facts on disk: parts that never change, and the view over them.

Layout: `<url>/<stage>/<fingerprint>/part-<time>-<random>.parquet`. Per clip the first part in
(time, name) order that has it wins, so that two writers cost work, never a wrong row.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import ids, storage
from pipeline.clip import Failed, Outcome
from pipeline.errors import InputError
from pipeline.stage import Source, fingerprints

_log = logging.getLogger(__name__)

_READERS = 8
"""Parts read at once: an object store answers slowly, and to many at a time."""

_View = tuple[str, tuple[str, ...]]
"""A stage and what is read of its parts."""

_OUTCOME = (("clip_id", pa.string()), ("code", pa.string()), ("message", pa.string()))


class Ledger:
    """What is known about the clips of one manifest.

    url: `facts/<manifest id>`; stages: in their fixed order. Safe to use from several threads.
    """

    def __init__(self, url: str, stages: Sequence[Source]) -> None:
        prints = fingerprints(stages)
        self._schemas = {stage.name: _schema(stage) for stage in stages}
        self._folders = {name: storage.join(url, name, print_) for name, print_ in prints.items()}
        self._made_of = {stage.name: _made_of(stage) for stage in stages}
        self._parts: dict[_View, dict[str, pa.Table | None]] = {}
        self._views: dict[_View, pa.Table] = {}
        self._lock = threading.Lock()

    def is_like(self, other: Ledger) -> bool:
        """Whether the other one holds the same facts."""
        return self._folders == other._folders

    def folder(self, stage: str) -> str:
        """The url below which the parts of a stage (and its lease) lie."""
        return self._folders[stage]

    def has_parts(self, stage: str) -> bool:
        """Whether anything was ever measured."""
        return bool(self._urls(stage))

    def facts(self, stage: str, columns: Collection[str] | None = None) -> pa.Table:
        """One row per known clip: clip_id, code and message (null when measured), the columns.

        columns: clip_id, code and these alone, in the stage's order; masks and embeddings are a
        thousand times what a verdict needs. Parts that were read before are not read again.
        InputError names a part whose columns are others than the stage's; a torn part is set aside
        with a warning.
        """
        view = (stage, self._names(stage, columns))
        with self._lock:
            urls = self._urls(stage)
            known = self._parts.get(view, {})
            if view in self._views and known.keys() == set(urls):
                return self._views[view]
            new = [url for url in urls if url not in known]
            with ThreadPoolExecutor(_READERS) as readers:
                read = dict(zip(new, readers.map(lambda u: self._read(*view, u), new), strict=True))
            parts = {url: known[url] if url in known else read[url] for url in urls}
            table = _first_of_each(self._concat(view, parts.values()))
            self._parts[view], self._views[view] = parts, table
            return table

    def facts_of(self, stage: str, clips: pa.ChunkedArray) -> pa.Table:
        """All columns, of these clips alone: read part by part, so that no more is ever held."""
        wanted = ids.Index(ids.words(clips))
        view = (stage, self._names(stage, None))
        parts = [
            part.take(pa.array(np.sort(wanted.match(ids.words(part["clip_id"]))[0])))
            for part in self.parts(stage)
        ]
        return _first_of_each(self._concat(view, parts))

    def parts(self, stage: str, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """The same part by part, for what is too large to be held: of each its own first rows."""
        names = self._names(stage, columns)
        for url in self._urls(stage):
            part = self._read(stage, names, url)
            if part is not None:
                yield _first_of_each(part)

    def _names(self, stage: str, columns: Collection[str] | None) -> tuple[str, ...]:
        """What to read of a part."""
        schema = self._schemas[stage]
        if columns is None:
            return tuple(schema.names)
        unknown = set(columns) - set(schema.names)
        if unknown:
            raise KeyError(f"stage {stage} has no columns {sorted(unknown)}")
        return tuple(name for name in schema.names if name in {"clip_id", "code", *columns})

    def _urls(self, stage: str) -> list[str]:
        folder = self._folders[stage]
        return [storage.join(folder, name) for name in storage.names(folder) if _is_part(name)]

    def _concat(self, view: _View, parts: Iterable[pa.Table | None]) -> pa.Table:
        stage, names = view
        empty = self._schemas[stage].empty_table().select(names)
        return pa.concat_tables([empty, *(part for part in parts if part is not None)])

    def measured(self, stage: str) -> set[str]:
        """The clips that have an outcome, failures included."""
        return set(self.facts(stage, ()).column("clip_id").to_pylist())

    def append(self, outcomes: Mapping[str, Sequence[tuple[str, Outcome]]]) -> None:
        """Writes one new part per stage that has outcomes: (clip id, outcome) each.

        ValueError when an outcome does not fit the stage's columns: a bug of the stage.
        """
        for stage, rows in outcomes.items():
            if rows:
                table = _table(stage, self._schemas[stage], rows)
                table = table.replace_schema_metadata(self._made_of[stage])
                sink = pa.BufferOutputStream()
                pq.write_table(table, sink)
                time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
                name = f"part-{time}-{secrets.token_hex(4)}.parquet"
                storage.write(
                    storage.join(self._folders[stage], name), sink.getvalue().to_pybytes()
                )

    def _read(self, stage: str, names: Sequence[str], url: str) -> pa.Table | None:
        """One part; None when it is torn: then it is named in a warning and put out of the way."""
        path = storage.local(url)
        source = pa.BufferReader(storage.read(url)) if path is None else path
        try:
            with pq.ParquetFile(source) as file:
                found = file.schema_arrow.remove_metadata()
                wanted = self._schemas[stage]
                if not found.equals(wanted):
                    raise InputError(
                        f"{url}: {_difference(found, wanted)}; raise the version of stage "
                        f"{stage}, or move this part away"
                    )
                table = file.read(columns=list(names), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            _set_aside(url, str(error))
            return None
        return table.replace_schema_metadata().select(names)


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def _schema(stage: Source) -> pa.Schema:
    """The columns of a part."""
    taken = {name for name, _ in _OUTCOME} & set(stage.columns.names)
    if taken:
        raise ValueError(f"stage {stage.name}: column names {sorted(taken)} are the ledger's own")
    return pa.schema([*(pa.field(*column) for column in _OUTCOME), *stage.columns])


def _made_of(stage: Source) -> dict[str, str]:
    """What a part says of the numbers in it, for a person who finds it."""
    settings = json.dumps(stage.settings(), sort_keys=True, default=str)
    return {"stage": stage.name, "version": str(stage.version), "settings": settings}


def _table(stage: str, schema: pa.Schema, rows: Sequence[tuple[str, Outcome]]) -> pa.Table:
    """The rows of a new part."""
    measures = set(schema.names[len(_OUTCOME) :])
    for _, outcome in rows:
        if not isinstance(outcome, Failed) and outcome.values.keys() != measures:
            odd = sorted(outcome.values.keys() ^ measures)
            raise ValueError(f"stage {stage}: its measurement and its columns differ in {odd}")
    records = [
        {"clip_id": clip, "code": outcome.code, "message": outcome.message}
        if isinstance(outcome, Failed)
        else {"clip_id": clip, **outcome.values}
        for clip, outcome in rows
    ]
    columns = []
    for field in schema:
        try:
            values = [record.get(field.name) for record in records]
            columns.append(pa.array(values, type=field.type))
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise ValueError(f"stage {stage}: column {field.name}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _first_of_each(table: pa.Table) -> pa.Table:
    """The first row of every clip, in order."""
    first = ids.firsts(ids.words(table.column("clip_id")))
    return table if first is None else table.take(first)


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    """In words, what tells two schemas apart."""
    extra = [str(f) for f in found if f not in wanted]
    missing = [str(f) for f in wanted if f not in found]
    if not extra and not missing:
        return f"found the columns in the order {found.names}, wanted {wanted.names}"
    return f"found column {', '.join(extra) or 'none'}, wanted {', '.join(missing) or 'none'}"


def _set_aside(url: str, reason: str) -> None:
    """Renames a torn local part, so that it is met once; in an object store it is skipped."""
    path = storage.local(url)
    if path is not None:
        with suppress(OSError):
            path.rename(f"{path}.torn")
    _log.warning("%s: torn, set aside, its clips are measured anew: %s", url, reason)
