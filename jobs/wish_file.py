"""A file of prompts: CSV, JSONL or TOML, a video to a row."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from jobs.generate_settings import WishSettings
from pipeline import storage
from pipeline.config import build
from pipeline.errors import InputError

_SHOWN = 3
"""Bad rows that an error names; ours: one line stays readable."""

_Row = tuple[str, Any]
"""Where it stands, and what it says: a table, if it is one."""


def read_wishes(place: str) -> list[WishSettings]:
    """The rows in their order, each with a name; references are resolved beside the file.

    columns: those of WishSettings; empty ones count as left out. Raises InputError, which names the
    bad rows by their lines.
    """
    try:
        text = storage.read(place).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place}: the prompts cannot be read: {error}") from error
    path = PurePosixPath(place)
    readers = {".csv": _csv, ".jsonl": _jsonl, ".toml": _toml}
    if path.suffix.lower() not in readers:
        raise InputError(f"{place}: found no known ending, wanted {', '.join(readers)}")
    wishes, bad = list[WishSettings](), list[str]()
    for number, (where, said) in enumerate(readers[path.suffix.lower()](place, text), 1):
        try:
            wish = _wish(where, said)
        except InputError as error:
            bad.append(str(error))
            continue
        name = wish.name or f"{path.stem}{number}"
        wishes.append(replace(wish, name=name, reference=_beside(place, wish.reference)))
    if bad:
        more = f"; and {len(bad) - _SHOWN} more rows" if len(bad) > _SHOWN else ""
        raise InputError(f"{place}: {'; '.join(bad[:_SHOWN])}{more}")
    if not wishes:
        raise InputError(f"{place}: found no prompt, wanted a row for each video")
    return wishes


def _wish(where: str, said: Any) -> WishSettings:
    if not isinstance(said, dict):
        raise InputError(f"{where}: {said}")
    given = {key: value for key, value in said.items() if value not in ("", None)}
    try:
        return build(given, WishSettings, where)
    except InputError as error:  # of the settings themselves, which do not know where they stand
        text = str(error)
        raise InputError(text if text.startswith(where) else f"{where}: {text}") from None


def _csv(place: str, text: str) -> Iterator[_Row]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        if "prompt" not in header or len(set(header)) < len(header):
            raise InputError(
                f"{place}: found the columns {', '.join(header) or 'none'}; wanted prompt, and "
                "each only once"
            )
        line = lines.line_num + 1
        for fields in lines:
            if len(fields) not in (0, len(header)):
                yield f"line {line}", f"found {len(fields)} fields, wanted {len(header)}"
            elif any(fields):
                said: dict[str, Any] = dict(zip(header, fields, strict=True))
                yield f"line {line}", said | {"seed": _number(said.get("seed", ""))}
            line = lines.line_num + 1
    except csv.Error as error:
        raise InputError(f"{place}: line {lines.line_num}: {error}; wanted CSV") from error


def _number(field: str) -> int | str:
    """What is no whole number is told so by whoever reads it."""
    try:
        return int(field)
    except ValueError:
        return field


def _jsonl(place: str, text: str) -> Iterator[_Row]:
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            said = json.loads(written)
        except ValueError as error:
            yield f"line {line}", f"{error}; wanted a JSON object"
            continue
        yield f"line {line}", said if isinstance(said, dict) else "wanted a JSON object"


def _toml(place: str, text: str) -> Iterator[_Row]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{place}: not TOML: {error}") from error
    rows = tables.get("wishes")
    if tables.keys() - {"wishes"} or not isinstance(rows, list):
        found = ", ".join(tables) or "nothing"
        raise InputError(f"{place}: found {found}; wanted tables [[wishes]] alone")
    yield from ((f"[[wishes]] {number}", said) for number, said in enumerate(rows, 1))


def _beside(place: str, reference: str) -> str:
    if not reference or "://" in reference or reference.startswith("/"):
        return reference
    folder, slash, _ = place.rpartition("/")
    return f"{folder}{slash}{reference}"
