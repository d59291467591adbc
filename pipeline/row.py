"""One row of a corpus, as its readers hand it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """video: the clip's name; published: everything else that the corpus says, as it says it.

    problem: why the row cannot be read, "" when it can. source_id: the source video, where the
    corpus says it and the name does not.
    """

    video: str
    caption: str
    published: Mapping[str, Any]
    line: int
    problem: str = ""
    source_id: str | None = None


def unreadable(video: str, line: int, problem: str) -> Row:
    """A row that stays a row, though nothing can be read of it but a name."""
    return Row(video, "", {}, line, problem)


def from_record(record: dict[str, Any], line: int) -> Row:
    """A row of named values, of which `video` and `caption` are ours."""
    video, caption = record.pop("video", None), record.pop("caption", None)
    if not isinstance(video, str):
        found = "" if video is None else str(video)
        return unreadable(found, line, f"video is {type(video).__name__}, wanted a name")
    if not isinstance(caption, str | None):
        return unreadable(video, line, f"caption is {type(caption).__name__}, wanted text")
    return Row(video, caption or "", record, line)
