"""What a corpus says, row by row: CSV, Parquet, JSONL, or a folder with caption files.

Every reader yields one `Row` per row of the corpus, also for one that cannot be read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.csv_rows import read_csv
from pipeline.errors import InputError
from pipeline.row import Row, from_record, unreadable
from pipeline.text_lines import check_columns, open_text

_log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
"""What counts as a video in a folder."""

_MANIFESTS = (".csv", ".parquet", ".jsonl")


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
            return read_csv(corpus)
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


def _parquet(corpus: str) -> Iterator[Row]:
    try:
        with storage.open_binary(corpus) as source, pq.ParquetFile(source) as file:
            check_columns(corpus, file.schema_arrow.names)
            line = 0
            for batch in file.iter_batches(batch_size=10_000):
                for record in batch.to_pylist():
                    line += 1
                    yield from_record(record, line)
    except FileNotFoundError as error:
        raise InputError(f"{corpus}: no such corpus") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{corpus}: cannot be read as Parquet: {reason}") from error


def _jsonl(corpus: str) -> Iterator[Row]:
    """One object a line; a line that is none is a malformed row."""
    seen: set[str] = set()
    with open_text(corpus) as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                record = json.loads(text)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                yield unreadable(text.strip(), line, "no JSON object")
                continue
            seen |= record.keys()
            yield from_record(record, line)
    check_columns(corpus, ["video"] if "video" in seen else sorted(seen))


def _folder(corpus: str) -> Iterator[Row]:
    """Videos at any depth, in the order of their names, each with NAME.txt or NAME.json beside."""
    there = storage.files(corpus)
    videos = [name for name in there if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        listed = [name for name in there if name.endswith(_MANIFESTS)]
        advice = f"name the file {listed[0]}" if listed else f"wanted a corpus, found {len(there)}"
        raise InputError(f"{corpus}: no videos in this folder; {advice}")
    beside = frozenset(there)
    for number, video in enumerate(videos, 1):
        yield _captioned(corpus, video, beside, number)


def _captioned(corpus: str, video: str, beside: frozenset[str], number: int) -> Row:
    """A video of a folder with what its caption file says."""
    stem = str(PurePosixPath(video).with_suffix(""))
    if f"{stem}.txt" in beside:
        text = storage.read(storage.join(corpus, f"{stem}.txt"))
        return Row(video, text.decode("utf-8-sig", "replace"), {}, number)
    if f"{stem}.json" not in beside:
        return Row(video, "", {}, number)
    try:
        record = json.loads(storage.read(storage.join(corpus, f"{stem}.json")))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        _log.warning("%s: %s.json holds no JSON object, so no caption", corpus, stem)
        return Row(video, "", {}, number)
    return from_record({**record, "video": video}, number)
