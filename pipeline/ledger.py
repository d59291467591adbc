"""Facts on disk: parts that never change, and the view over them.

Layout: `<url>/<stage>/<fingerprint>/part-<time>-<random>.parquet`. Per clip the first part in
(time, name) order that has it wins, so that two writers cost work, never a wrong row.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.clip import Failed, Outcome
from pipeline.errors import InputError
from pipeline.stage import Stage, fingerprints

_log = logging.getLogger(__name__)

_OUTCOME = (("clip_id", pa.string()), ("code", pa.string()), ("message", pa.string()))


class Ledger:
    """What is known about the clips of one manifest.

    url: `facts/<manifest id>`; stages: in their fixed order. Safe to use from several threads.
    """

    def __init__(self, url: str, stages: Sequence[Stage]) -> None:
        prints = fingerprints(stages)
        self._schemas = {stage.name: _schema(stage) for stage in stages}
        self._folders = {name: storage.join(url, name, print_) for name, print_ in prints.items()}
        self._made_of = {stage.name: _made_of(stage) for stage in stages}
        self._parts: dict[str, dict[str, pa.Table | None]] = {name: {} for name in prints}
        self._views: dict[str, pa.Table] = {}
        self._lock = threading.Lock()

    def folder(self, stage: str) -> str:
        """The url below which the parts of a stage (and its lease) lie."""
        return self._folders[stage]

    def facts(self, stage: str) -> pa.Table:
        """One row per known clip: clip_id, code and message (null when measured), the columns.

        Parts that were read before are not read again. InputError names a part whose columns are
        others than the stage's; a torn part is set aside with a warning.
        """
        with self._lock:
            folder = self._folders[stage]
            urls = [storage.join(folder, name) for name in storage.names(folder) if _is_part(name)]
            known = self._parts[stage]
            if stage in self._views and known.keys() == set(urls):
                return self._views[stage]
            parts = {url: known[url] if url in known else self._read(stage, url) for url in urls}
            whole = [part for part in parts.values() if part is not None]
            view = _first_of_each(pa.concat_tables([self._schemas[stage].empty_table(), *whole]))
            self._parts[stage], self._views[stage] = parts, view
            return view

    def measured(self, stage: str) -> set[str]:
        """The clips that have an outcome, failures included."""
        return set(self.facts(stage).column("clip_id").to_pylist())

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

    def _read(self, stage: str, url: str) -> pa.Table | None:
        """One part; None when it is torn: then it is named in a warning and put out of the way."""
        held = storage.read(url)
        try:
            table = pq.read_table(pa.BufferReader(held)).replace_schema_metadata()
        except (pa.ArrowException, OSError) as error:
            _set_aside(url, str(error))
            return None
        wanted = self._schemas[stage]
        if not table.schema.equals(wanted):
            raise InputError(
                f"{url}: {_difference(table.schema, wanted)}; raise the version of stage "
                f"{stage}, or move this part away"
            )
        return table


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def _schema(stage: Stage) -> pa.Schema:
    """The columns of a part."""
    taken = {name for name, _ in _OUTCOME} & set(stage.columns.names)
    if taken:
        raise ValueError(f"stage {stage.name}: column names {sorted(taken)} are the ledger's own")
    return pa.schema([*(pa.field(*column) for column in _OUTCOME), *stage.columns])


def _made_of(stage: Stage) -> dict[str, str]:
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
    codes = table.column("clip_id").combine_chunks().dictionary_encode().indices.to_numpy()
    # Codes are given in order of appearance: a new clip is one above all before it.
    first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
    return table if len(first) == table.num_rows else table.take(first)


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
