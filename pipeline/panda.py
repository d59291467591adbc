"""Panda-70M's CSV: one row a source video, with lists that hold a value for each clip of it.

Columns: videoID, url, timestamp ([['0:01:20.880', '0:01:23.983'], ...]), caption, matching_score,
and in later editions desirable_filtering, shot_boundary_detection. The clips are named as its
downloader names them: by the number of the row, 100 rows a folder, and of the clip in it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from pipeline.row import Row, unreadable

COLUMNS = frozenset({"videoID", "url", "timestamp", "caption"})
"""A header that holds these and no `video` is one of Panda-70M."""

_ROWS_A_FOLDER = 100
"""`number_sample_per_shard` of the downloader's own configuration."""


def rows(fields: Mapping[str, str], number: int, line: int) -> Iterator[Row]:
    """The clips of row `number`, counted from 0; one malformed row where its lists do not agree."""
    source = fields["videoID"]
    lists = {name: _list(text) for name, text in fields.items()}
    spans, captions = lists["timestamp"], lists["caption"]
    if spans is None or captions is None or len(spans) != len(captions):
        counts = [len(found) if found is not None else "no" for found in (spans, captions)]
        yield unreadable(source, line, f"{counts[0]} timestamps and {counts[1]} captions")
        return
    for clip, caption in enumerate(captions):
        published = {
            name: each[clip] if each is not None and len(each) == len(spans) else fields[name]
            for name, each in lists.items()
            if name != "caption"
        }
        video = f"{number // _ROWS_A_FOLDER:05d}/{number:07d}_{clip:05d}.mp4"
        yield Row(video, str(caption), published, line, source_id=source)


def _list(text: str) -> list | None:
    """The Python list that a field spells out; None when it is something else."""
    if not text.startswith("["):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) else None
