"""Facts on disk: files that never change, and the view over them.

Layout: `<url>/<stage>/<fingerprint>/part-<time>-<random>.parquet`. Per clip the first row in
(time, name) order counts, so that two writers cost work, never a wrong row. A row with the code
`again` says that none before it counts: so a clip is measured anew, and nothing is rewritten.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain

import numpy as np
import pyarrow as pa

from pipeline import ids, ledger_file, ledger_rows, storage
from pipeline.clip import Failed, Outcome
from pipeline.ledger_file import Contents, DamagedError, order
from pipeline.ledger_rows import AGAIN, standing, standing_rows
from pipeline.stage import Source, fingerprints

_log = logging.getLogger(__name__)

_READERS = 8
"""Parts read at once: an object store answers slowly, and to many at a time."""

_LISTINGS = 3
"""How often files are looked for again when one went away between two looks."""

_View = tuple[str, tuple[str, ...]]
"""A stage and what is read of its parts."""


class Ledger:
    """What is known about the clips of one manifest.

    url: `facts/<manifest id>`; stages: in their fixed order. Safe to use from several threads.
    """

    def __init__(self, url: str, stages: Sequence[Source]) -> None:
        prints = fingerprints(stages)
        self._schemas = {stage.name: ledger_rows.schema_of(stage) for stage in stages}
        self._folders = {name: storage.join(url, name, print_) for name, print_ in prints.items()}
        self._about = {stage.name: ledger_rows.about(stage) for stage in stages}
        self._files: dict[_View, dict[str, Contents | None]] = {}
        self._views: dict[_View, pa.Table] = {}
        self._latest: dict[str, str] = {}
        self._named: set[str] = set()
        self._lock = threading.Lock()

    def is_like(self, other: Ledger) -> bool:
        """Whether the other one holds the same facts."""
        return self._folders == other._folders

    def stages(self) -> list[str]:
        """Their names, in their fixed order."""
        return list(self._folders)

    def folder(self, stage: str) -> str:
        """The url below which the parts of a stage (and its lease) lie."""
        return self._folders[stage]

    def url(self, stage: str, name: str) -> str:
        """Of a file of this stage."""
        return storage.join(self._folders[stage], name)

    def schema(self, stage: str) -> pa.Schema:
        """The columns of a file of this stage."""
        return self._schemas[stage]

    def latest(self, stage: str) -> str:
        """The `order` of the newest file that was seen."""
        return self._latest.get(stage, "")

    def about(self, stage: str) -> Mapping[str, str]:
        """What a file says of the numbers in it, for a person who finds it."""
        return self._about[stage]

    def has_parts(self, stage: str) -> bool:
        """Whether anything was ever measured."""
        return bool(self.files(stage))

    def facts(self, stage: str, columns: Collection[str] | None = None) -> pa.Table:
        """One row per known clip: clip_id, code and message (null when measured), the columns.

        columns: clip_id, code and these alone, in the stage's order; masks and embeddings are a
        thousand times what a verdict needs. Files that were read before are not read again.
        InputError names a file whose columns are others than the stage's; a torn one is left out,
        with a warning.
        """
        view = (stage, self._names(stage, columns))
        with self._lock:
            pieces, changed = self._load(view)
            if changed or view not in self._views:
                self._views[view] = standing(self._concat(view, pieces.values()))
            return self._views[view]

    def facts_of(self, stage: str, clips: pa.ChunkedArray) -> pa.Table:
        """All columns, of these clips alone: read file by file, so that no more is ever held."""
        wanted = ids.Index(ids.words(clips))
        view = (stage, self._names(stage, None))
        found = {
            name: part.take(pa.array(np.sort(wanted.match(ids.words(part["clip_id"]))[0])))
            for name, part in self._each(view)
        }
        return standing(self._concat(view, dict(sorted(found.items())).values()))

    def parts(self, stage: str, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """The rows of `facts` part by part, for what is too large to be held."""
        with self._lock:
            known, _ = self._load((stage, self._names(stage, ())))
        rows = standing_rows(self._concat((stage, self._names(stage, ())), known.values()))
        ends = np.cumsum([0, *map(len, known.values())])
        place = {
            name: rows[slice(*np.searchsorted(rows, ends[n : n + 2]))] - ends[n]
            for n, name in enumerate(known)
        }
        for name, part in self._each((stage, self._names(stage, columns))):
            if name in place:
                yield part.take(pa.array(place[name]))

    def _names(self, stage: str, columns: Collection[str] | None) -> tuple[str, ...]:
        """What to read of a part."""
        schema = self._schemas[stage]
        if columns is None:
            return tuple(schema.names)
        unknown = set(columns) - set(schema.names)
        if unknown:
            raise KeyError(f"stage {stage} has no columns {sorted(unknown)}")
        return tuple(name for name in schema.names if name in {"clip_id", "code", *columns})

    def files(self, stage: str) -> list[str]:
        """The names of the files of a stage, replaced ones too, in the order of their times."""
        found = storage.names(self._folders[stage])
        names = [n for n in found if ledger_file.is_part(n) or ledger_file.is_merged(n)]
        self._latest[stage] = max([self._latest.get(stage, ""), *map(order, names)])
        return sorted(names, key=order)

    def _load(self, view: _View) -> tuple[dict[str, pa.Table], bool]:
        """The rows of every part, in the order of their names; whether they are others than of
        late.
        """
        known = self._files.get(view, {})
        read = self._read_all(view, known)
        self._files[view] = read
        pieces: dict[str, pa.Table] = {}
        for contents in read.values():
            if contents is not None:
                for name, rows in contents.by_part():
                    pieces.setdefault(name, rows)
        return dict(sorted(pieces.items())), read.keys() != known.keys()

    def _read_all(
        self, view: _View, known: Mapping[str, Contents | None], looks: int = _LISTINGS
    ) -> dict[str, Contents | None]:
        """What lies there now; what is known is not read."""
        try:
            return self._read_listed(view, self.files(view[0]), known)
        except FileNotFoundError:  # deleted since it was listed: another one stands for it
            if looks == 1:
                raise
            return self._read_all(view, known, looks - 1)

    def _read_listed(
        self, view: _View, names: Sequence[str], known: Mapping[str, Contents | None]
    ) -> dict[str, Contents | None]:
        """Merged files first: what they replace is not read."""
        read: dict[str, Contents | None] = {}
        replaced: set[str] = set()
        for kind in (ledger_file.is_merged, ledger_file.is_part):
            wanted = [name for name in names if kind(name) and name not in replaced]
            new = [name for name in wanted if name not in known]
            with ThreadPoolExecutor(_READERS) as readers:
                fresh = dict(zip(new, readers.map(lambda n: self._read(view, n), new), strict=True))
            read |= {name: known[name] if name in known else fresh[name] for name in wanted}
            replaced.update(chain(*(found.replaces for found in read.values() if found)))
        empty = self._concat(view, ())
        for name in read.keys() & replaced:  # merged once more: what it says of others is all
            read[name] = Contents((), getattr(read[name], "replaces", frozenset()), empty)
        return read

    def _each(self, view: _View) -> Iterator[tuple[str, pa.Table]]:
        """The rows of every part, one file in memory at a time."""
        stage, _ = view
        seen: set[str] = set()
        files, looks = deque(self.standing_files(stage).items()), _LISTINGS
        while files:
            name, replaces = files.popleft()
            try:
                contents = self._read(view, name)
            except FileNotFoundError:  # deleted since it was listed, as in `_read_all`
                looks -= 1
                if not looks:
                    raise
                files = deque(self.standing_files(stage).items())
                continue
            if contents is None:  # torn: then what it stands for, if it is still there
                there = sorted(replaces.intersection(self.files(stage)))
                files.extend((other, frozenset()) for other in there)
                continue
            for part, rows in contents.by_part():
                if part not in seen:
                    seen.add(part)
                    yield part, rows

    def standing_files(self, stage: str) -> dict[str, frozenset[str]]:
        """The names of those files that no other one replaces, in the order of their first rows;
        with each what it replaces.
        """
        names = self.files(stage)
        begins = dict(zip(names, names, strict=True))
        replaces = dict.fromkeys(names, frozenset[str]())
        for name in names:
            if ledger_file.is_merged(name):
                with suppress(DamagedError, FileNotFoundError):
                    pieces, replaces[name] = ledger_file.made_of(self.url(stage, name))
                    begins[name] = pieces[0].part
        standing = begins.keys() - frozenset().union(*replaces.values())
        return {n: replaces[n] for n in sorted(standing, key=lambda name: order(begins[name]))}

    def _concat(self, view: _View, parts: Iterable[pa.Table | None]) -> pa.Table:
        stage, names = view
        empty = self._schemas[stage].empty_table().select(names)
        return pa.concat_tables([empty, *(part for part in parts if part is not None)])

    def measured(self, stage: str) -> set[str]:
        """The clips that have an outcome, failures included."""
        return set(self.facts(stage, ()).column("clip_id").to_pylist())

    def append(self, outcomes: Mapping[str, Sequence[tuple[str, Outcome]]]) -> None:
        """Writes one new part per stage that has outcomes: (clip id, outcome) each.

        ValueError when an outcome does not fit the stage's columns: a bug of the stage.
        """
        for stage, rows in outcomes.items():
            if rows:
                table = ledger_rows.table(stage, self._schemas[stage], rows)
                name = ledger_file.new_name(ledger_file.PART, self.latest(stage))
                url = self.url(stage, name)
                storage.write(url, ledger_file.part_bytes(table, self._about[stage]))
                self._latest[stage] = max(self._latest.get(stage, ""), order(name))

    def measure_again(self, stage: str, clips: Iterable[str], why: str) -> None:
        """From now on these clips count as not measured by this stage."""
        self.files(stage)  # so that the new part stands behind all others
        self.append({stage: [(clip, Failed(AGAIN, why)) for clip in clips]})

    def set_aside(self, stage: str, name: str) -> None:
        """Puts a damaged file out of the way: its clips are measured again. What is left of its
        bytes stays beside it, as `<name>.torn`.
        """
        url = self.url(stage, name)
        with suppress(FileNotFoundError):  # somebody else did so just now
            storage.write(f"{url}.torn", storage.read(url))
            storage.remove(url)

    def _read(self, view: _View, name: str) -> Contents | None:
        """One file; None when it is torn: its clips count as not measured, and it is named."""
        stage, columns = view
        url = self.url(stage, name)
        try:
            return ledger_file.read(url, self._schemas[stage], columns)
        except DamagedError as error:
            if url not in self._named:
                self._named.add(url)
                _log.warning(
                    "%s: is torn, and left out: its clips are measured again (%s); "
                    "python -m jobs.repair puts it aside",
                    url,
                    error,
                )
            return None
