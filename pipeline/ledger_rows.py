"""Outcomes as rows of the ledger, and which of the rows of a clip counts."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline import ids
from pipeline.clip import Failed, Outcome
from pipeline.stage import Source

AGAIN = "again"
"""The code of a row from which on a clip counts as not measured; its message says why."""

_OUTCOME = (("clip_id", pa.string()), ("code", pa.string()), ("message", pa.string()))


def schema_of(stage: Source) -> pa.Schema:
    """The columns of a part."""
    taken = {name for name, _ in _OUTCOME} & set(stage.columns.names)
    if taken:
        raise ValueError(f"stage {stage.name}: column names {sorted(taken)} are the ledger's own")
    return pa.schema([*(pa.field(*column) for column in _OUTCOME), *stage.columns])


def about(stage: Source) -> dict[str, str]:
    """What a part says of the numbers in it, for a person who finds it."""
    settings = json.dumps(stage.settings(), sort_keys=True, default=str)
    return {"stage": stage.name, "version": str(stage.version), "settings": settings}


def table(stage: str, schema: pa.Schema, rows: Sequence[tuple[str, Outcome]]) -> pa.Table:
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


def standing(table: pa.Table) -> pa.Table:
    """The row of every clip that counts, in order."""
    rows = standing_rows(table)
    return table if len(rows) == len(table) else table.take(pa.array(rows))


def standing_rows(table: pa.Table) -> np.ndarray:
    """Of every clip the first row behind its last `again`, ascending."""
    clips = ids.words(table["clip_id"])
    rows = np.arange(len(table))
    codes = table["code"].combine_chunks().dictionary_encode()
    again = np.flatnonzero(np.asarray(codes.indices.fill_null(-1)) == _number(codes, AGAIN))
    if len(again):
        last = again if (n := ids.firsts(clips[again][::-1])) is None else again[::-1][n]
        here, place = ids.Index(clips[last]).match(clips)
        rows = np.delete(rows, here[here <= last[place]])
    first = ids.firsts(clips[rows])
    return rows if first is None else rows[first]


def _number(codes: pa.DictionaryArray, code: str) -> int:
    """How this code is encoded; -2 where it does not occur."""
    found = codes.dictionary.to_pylist()
    return found.index(code) if code in found else -2
