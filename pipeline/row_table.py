"""Rows of a corpus as tables: names made safe, ids, duplicates, and what is published as numbers.

A million rows go through here at every first read of a corpus, so what is done to each of them is
done to a whole column where Python or Arrow can.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.row import Row

_log = logging.getLogger(__name__)

_ABSENT = frozenset(["", "-", "nan", "none", "null", "n/a", "na"])
"""How corpora write that there is no value, in lower case. Numbers that are none, as `-nan` and
`inf`, are absent too."""

_NUMERIC_SHARE = 0.9
"""A column with at least so many numbers among its values is one of numbers; ours."""

_CUT = re.compile(r"(?P<source>.+?)(?:_\d+)?_\d+to\d+|celebv_(?P<celebv>.{11})(?:_\d+)+")

OWN = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video", pa.string()),
        ("caption", pa.string()),
        ("source_id", pa.string()),
        ("duplicate", pa.bool_()),
        ("problem", pa.string()),
        ("problem detail", pa.string()),
        ("line number", pa.int64()),
    ]
)
"""The columns of every manifest; what the corpus publishes follows them."""

_RESERVED = frozenset(["path", *OWN.names])
"""`path` was a column once; a manifest's id hangs on what its columns are called."""


def source_id(video: str) -> str:
    """The source video that a clip was cut from, as its name says.

    OpenVid's names are `<source>_<part>_<frame>to<frame>.mp4` and `celebv_<11 characters of
    YouTube>_<part>.mp4`; of any other name it is the stem: a source of its own.
    """
    name = video.rpartition("/")[2]
    stem = name.rpartition(".")[0] or name
    cut = _CUT.fullmatch(stem)
    return (cut["source"] or cut["celebv"]) if cut else stem


def tabulate(rows: Sequence[Row], seen: set[str]) -> pa.Table:
    """A batch of rows in the columns of `OWN`, then what is published, as text still.

    seen: the names of all rows before these; it collects those of these.
    """
    videos = _texts([row.video for row in rows])
    details = [row.problem or _unsafe(row.video) for row in rows]
    duplicate = []
    for video, bad in zip(videos, details, strict=True):
        duplicate.append(not bad and video in seen)
        if not bad:
            seen.add(video)
    columns: dict[str, Any] = {
        "clip_id": clip_ids(videos),
        "video": videos,
        "caption": [caption.strip() for caption in _texts([row.caption for row in rows])],
        "source_id": _texts(
            [row.source_id or source_id(video) for row, video in zip(rows, videos, strict=True)]
        ),
        "duplicate": duplicate,
        "problem": ["malformed" if bad else None for bad in details],
        "problem detail": [bad or None for bad in details],
        "line number": [row.line for row in rows],
    }
    table = pa.table(columns, schema=OWN)
    for name in dict.fromkeys(chain.from_iterable(row.published for row in rows)):
        free = f"published {name}" if name in _RESERVED else name
        words = _words([row.published.get(name) for row in rows])
        table = table.append_column(
            pa.field(_text(free), pa.string()), pa.array(words, pa.string())
        )
    return table


def clip_ids(videos: Sequence[str]) -> pa.Array:
    """`clip.clip_id` of every name, of all at once."""
    digests = [hashlib.sha256(video.encode()).digest()[:10] for video in videos]
    ids = base64.b32encode(b"".join(digests)).lower()  # 10 bytes are 16 characters, without padding
    return pa.array([ids[at : at + 16].decode() for at in range(0, len(ids), 16)], pa.string())


def numeric(name: str, words: pa.ChunkedArray) -> pa.ChunkedArray:
    """A published column as numbers where (nearly) all of it are, else as words."""
    try:
        return _finite(words.cast(pa.float64()))
    except pa.ArrowInvalid:
        counted = zip(*words.drop_null().value_counts().flatten(), strict=True)
    wrong = sum(count.as_py() for word, count in counted if _number(word.as_py()) is None)
    present = len(words) - words.null_count
    if present - wrong < _NUMERIC_SHARE * present:
        return words
    _log.warning("column %r holds numbers but for %d values, which count as absent", name, wrong)
    numbers = [_number(word) for word in words.to_pylist()]
    return _finite(pa.chunked_array([pa.array(numbers, pa.float64())]))


def _finite(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null where there is no number one could compare with."""
    found = [chunk.to_numpy(zero_copy_only=False) for chunk in numbers.chunks]
    arrays = [pa.array(values, mask=~np.isfinite(values)) for values in found]
    return pa.chunked_array(arrays, pa.float64())


def _unsafe(video: str) -> str:
    """Why a name may mean something else than a file below the folder of the videos; "" if not."""
    if not video.strip():
        return "no name"
    if "\0" in video or "://" in video or video.startswith("/") or ".." in video.split("/"):
        return "the name leaves the folder of the videos"
    return "" if _text(video) == video else "the name is no valid text"


def _texts(texts: list[str]) -> list[str]:
    """`_text` of each."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [_text(text) for text in texts]
    return texts


def _text(text: str) -> str:
    """The same text where it is UTF-8; half a surrogate pair, as JSON can hold, becomes `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _words(values: list[Any]) -> list[str | None]:
    """Published values as text, None where there is none."""
    words = [value if isinstance(value, str) else _spelled(value) for value in values]
    stripped = _texts([word.strip() for word in words])
    return [None if len(word) < 5 and word.lower() in _ABSENT else word for word in stripped]


def _spelled(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def _number(word: str | None) -> float | None:
    try:
        return None if word is None else float(word)
    except ValueError:
        return None
