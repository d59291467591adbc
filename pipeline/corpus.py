"""What a corpus says, row by row: OpenVid's CSV, Parquet, JSONL, or a folder with caption files.

Every reader yields one `Row` per row of the corpus, also for one that cannot be read.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import InputError

_log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
"""What counts as a video in a folder."""

_MANIFESTS = (".csv", ".parquet", ".jsonl")

_FIELD_LIMIT = 1 << 24
"""Characters of one CSV field; beyond it a quote was never closed. Ours; the module's is 2^17."""


class Row(NamedTuple):
    """published: everything else that the corpus says, as it says it; malformed: cannot be read."""

    video: str
    caption: str
    published: Mapping[str, Any]
    malformed: bool = False


def read_rows(corpus: str) -> Iterator[Row]:
    """The rows in their order. InputError when the corpus is missing or of no known form."""
    path = storage.local(corpus)
    if path is not None and not path.exists():
        raise InputError(f"{corpus}: no such corpus; name a .csv, .parquet, .jsonl or a folder")
    if is_folder(corpus):
        return _folder(corpus)
    suffix = PurePosixPath(corpus).suffix.lower()
    match suffix:
        case ".csv":
            return _csv(corpus)
        case ".parquet":
            return _parquet(corpus)
        case ".jsonl":
            return _jsonl(corpus)
    wanted = ".csv, .parquet, .jsonl or a folder"
    raise InputError(f"{corpus}: found a file that ends in {suffix or 'nothing'}, wanted {wanted}")


def is_folder(corpus: str) -> bool:
    """Whether a corpus is a folder of videos; a url is one unless it ends like a manifest."""
    path = storage.local(corpus)
    if path is not None:
        return path.is_dir()
    return PurePosixPath(corpus).suffix.lower() not in _MANIFESTS


def _csv(corpus: str) -> Iterator[Row]:
    """OpenVid's form. A header that is repeated further down is no row."""
    csv.field_size_limit(_FIELD_LIMIT)
    with _text(corpus) as file:
        lines = csv.reader(file)
        try:
            written = next(lines, [])
            header = [name.strip() for name in written]
            _check_columns(corpus, header)
            at = header.index("video")
            for fields in lines:
                if not fields or fields == written:
                    continue
                yield _csv_row(header, at, fields)
        except csv.Error as error:
            raise InputError(f"{corpus}: line {lines.line_num}: {error}; wanted CSV") from error


def _csv_row(header: Sequence[str], at: int, fields: Sequence[str]) -> Row:
    if len(fields) != len(header):
        return Row(fields[at] if at < len(fields) else fields[0], "", {}, malformed=True)
    published = dict(zip(header, fields, strict=True))
    return Row(published.pop("video"), published.pop("caption", ""), published)


def _parquet(corpus: str) -> Iterator[Row]:
    path = storage.local(corpus)
    try:
        source = pa.BufferReader(storage.read(corpus)) if path is None else path
        with pq.ParquetFile(source) as file:
            _check_columns(corpus, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=10_000):
                for record in batch.to_pylist():
                    yield _record(record)
    except FileNotFoundError as error:
        raise InputError(f"{corpus}: no such corpus") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{corpus}: cannot be read as Parquet: {reason}") from error


def _jsonl(corpus: str) -> Iterator[Row]:
    """One object a line; a line that is none is a malformed row."""
    seen: set[str] = set()
    with _text(corpus) as file:
        for line in file:
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                yield Row(line.strip(), "", {}, malformed=True)
                continue
            seen |= record.keys()
            yield _record(record)
    _check_columns(corpus, ["video"] if "video" in seen else sorted(seen))


def _record(record: dict[str, Any]) -> Row:
    video, caption = record.pop("video", None), record.pop("caption", None)
    malformed = not isinstance(video, str) or not isinstance(caption, str | None)
    if malformed:
        return Row("" if video is None else str(video), "", {}, malformed=True)
    return Row(video, caption or "", record)


def _folder(corpus: str) -> Iterator[Row]:
    """Videos at any depth, in the order of their names, each with NAME.txt or NAME.json beside."""
    there = storage.files(corpus)
    videos = [name for name in there if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        listed = [name for name in there if name.endswith(_MANIFESTS)]
        advice = f"name the file {listed[0]}" if listed else f"wanted a corpus, found {len(there)}"
        raise InputError(f"{corpus}: no videos in this folder; {advice}")
    beside = frozenset(there)
    for video in videos:
        yield _captioned(corpus, video, beside)


def _captioned(corpus: str, video: str, beside: frozenset[str]) -> Row:
    """A video of a folder with what its caption file says."""
    stem = str(PurePosixPath(video).with_suffix(""))
    if f"{stem}.txt" in beside:
        text = storage.read(storage.join(corpus, f"{stem}.txt"))
        return Row(video, text.decode("utf-8-sig", "replace"), {})
    if f"{stem}.json" not in beside:
        return Row(video, "", {})
    try:
        record = json.loads(storage.read(storage.join(corpus, f"{stem}.json")))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        _log.warning("%s: %s.json holds no JSON object, so no caption", corpus, stem)
        return Row(video, "", {})
    return _record({**record, "video": video})


@contextmanager
def _text(corpus: str) -> Iterator[TextIO]:
    """The lines of a corpus: UTF-8, with or without a mark; a broken byte becomes U+FFFD."""
    path = storage.local(corpus)
    try:
        raw = io.BytesIO(storage.read(corpus)) if path is None else path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{corpus}: no such corpus") from error
    except OSError as error:
        raise InputError(f"{corpus}: cannot be read: {error}") from error
    with io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="") as text:
        yield text


def _check_columns(corpus: str, names: Sequence[str]) -> None:
    if "video" not in names:
        found = ", ".join(names) or "none"
        raise InputError(f"{corpus}: no column `video`; found the columns: {found}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{corpus}: column {twice[0]!r} stands there twice")
