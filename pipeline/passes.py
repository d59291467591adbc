"""A pass: the clips whose verdict waits for one of its stages, through a fleet, into the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.filters import Filters
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.stage import Stage
from pipeline.units import Batch, Fleet, Loop, cut
from pipeline.verdicts import judge
from pipeline.work import Limits, Task, Work
from pipeline.writer import LedgerWriter

OpenFleet = Callable[[Work], AbstractContextManager[Fleet]]


@dataclass(frozen=True, slots=True)
class Curation:
    """Everything that decides what a pass has to do.

    stages: all of the run, in their fixed order; filters: all of the run.
    """

    manifest: Manifest
    stages: tuple[Stage, ...]
    filters: Filters
    ledger: Ledger
    limits: Limits = Limits()
    measure_all: bool = False

    def verdicts(self) -> pa.Table:
        """One row per manifest row, from what the ledger has now."""
        facts = {stage.name: self.ledger.facts(stage.name) for stage in self.stages}
        return judge(self.manifest, self.stages, self.filters, facts)

    def missing(self, names: Sequence[str]) -> np.ndarray:
        """Manifest rows that a pass of these stages has to do."""
        if self.measure_all:
            return self._unmeasured(names)
        verdicts = self.verdicts()
        pending = _strings(verdicts["verdict"]) == "pending"
        return np.flatnonzero(pending & np.isin(_strings(verdicts["stage"]), list(names)))

    def _unmeasured(self, names: Sequence[str]) -> np.ndarray:
        """Rows that lack facts of any of the stages and failed in none of the run's stages."""
        rows = self.manifest.rows
        clips = _strings(rows["clip_id"])
        usable = ~np.asarray(rows["duplicate"]) & ~np.asarray(rows["problem"].is_valid())
        wanted = np.zeros(len(clips), dtype=bool)
        for stage in self.stages:
            facts = self.ledger.facts(stage.name)
            known, failed = _strings(facts["clip_id"]), np.asarray(facts["code"].is_valid())
            usable &= ~np.isin(clips, known[failed])
            if stage.name in names:
                wanted |= ~np.isin(clips, known)
        return np.flatnonzero(usable & wanted)


@dataclass(frozen=True, slots=True)
class Pace:
    """unit_size: clips handed to a worker at once; flush_s: between two parts of the ledger."""

    unit_size: int = 32
    flush_s: float = 30.0


@dataclass(frozen=True, slots=True)
class PassReport:
    """done: every clip of the pass has its outcome; todo: how many it had to do."""

    name: str
    todo: int
    done: bool
    fates: Mapping[str, int]


def run_pass(
    name: str,
    stage_names: Sequence[str],
    curation: Curation,
    open_fleet: OpenFleet,
    stopping: Callable[[], bool],
    pace: Pace,
    progress: Callable[[str, int], Progress],
) -> PassReport:
    """Measures what is missing. Raises StageError, SickClusterError or InputError (a full disk)."""
    rows = curation.missing(stage_names)
    if len(rows) == 0:
        return PassReport(name, 0, True, {})
    stages = tuple(stage for stage in curation.stages if stage.name in stage_names)
    work = Work(stages, curation.filters, curation.measure_all, curation.limits)
    fates: Counter[str] = Counter()
    with (
        LedgerWriter(curation.ledger, pace.flush_s) as writer,
        open_fleet(work) as fleet,
        progress(name, len(rows)) as shown,
    ):

        def record(batch: Batch) -> None:
            writer.add(batch.outcomes)
            counts = Counter(batch.fates.values())
            fates.update(counts)
            shown.update(len(batch.fates), **{fate: counts[fate] for fate in counts})

        units = cut(_tasks(curation, stages, rows), pace.unit_size)
        done = Loop(fleet, record, stopping).run(units)
    return PassReport(name, len(rows), done, dict(fates))


def _tasks(curation: Curation, stages: Sequence[Stage], rows: np.ndarray) -> Iterator[Task]:
    """The clips with the facts that these stages read or have already, in manifest order."""
    wanted = {need for stage in stages for need in stage.needs} | {s.name for s in stages}
    known = {name: _Lookup(curation.ledger.facts(name)) for name in wanted}
    chunk = 1_000
    for start in range(0, len(rows), chunk):
        clips = curation.manifest.clips(rows[start : start + chunk].tolist())
        ids = [clip.clip_id for clip in clips]
        facts: list[dict[str, Mapping[str, Any]]] = [{} for _ in clips]
        for name, lookup in known.items():
            for position, values in lookup.take(ids):
                facts[position][name] = values
        yield from (Task(clip, fact) for clip, fact in zip(clips, facts, strict=True))


class _Lookup:
    """Measurements of a facts table by clip id, without an object per row in memory."""

    def __init__(self, facts: pa.Table) -> None:
        measured = facts.filter(facts["code"].is_null()).drop_columns(["code", "message"])
        self._table = measured.sort_by("clip_id")
        self._ids = _strings(self._table["clip_id"]).astype("S16")

    def take(self, ids: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(position in ids, values) for those that are known."""
        if len(self._ids) == 0:
            return
        wanted = np.asarray(ids, dtype="S16")
        at = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        hits = np.flatnonzero(self._ids[at] == wanted)
        found = self._table.take(pa.array(at[hits])).drop_columns(["clip_id"]).to_pylist()
        yield from zip(hits.tolist(), found, strict=True)


def _strings(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
