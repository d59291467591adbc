"""What a threshold costs: how many clips are kept at each value of it, all else as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipeline.filters import MANIFEST_STAGE, Filter, Filters
from pipeline.neighbours import NEAR_DUPLICATE, Pairs, copies, pairs_of
from pipeline.replay import Replay


@dataclass(frozen=True, slots=True)
class Yield:
    """kept: clips of which all is known; unknown: those that something not yet measured decides."""

    kept: int
    unknown: int


class Yields:
    """Counts what other thresholds would keep, one measure at a time.

    Every filter is looked at by itself, not only the first that rejects: so the rows that one more
    value lets pass are those that nothing else rejects. Near copies are found anew each time among
    what passes in front of them.
    """

    def __init__(self, replay: Replay, filters: Filters) -> None:
        self._replay = replay
        self._filters = filters
        names = [stage.name for stage in replay.stages]
        near = names.index(NEAR_DUPLICATE) if NEAR_DUPLICATE in names else len(names)
        self._behind = set(names[near + 1 :])
        rows = len(replay.manifest.rows)
        # In front of the near copies, and behind them.
        self._fails = np.zeros((2, rows), np.int16)
        self._known = np.ones((2, rows), bool)
        self._listed = Replay(replay.manifest, (), {}).judge({}).are("kept")
        self._fails[0] += ~self._listed
        for name in [MANIFEST_STAGE, *names]:
            self._add(name)

    def _add(self, stage: str) -> None:
        """Counts a stage in."""
        side = int(stage in self._behind)
        limits = self._filters.get(stage, {})
        if stage == NEAR_DUPLICATE and self._copy_limit.off:
            return
        if stage != MANIFEST_STAGE:
            at = self._replay.at(stage)
            self._known[side] &= at >= 0
            failed = np.asarray(self._replay.facts[stage]["code"].is_valid())
            self._fails[side] += np.append(failed, False)[at]
        if stage != NEAR_DUPLICATE:
            for measure, limit in limits.items():
                self._fails[side] += self.rejects(stage, measure, limit)

    def values(self, stage: str, measure: str) -> tuple[np.ndarray, pa.Array]:
        """The rows that were measured, and what was found: null where a value is absent."""
        if stage == MANIFEST_STAGE:
            rows = np.arange(len(self._replay.manifest.rows))
            return rows, self._replay.manifest.rows[measure].combine_chunks()
        facts, at = self._replay.facts[stage], self._replay.at(stage)
        rows = np.flatnonzero(np.append(~np.asarray(facts["code"].is_valid()), False)[at])
        return rows, facts[measure].combine_chunks().take(pa.array(at[rows]))

    def unmeasured(self, rows: np.ndarray) -> int:
        """Of the clips that the manifest lists once and can read, how many are not among these."""
        return int(self._listed.sum() - self._listed[rows].sum())

    def rejects(self, stage: str, measure: str, limit: Filter) -> np.ndarray:
        """(N,) which rows have a value that this filter does not let pass."""
        rejected = np.zeros(len(self._replay.manifest.rows), bool)
        if not limit.off:
            rows, values = self.values(stage, measure)
            rejected[rows] = ~limit.lets_pass(values)
        return rejected

    def at(self, stage: str, measure: str, limits: Sequence[Filter]) -> list[Yield]:
        """What would be kept with each of these filters in the place of the present one."""
        side = int(stage in self._behind)
        fails = self._fails.copy()
        if stage != NEAR_DUPLICATE:
            present = self._filters.get(stage, {}).get(measure, Filter(off=True))
            fails[side] -= self.rejects(stage, measure, present)
        found = []
        for limit in limits:
            passed = fails == 0
            if stage != NEAR_DUPLICATE:
                passed[side] &= ~self.rejects(stage, measure, limit)
            found.append(self._count(passed, limit if stage == NEAR_DUPLICATE else None))
        return found

    def _count(self, passed: np.ndarray, copy_limit: Filter | None) -> Yield:
        """passed: (2, N) which rows pass in front of the near copies, and behind."""
        limit = copy_limit or self._copy_limit
        left = passed[0] & passed[1]
        if not limit.off:
            is_open = passed[0] & self._known[0]
            alike = ~limit.accepts_each(pa.chunked_array([pa.array(self._pairs.similarity)]))
            alike &= is_open[self._pairs.later] & is_open[self._pairs.earlier]
            left[copies(self._pairs.where(alike), len(left)).later] = False
        known = self._known.all(axis=0)
        return Yield(int((left & known).sum()), int((left & ~known).sum()))

    @property
    def _copy_limit(self) -> Filter:
        return self._filters.get(NEAR_DUPLICATE, {}).get("similarity", Filter(off=True))

    @cached_property
    def _pairs(self) -> Pairs:
        facts, at = self._replay.facts[NEAR_DUPLICATE], self._replay.at(NEAR_DUPLICATE)
        rows = np.flatnonzero(at >= 0)
        return pairs_of(rows, facts.take(pa.array(at[rows])))
