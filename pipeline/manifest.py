"""The clips of a corpus: every row of it is a row here, also one that cannot be read."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.clip import Clip, clip_id
from pipeline.corpus import Row, is_folder, read_rows
from pipeline.errors import InputError

_log = logging.getLogger(__name__)

_ABSENT = frozenset(["", "-", "nan", "none", "null", "n/a", "na"])
"""How corpora write that there is no value, in lower case."""

_NUMERIC_SHARE = 0.9
"""A column with at least so many numbers among its values is one of numbers; ours."""

_BATCH = 20_000
"""Rows that stand in memory as Python objects at once; ours."""

_CUT = re.compile(r"(?P<source>.+?)(?:_\d+)?_\d+to\d+|celebv_(?P<celebv>.{11})(?:_\d+)+")

_OWN = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video", pa.string()),
        ("path", pa.string()),
        ("caption", pa.string()),
        ("source_id", pa.string()),
        ("duplicate", pa.bool_()),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """A corpus as read.

    corpus, videos: where the rows and the files lie, absolute. rows: one per row of the corpus:
    clip_id, video, path, caption, source_id, duplicate (the name stood further up already),
    problem (`malformed`, else null), then what the corpus publishes, null where it says nothing.
    """

    corpus: str
    videos: str
    rows: pa.Table

    @cached_property
    def id(self) -> str:
        """16 hex digits over the rows and the place of the videos.

        The place is part of it: facts belong to files, so a corpus that moved is measured anew.
        """
        digest = hashlib.sha256(self.videos.encode())
        names = ["video", "caption", "problem", *sorted(self._published)]
        digest.update(json.dumps(names).encode())
        for batch in self.rows.select(names).to_batches(max_chunksize=_BATCH):
            columns = [column.to_pylist() for column in batch.columns]
            digest.update(repr(list(zip(*columns, strict=True))).encode())
        return digest.hexdigest()[:16]

    def clips(self, rows: Sequence[int]) -> list[Clip]:
        """The clips of these row numbers."""
        if not rows:
            return []
        first = min(rows)  # taking from a short slice does not walk through a million rows
        near = self.rows.slice(first, max(rows) - first + 1)
        return [
            Clip(
                clip_id=record["clip_id"],
                video=record["video"],
                path=record["path"],
                caption=record["caption"],
                source_id=record["source_id"],
                published={n: record[n] for n in self._published if record[n] is not None},
            )
            for record in near.take(pa.array([row - first for row in rows])).to_pylist()
        ]

    @cached_property
    def _published(self) -> tuple[str, ...]:
        return tuple(name for name in self.rows.column_names if name not in _OWN.names)


def read_manifest(corpus: str, videos: str | None = None) -> Manifest:
    """Reads a corpus: a .csv, .parquet or .jsonl file, or a folder of videos.

    videos: the folder or url where the files lie; without one, the manifest's own folder.
    InputError: it is missing, has no column `video`, no rows, or not a single caption.
    """
    corpus = _resolved(corpus)
    place = _resolved(videos) if videos else _own_folder(corpus)
    local = storage.local(place)
    if videos and local is not None and not local.is_dir():
        raise InputError(f"{place}: no such folder; wanted the one where the videos lie")
    seen: set[str] = set()
    rows = iter(read_rows(corpus))
    tables = [_table(batch, place, seen) for batch in iter(lambda: list(islice(rows, _BATCH)), [])]
    if not tables:
        raise InputError(f"{corpus}: the corpus is empty; wanted at least one row")
    table = pa.concat_tables(tables, promote_options="default")
    _check_usable(corpus, table)
    for name in table.column_names[len(_OWN) :]:
        at = table.column_names.index(name)
        table = table.set_column(at, name, _typed(name, table.column(name)))
    return Manifest(corpus, place, table)


def source_id(video: str) -> str:
    """The source video that a clip was cut from, as its name says.

    OpenVid's names are `<source>_<part>_<frame>to<frame>.mp4` and `celebv_<11 characters of
    YouTube>_<part>.mp4`; of any other name it is the stem: a source of its own.
    """
    name = video.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    cut = _CUT.fullmatch(stem)
    return (cut["source"] or cut["celebv"]) if cut else stem


def _resolved(url: str) -> str:
    path = storage.local(url)
    return url.rstrip("/") if path is None else str(path.resolve())


def _own_folder(corpus: str) -> str:
    return corpus if is_folder(corpus) else corpus.rpartition("/")[0] or "/"


def _table(rows: Sequence[Row], place: str, seen: set[str]) -> pa.Table:
    """A batch of rows as a table; what is published is text still. `seen` collects the names."""
    videos = [_text(row.video) for row in rows]
    malformed = [row.malformed or not _safe(row.video) for row in rows]
    duplicate = []
    for video, bad in zip(videos, malformed, strict=True):
        duplicate.append(not bad and video in seen)
        if not bad:
            seen.add(video)
    columns: dict[str, Sequence[Any]] = {
        "clip_id": [clip_id(video) for video in videos],
        "video": videos,
        "path": [storage.join(place, video) for video in videos],
        "caption": [_text(row.caption).strip() for row in rows],
        "source_id": [source_id(video) for video in videos],
        "duplicate": duplicate,
        "problem": ["malformed" if bad else None for bad in malformed],
    }
    own = pa.table(columns, schema=_OWN)
    for name in dict.fromkeys(name for row in rows for name in row.published):
        free = f"published {name}" if name in _OWN.names else name
        words = [_word(row.published.get(name)) for row in rows]
        own = own.append_column(pa.field(_text(free), pa.string()), pa.array(words, pa.string()))
    return own


def _safe(video: str) -> bool:
    """Whether a name can only mean a file below the folder of the videos."""
    if not video.strip() or "\0" in video or "://" in video or video.startswith("/"):
        return False
    return ".." not in video.split("/") and _text(video) == video


def _text(text: str) -> str:
    """The same text where it is UTF-8; half a surrogate pair, as JSON can hold, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _word(value: Any) -> str | None:
    """A published value as text, None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        value = json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
    word = _text(value.strip())
    return None if len(word) < 5 and word.lower() in _ABSENT else word


def _typed(name: str, words: pa.ChunkedArray) -> pa.ChunkedArray:
    """A published column as numbers where (nearly) all of it are, else as words."""
    try:
        return words.cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = [_number(word) for word in words.to_pylist()]
    present = len(words) - words.null_count
    wrong = numbers.count(None) - words.null_count
    if present - wrong < _NUMERIC_SHARE * present:
        return words
    _log.warning("column %r holds numbers but for %d values, which count as absent", name, wrong)
    return pa.chunked_array([pa.array(numbers, pa.float64())])


def _number(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError:
        return None


def _check_usable(corpus: str, rows: pa.Table) -> None:
    if rows["problem"].null_count == 0:
        raise InputError(f"{corpus}: {len(rows)} rows, all malformed; wanted a video and a caption")
    if not any(any(chunk.to_pylist()) for chunk in rows["caption"].chunks):
        beside = "NAME.txt or NAME.json beside a video" if is_folder(corpus) else "a column caption"
        raise InputError(f"{corpus}: {len(rows)} rows, no captions; wanted {beside}")
