"""The clips of a corpus: every row of it is a row here, also one that cannot be read."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import manifest_cache, storage
from pipeline.clip import Clip, Location
from pipeline.corpus import is_folder, read_rows
from pipeline.errors import InputError
from pipeline.filters import Filter
from pipeline.row_table import OWN, numeric, source_id, tabulate
from pipeline.zips import Zips, open_zips

__all__ = ["Manifest", "read_manifest", "source_id"]

_BATCH = 20_000
"""Rows that stand in memory as Python objects at once; ours. The id hangs on it: never change it.
"""


@dataclass(frozen=True)
class Manifest:
    """A corpus as read.

    corpus, videos: where the rows and the files lie, absolute. rows: one per row of the corpus:
    clip_id, video, caption, source_id, duplicate (the name stood further up already), problem
    (`malformed`, else null), problem detail (why), line number (where the row begins in the
    corpus), then what the corpus publishes, null where it says nothing.
    zips: the zip files that the clips lie in; None when they are files of their own.
    """

    corpus: str
    videos: str
    rows: pa.Table
    zips: Zips | None = None
    known_id: str = ""

    @cached_property
    def id(self) -> str:
        """16 hex digits over the rows and the place of the videos.

        The place is part of it: facts belong to files, so a corpus that moved is measured anew.
        """
        if self.known_id:
            return self.known_id
        digest = hashlib.sha256(self.videos.encode())
        names = ["video", "caption", "problem", *sorted(self.published.names)]
        digest.update(json.dumps(names).encode())
        for batch in self.rows.select(names).to_batches(max_chunksize=_BATCH):
            columns = [column.to_pylist() for column in batch.columns]
            digest.update(repr(list(zip(*columns, strict=True))).encode())
        return digest.hexdigest()[:16]

    @property
    def published(self) -> pa.Schema:
        """What the corpus says of its clips besides name and caption."""
        return pa.schema([field for field in self.rows.schema if field.name not in OWN.names])

    @property
    def filters(self) -> Mapping[str, Filter]:
        """Nothing is asked of what is published, and a clip without it passes, until a run does."""
        return {name: Filter(absent="pass") for name in self.published.names}

    @cached_property
    def missing(self) -> np.ndarray:
        """(N,) bool: rows whose clip is known to be nowhere, as it is in none of the zips.

        No fact: it is found out anew at every run, so that zips may be fetched by and by.
        """
        if self.zips is None:
            return np.zeros(len(self.rows), dtype=bool)
        return (self._members < 0) & ~self.zips.is_loose(self.rows["video"])

    @cached_property
    def _members(self) -> np.ndarray:
        """(N,) int: the row of each clip in `zips.members`, -1: it does not lie in a zip."""
        if self.zips is None:
            return np.full(len(self.rows), -1)
        videos = self.rows["video"]
        return np.where(self.zips.is_loose(videos), -1, self.zips.find(videos))

    def clips(self, rows: Sequence[int]) -> list[Clip]:
        """The clips of these row numbers."""
        if not rows:
            return []
        first = min(rows)  # taking from a short slice does not walk through a million rows
        near = self.rows.slice(first, max(rows) - first + 1)
        records = near.take(pa.array([row - first for row in rows])).to_pylist()
        names = self.published.names
        return [
            Clip(
                clip_id=record["clip_id"],
                video=record["video"],
                path=path,
                caption=record["caption"],
                source_id=record["source_id"],
                published={name: record[name] for name in names if record[name] is not None},
            )
            for record, path in zip(records, self._paths(rows, records), strict=True)
        ]

    def _paths(
        self, rows: Sequence[int], records: Sequence[Mapping[str, Any]]
    ) -> Iterator[Location]:
        """Where the bytes of these rows lie."""
        folder = self.zips.folder if self.zips else self.videos
        at = self._members[np.asarray(rows)] if self.zips else np.full(len(rows), -1)
        members = iter(self.zips.take(at[at >= 0]) if self.zips else ())
        for member, record in zip(at, records, strict=True):
            yield next(members) if member >= 0 else storage.join(folder, record["video"])


def read_manifest(
    corpus: str,
    videos: str | None = None,
    cache: str | None = None,
    captioned: bool = True,
    zipped: bool = True,
) -> Manifest:
    """Reads a corpus: a .csv, .parquet or .jsonl file, or a folder of videos.

    videos: the folder or url where the files lie, or zips of them (pipeline/zips.py); without one,
    the manifest's own folder. cache: a folder where a large corpus is kept as read, so that it is
    read but once. captioned: whether it has to have captions. zipped: whether to look for zips, and
    for the folder itself; a plan of what to fetch needs none. InputError: it is missing, has no
    column `video`, no rows, or no caption at all.
    """
    corpus = _resolved(corpus)
    place = _resolved(videos) if videos else _own_folder(corpus)
    zips = open_zips(place) if zipped else None
    local = storage.local(place)
    if zipped and videos and zips is None and local is not None and not local.is_dir():
        raise InputError(f"{place}: no such folder; wanted the one where the videos lie")
    kept = manifest_cache.entry(cache, corpus, place) if cache and not is_folder(corpus) else None
    found = kept.load() if kept else None
    rows = found.rows if found else _read(corpus)
    _check_usable(corpus, rows, captioned)
    manifest = Manifest(corpus, place, rows, zips, found.id if found else "")
    if kept and not found:
        kept.save(rows, manifest.id)
        found = kept.load()  # mapped, so that what was read need not be held
        return replace(manifest, rows=found.rows, known_id=found.id) if found else manifest
    return manifest


def _read(corpus: str) -> pa.Table:
    seen: set[str] = set()
    rows = iter(read_rows(corpus))
    with _uncollected():
        tables = [tabulate(batch, seen) for batch in iter(lambda: list(islice(rows, _BATCH)), [])]
    if not tables:
        raise InputError(f"{corpus}: the corpus is empty; wanted at least one row")
    table = pa.concat_tables(tables, promote_options="default")
    for name in table.column_names[len(OWN) :]:
        at = table.column_names.index(name)
        table = table.set_column(at, name, numeric(name, table.column(name)))
    return table


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: rows hold none, and a fifth of the time would go into it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _resolved(url: str) -> str:
    path = storage.local(url)
    return url.rstrip("/") if path is None else str(path.resolve())


def _own_folder(corpus: str) -> str:
    return corpus if is_folder(corpus) else corpus.rpartition("/")[0] or "/"


def _check_usable(corpus: str, rows: pa.Table, captioned: bool) -> None:
    if rows["problem"].null_count == 0:
        raise InputError(f"{corpus}: {len(rows)} rows, all malformed; wanted a video and a caption")
    if captioned and not any(any(chunk.to_pylist()) for chunk in rows["caption"].chunks):
        beside = "NAME.txt or NAME.json beside a video" if is_folder(corpus) else "a column caption"
        raise InputError(
            f"{corpus}: {len(rows)} rows, no captions; wanted {beside}, or a model that writes "
            'them: backend = "server" under [caption] in the run file'
        )
