"""Rows of a CSV file: OpenVid's, Panda-70M's, or any with a column `video`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from pipeline import panda
from pipeline.errors import InputError
from pipeline.row import Row, unreadable
from pipeline.text_lines import check_columns, open_text

_FIELD_LIMIT = 1 << 24
"""Characters of one CSV field; beyond it a quote was never closed. Ours; the module's is 2^17."""


def read_csv(corpus: str) -> Iterator[Row]:
    """Every row but the header and its repetitions. `line`: where the row begins."""
    csv.field_size_limit(_FIELD_LIMIT)
    with open_text(corpus) as file:
        lines = csv.reader(file)
        try:
            written = next(lines, [])
            header = [name.strip() for name in written]
            is_panda = set(header) >= panda.COLUMNS and "video" not in header
            check_columns(corpus, header, "videoID" if is_panda else "video")
            records = _records(lines, written)
            yield from _panda(records, header) if is_panda else _openvid(records, header)
        except csv.Error as error:
            raise InputError(f"{corpus}: line {lines.line_num}: {error}; wanted CSV") from error


def _records(lines, written: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of what is neither empty nor the header once more."""
    line = lines.line_num + 1
    for fields in lines:
        if fields and fields != written:
            yield line, fields
        line = lines.line_num + 1


def _openvid(records: Iterator[tuple[int, list[str]]], header: Sequence[str]) -> Iterator[Row]:
    """One clip a row, by its name."""
    at = header.index("video")
    for line, fields in records:
        if len(fields) != len(header):
            name = fields[at] if at < len(fields) else fields[0]
            yield unreadable(name, line, _misfit(fields, header))
            continue
        published = dict(zip(header, fields, strict=True))
        video = published.pop("video")
        yield Row(video, published.pop("caption", ""), published, line)


def _panda(records: Iterator[tuple[int, list[str]]], header: Sequence[str]) -> Iterator[Row]:
    """The clips of each source video, one after the other."""
    at = header.index("videoID")
    for number, (line, fields) in enumerate(records):
        if len(fields) != len(header):
            name = fields[at] if at < len(fields) else fields[0]
            yield unreadable(name, line, _misfit(fields, header))
        else:
            yield from panda.rows(dict(zip(header, fields, strict=True)), number, line)


def _misfit(fields: Sequence[str], header: Sequence[str]) -> str:
    return f"{len(fields)} fields, wanted {len(header)}"
