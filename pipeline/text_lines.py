"""The text of a corpus, wherever it lies."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from pipeline import storage
from pipeline.errors import InputError


@contextmanager
def open_text(corpus: str) -> Iterator[TextIO]:
    """UTF-8, with or without a mark; a broken byte becomes U+FFFD. InputError if unreadable."""
    try:
        raw = storage.open_binary(corpus)
    except FileNotFoundError as error:
        raise InputError(f"{corpus}: no such corpus") from error
    except OSError as error:
        raise InputError(f"{corpus}: cannot be read: {error}") from error
    with io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="") as text:
        yield text


def check_columns(corpus: str, names: Sequence[str], wanted: str = "video") -> None:
    """InputError unless there is the column that names the clips, and none stands there twice."""
    if wanted not in names:
        found = ", ".join(names) or "none"
        raise InputError(f"{corpus}: no column `{wanted}`; found the columns: {found}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{corpus}: column {twice[0]!r} stands there twice")
