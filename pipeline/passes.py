"""A pass: the clips whose verdict waits for one of its stages, through a fleet, into the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import ids
from pipeline.filters import Filters
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.replay import Replay
from pipeline.stage import Source, Stage
from pipeline.units import Batch, Fleet, Loop, cut
from pipeline.verdicts import Verdicts
from pipeline.work import Limits, Task, Work
from pipeline.writer import LedgerWriter

FACTS_AT_ONCE = 100_000
"""Clips whose facts are held while they are fed. Ours: with mask and embedding they take 5 KB each;
a hundred thousand clips are minutes of work at least, and reading on takes seconds.
"""

OpenFleet = Callable[[Work], AbstractContextManager[Fleet]]


@dataclass(frozen=True, slots=True)
class Curation:
    """Everything that decides what a pass has to do.

    stages: all of the run, in their fixed order; filters: all of the run.
    """

    manifest: Manifest
    stages: tuple[Source, ...]
    filters: Filters
    ledger: Ledger
    limits: Limits = Limits()
    measure_all: bool = False

    def replay(self, *others: Filters) -> Replay:
        """What the ledger has now of all that the filters, and these others, ask for."""
        facts = {
            stage.name: self.ledger.facts(stage.name, _asked(stage, (self.filters, *others)))
            for stage in self.stages
        }
        return Replay(self.manifest, self.stages, facts)

    def verdicts(self) -> Verdicts:
        """One per manifest row, from what the ledger has now."""
        return self.replay().judge(self.filters)

    def missing(self, names: Sequence[str]) -> np.ndarray:
        """Manifest rows that a pass of these stages has to do."""
        if self.measure_all:
            return self._unmeasured(names)
        return np.flatnonzero(self.verdicts().are("pending", names))

    def _unmeasured(self, names: Sequence[str]) -> np.ndarray:
        """Rows that lack facts of any of the stages and failed in none of the run's stages."""
        rows, replay = self.manifest.rows, self.replay()
        usable = ~np.asarray(rows["duplicate"]) & ~np.asarray(rows["problem"].is_valid())
        usable &= ~replay.nowhere()
        wanted = np.zeros(len(rows), dtype=bool)
        for stage in self.stages:
            at = replay.at(stage.name)
            # One more, so that -1 (not known) finds a clip that has not failed.
            failed = np.append(np.asarray(replay.facts[stage.name]["code"].is_valid()), False)
            usable &= ~failed[at]
            if stage.name in names:
                wanted |= at < 0
        return np.flatnonzero(usable & wanted)


def _asked(stage: Source, filters: Sequence[Filters]) -> Collection[str]:
    """The columns of this stage that the filters in force need."""
    tables = [table.get(stage.name, {}) for table in filters]
    return stage.read_for({name for t in tables for name, limit in t.items() if not limit.off})


@dataclass(frozen=True, slots=True)
class Pace:
    """unit_size: clips handed to a worker at once; flush_s: between two parts of the ledger."""

    unit_size: int = 32
    flush_s: float = 30.0


@dataclass(frozen=True, slots=True)
class PassReport:
    """done: every clip of the pass has its outcome; todo: how many it had to do.

    spent: seconds of all workers together, see `Result.spent`.
    """

    name: str
    todo: int
    done: bool
    fates: Mapping[str, int]
    spent: Mapping[str, float]

    def shares(self) -> str:
        """`waiting for frames 12%, appearance 60%, motion 28%` of the workers' time."""
        total = sum(self.spent.values())
        return ", ".join(f"{what} {s / total:.0%}" for what, s in self.spent.items() if total)


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
        return PassReport(name, 0, True, {}, {})
    of_pass = [stage for stage in curation.stages if stage.name in stage_names]
    stages = tuple(stage for stage in of_pass if isinstance(stage, Stage))
    work = Work(stages, curation.filters, curation.measure_all, curation.limits)
    fates: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    with (
        LedgerWriter(curation.ledger, pace.flush_s) as writer,
        open_fleet(work) as fleet,
        progress(name, len(rows)) as shown,
    ):

        def record(batch: Batch) -> None:
            writer.add(batch.outcomes)
            counts = Counter(batch.fates.values())
            fates.update(counts)
            spent.update(batch.spent)
            shown.update(len(batch.fates), **{fate: counts[fate] for fate in counts})

        units = cut(_tasks(curation, stages, rows), pace.unit_size)
        done = Loop(fleet, record, stopping).run(units)
    return PassReport(name, len(rows), done, dict(fates), dict(spent))


def _tasks(curation: Curation, stages: Sequence[Stage], rows: np.ndarray) -> Iterator[Task]:
    """The clips with the facts that these stages read or have already, in manifest order."""
    wanted = {need for stage in stages for need in stage.needs} | {s.name for s in stages}
    for start in range(0, len(rows), FACTS_AT_ONCE):
        yield from _tasks_of(curation, wanted, rows[start : start + FACTS_AT_ONCE])


def _tasks_of(curation: Curation, wanted: Collection[str], rows: np.ndarray) -> Iterator[Task]:
    """The same of rows whose facts fit into memory."""
    clip_ids = curation.manifest.rows["clip_id"].take(pa.array(rows))
    known = {name: _measured(curation.ledger.facts_of(name, clip_ids)) for name in wanted}
    at = {
        name: ids.positions(ids.words(clip_ids), ids.words(table["clip_id"]))
        for name, table in known.items()
    }
    chunk = 1_000
    for start in range(0, len(rows), chunk):
        clips = curation.manifest.clips(rows[start : start + chunk].tolist())
        facts: list[dict[str, Mapping[str, Any]]] = [{} for _ in clips]
        for name, table in known.items():
            here = at[name][start : start + chunk]
            hits = np.flatnonzero(here >= 0)
            found = table.take(pa.array(here[hits])).drop_columns(["clip_id"]).to_pylist()
            for position, values in zip(hits.tolist(), found, strict=True):
                facts[position][name] = values
        yield from (Task(clip, fact) for clip, fact in zip(clips, facts, strict=True))


def _measured(facts: pa.Table) -> pa.Table:
    """clip_id and the columns, where there was no failure."""
    return facts.filter(facts["code"].is_null()).drop_columns(["code", "message"])
