"""TOML -> frozen dataclasses, strictly: what is not understood stops the run.

The dataclasses are plain ones; pydantic checks values and types underneath.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w
from pydantic import TypeAdapter, ValidationError

from pipeline import storage
from pipeline.errors import InputError

T = TypeVar("T")

_USER_INFO = re.compile(r"^\w[\w+.-]*://[^/@]*:[^/]*@")

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
}
"""Pydantic's kinds of error in the words of a TOML file."""


def load(path: str | None, kind: type[T], overrides: Mapping[str, Any] | None = None) -> T:
    """A run file as `kind`. Without a path: the defaults.

    overrides: dotted keys (`corpus.manifest`) that replace what the file says; None is no value.
    InputError names the file and the key: what was found, what was wanted, the nearest known key.
    """
    source = path or "the command line"
    tables = {} if path is None else read_tables(path)
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tables, key, value, source)
    return build(tables, kind, source)


def build(tables: dict[str, Any], kind: type[T], source: str) -> T:
    """Tables as `kind`. InputError begins with `source`, see `load`."""
    if secret := _secret(tables):
        raise InputError(
            f"{source}: {secret}: found credentials in a url; leave them out, they come from the "
            "environment alone"
        )
    adapter = TypeAdapter(kind)
    text = json.dumps(tables, default=str)  # JSON, for in it a list may become a tuple strictly
    try:
        return adapter.validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise InputError(f"{source}: {_first_line(error, kind, tables)}") from None


def dump(settings: Any) -> str:
    """A dataclass as TOML that `load` reads again; None, which TOML lacks, is left out."""
    return tomli_w.dumps(_plain(dataclasses.asdict(settings)))


def read_tables(path: str) -> dict[str, Any]:
    """A run file as it is written. Raises InputError."""
    try:
        return tomllib.loads(storage.read(path).decode("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such run file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a run file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from error


def _secret(value: Any, key: str = "") -> str | None:
    """The first key whose text holds a url with a name and a password in it."""
    if isinstance(value, str):
        return key if _USER_INFO.search(value) else None
    if not isinstance(value, dict | list):
        return None
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = (_secret(each, f"{key}.{name}".removeprefix(".")) for name, each in inner)
    return next(filter(None, found), None)


def _put(tables: dict[str, Any], key: str, value: Any, source: str) -> None:
    *above, last = key.split(".")
    table = tables
    for name in above:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InputError(f"{source}: {key}: {name} is a value there, wanted a table")
    table[last] = value


def _first_line(error: ValidationError, kind: Any, tables: dict[str, Any]) -> str:
    """The first thing that is wrong, in one line; unknown keys before all else."""
    errors = error.errors(include_url=False)
    unknown = [e for e in errors if e["type"] in ("unexpected_keyword_argument", "extra_forbidden")]
    first = (unknown or errors)[0]
    where, known = _place(kind, tables, first["loc"])
    if unknown:
        near = difflib.get_close_matches(where.rpartition(".")[2], known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"unknown key {where}; {advice}"
    if first["type"] == "value_error":
        why = str(first.get("ctx", {}).get("error"))
        return why if where and re.match(rf"{re.escape(where)}\b", why) else f"{where}: {why}"
    if first["type"] == "missing":
        return f"{where}: {first['loc'][-1]} is missing".removeprefix(": ")
    found = json.dumps(first["input"], ensure_ascii=False, default=str)
    found = found if len(found) <= 60 else f"{found[:59]}…"
    wants = [_wanted(e) for e in errors if _place(kind, tables, e["loc"])[0] == where]
    return f"{where}: found {found}, wanted {' or '.join(dict.fromkeys(wants))}"


def _wanted(error: Any) -> str:
    return _WANTED.get(error["type"]) or error["msg"].removeprefix("Input should be ")


def _place(kind: Any, tables: Any, loc: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """The dotted key of an error, and the keys that are known in its table.

    Steps of `loc` that are not in the tables (pydantic names the members of a union) are left out.
    """
    where, kinds, known = "", [kind], []
    for step in loc:
        try:
            tables = tables[step]
        except (KeyError, IndexError, TypeError):
            continue
        where += f"[{step}]" if isinstance(step, int) else f".{step}"
        members = [member for kind in kinds for member in _members(kind)]
        known = [field for member in members for field in _hints(member)]
        kinds = [inner for member in members for inner in _inside(member, step)]
    return where.removeprefix("."), known


def _members(kind: Any) -> list[Any]:
    """The types of a union; a type that is none alone."""
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def _hints(kind: Any) -> dict[str, Any]:
    """Field -> type of a dataclass; {} of anything else."""
    return get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}


def _inside(kind: Any, step: int | str) -> list[Any]:
    """The types of what lies at one step inside a value of this type."""
    if dataclasses.is_dataclass(kind):
        return [hint for name, hint in _hints(kind).items() if name == step]
    return list(get_args(kind))


def _plain(value: Any) -> Any:
    """Without None, as TOML has none, and with lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
