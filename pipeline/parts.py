"""Which parts of a corpus are worth fetching: many clips that pass, in few bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import storage
from pipeline.errors import InputError
from pipeline.zips import Zip, Zips, find_names

_NUMBER = re.compile(r"part_?(\d+)$")


class Holding(NamedTuple):
    """names: of the parts; part: (N,) the number of each clip's part, -1 where it is in none."""

    names: Sequence[str]
    part: np.ndarray


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a corpus.

    files: what is to be fetched of it; num_bytes: of them, None when nobody says.
    clips, kept: how many of the corpus it holds, and how many of them pass.
    """

    name: str
    files: tuple[str, ...]
    num_bytes: int | None
    clips: int
    kept: int

    @property
    def kept_per_gb(self) -> float | None:
        """Clips that pass in 10^9 bytes."""
        return self.kept / (self.num_bytes / 1e9) if self.num_bytes else None


def in_zips(zips: Zips, videos: pa.ChunkedArray) -> Holding:
    """As the zips themselves say."""
    rows = zips.find(videos)
    numbers = np.append(zips.members["zip"].to_numpy(), -1)
    return Holding([found.name for found in zips.zips], numbers[rows])


def in_mapping(url: str, videos: pa.ChunkedArray) -> Holding:
    """As a JSON file says: part -> names, in one object or in a list of objects (OpenVidHD.json).

    InputError when it says something else.
    """
    try:
        found = json.loads(storage.read(url))
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such file; wanted JSON: part -> names of clips") from error
    except ValueError as error:
        raise InputError(f"{url}: {error}; wanted JSON: part -> names of clips") from error
    groups = found if isinstance(found, list) else [found]
    parts: list[str] = []
    names: list[str] = []
    part_of: list[int] = []
    for group in groups:
        if not isinstance(group, dict) or not all(_are_names(held) for held in group.values()):
            raise InputError(f"{url}: found {str(group)[:60]}, wanted part -> names of clips")
        for part, held in group.items():
            part_of += [len(parts)] * len(held)
            names += held
            parts.append(part)
    rows = find_names(videos, pa.chunked_array([names], pa.string()))
    return Holding(parts, np.array([*part_of, -1])[rows])


def plan(holding: Holding, kept: np.ndarray, zips: Iterable[Zip]) -> list[Part]:
    """The parts that hold clips that pass, the most of them per byte first.

    kept: (N,) bool. zips: the files that there are; a part without any is of unknown size, and
    comes after those that are known, the most clips first.
    """
    there = {key: found for found in zips for key in _keys(found.name)}
    count = len(holding.names)
    held = holding.part >= 0
    clips = np.bincount(holding.part[held], minlength=count)
    passing = np.bincount(holding.part[held & kept], minlength=count)
    parts = []
    for number, name in enumerate(holding.names):
        found = next((there[key] for key in _keys(name) if key in there), None)
        files = tuple(found.file_names) if found else (name,)
        num_bytes = found.size if found else None
        parts.append(Part(name, files, num_bytes, int(clips[number]), int(passing[number])))
    wanted = [part for part in parts if part.kept]
    return sorted(wanted, key=lambda part: (-(part.kept_per_gb or 0), -part.kept))


def _keys(name: str) -> list[str]:
    """What a part is called: OpenVidHD's JSON says `part8` of OpenVidHD_part_8.zip."""
    number = _NUMBER.search(name.removesuffix(".zip"))
    return [name.removesuffix(".zip"), *([number[1]] if number else [])]


def _are_names(held: object) -> bool:
    return isinstance(held, list) and all(isinstance(name, str) for name in held)
