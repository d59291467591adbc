"""What is wrong with the rows of a corpus, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

_USUAL = 0.5
"""A value that at least so many rows have is missing where it is not; ours."""

MALFORMED, TWICE, NO_CAPTION = "malformed", "listed twice", "no caption"


def bad_rows(rows: pa.Table, published: Sequence[str]) -> pa.Table:
    """line, video, problem, detail: one per problem of a row, in the order of the corpus.

    rows: of a manifest; published: its columns that are the corpus's own. A row that cannot be read
    is malformed and nothing else.
    """
    tables = []
    for problem, mask in _problems(rows, published):
        found = rows.select(["line number", "video", "problem detail"]).filter(pa.array(mask))
        found = found.rename_columns(["line", "video", "detail"])
        named = found.append_column("problem", pa.array([problem] * len(found), pa.string()))
        tables.append(named.select(["line", "video", "problem", "detail"]))
    return pa.concat_tables(tables).sort_by("line")


def as_csv(found: pa.Table) -> bytes:
    """The same as a CSV file."""
    sink = pa.BufferOutputStream()
    pacsv.write_csv(found, sink)
    return sink.getvalue().to_pybytes()


def _problems(rows: pa.Table, published: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each problem and (N,) bool: the rows that have it."""
    malformed = np.asarray(rows["problem"].is_valid())
    yield MALFORMED, malformed
    yield TWICE, np.asarray(rows["duplicate"])
    yield NO_CAPTION, (byte_counts(rows["caption"]) == 0) & ~malformed
    for name in published:
        there = np.asarray(rows[name].is_valid())
        if there.sum() >= _USUAL * (len(rows) - malformed.sum()):
            yield f"no {name}", ~there & ~malformed


def byte_counts(words: pa.ChunkedArray) -> np.ndarray:
    """(N,) bytes of each word, from where Arrow says that they end: none of them is looked at."""
    counts = [np.zeros(0, np.int32)]
    for chunk in words.chunks:
        ends = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset :][: len(chunk) + 1]
        counts.append(np.diff(ends))
    return np.concatenate(counts)
