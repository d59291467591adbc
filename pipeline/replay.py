"""Facts and filters -> verdicts, as often as asked: a million rows take part of a second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import ids
from pipeline.filters import Filter, Filters, rejection
from pipeline.manifest import Manifest
from pipeline.neighbours import NEAR_DUPLICATE, NearDuplicate, copies, pairs_of
from pipeline.stage import Source
from pipeline.verdicts import MANIFEST_STAGE, Reason, Verdicts


class Replay:
    """The facts of a manifest, joined with its rows once and judged by any filters.

    facts: by stage, clip_id, code and the columns that will be asked for.
    """

    def __init__(
        self, manifest: Manifest, stages: Sequence[Source], facts: Mapping[str, pa.Table]
    ) -> None:
        self.manifest = manifest
        self.stages = stages
        self.facts = facts
        # Of clips that stand there twice only the first is judged by its facts.
        unusable = np.asarray(manifest.rows["duplicate"]) | np.asarray(
            manifest.rows["problem"].is_valid()
        )
        self._rows = np.flatnonzero(~unusable)
        self._index = ids.Index(ids.words(manifest.rows["clip_id"])[self._rows])
        self._at: dict[str, np.ndarray] = {}

    def at(self, stage: str) -> np.ndarray:
        """(N,) where the facts of each manifest row stand in the stage's table; -1: nowhere."""
        if stage not in self._at:
            here, place = self._index.match(ids.words(self.facts[stage]["clip_id"]))
            at = np.full(len(self.manifest.rows), -1, np.int32)
            at[self._rows[place]] = here
            self._at[stage] = at
        return self._at[stage]

    def nowhere(self) -> np.ndarray:
        """(N,) bool: rows in none of the zips, of which nothing is known from when they were."""
        missing = self.manifest.missing
        if self.stages and missing.any():
            return missing & (self.at(self.stages[0].name) < 0)
        return missing

    def judge(self, filters: Filters) -> Verdicts:
        """One verdict per manifest row.

        The reason is the first in the order: manifest, then the stages; in a stage: facts missing
        (pending), failed, then its filters; in the manifest: malformed, duplicate, in none of the
        zips, then the filters on what is published. Kept means that every stage measured it and
        let it pass.
        """
        rows = self.manifest.rows
        verdicts = Verdicts(rows)
        problems = rows["problem"].combine_chunks()
        _close_failed(verdicts, MANIFEST_STAGE, problems)
        twice = np.asarray(rows["duplicate"])[verdicts.open]
        verdicts.close(twice, [Reason("rejected", MANIFEST_STAGE, code="duplicate")])
        nowhere = self.nowhere()[verdicts.open]
        verdicts.close(nowhere, [Reason("failed", MANIFEST_STAGE, code="missing")])
        every = np.arange(len(rows))
        _filter(verdicts, MANIFEST_STAGE, filters.get(MANIFEST_STAGE, {}), rows, every)
        for stage in self.stages:
            self._judge(verdicts, stage, filters.get(stage.name, {}))
        return verdicts

    def _judge(self, verdicts: Verdicts, stage: Source, filters: Mapping[str, Filter]) -> None:
        """Closes the open rows that this stage does not let pass."""
        if isinstance(stage, NearDuplicate):
            self._judge_copies(verdicts, filters.get("similarity", Filter(off=True)))
            return
        at, facts = self.at(stage.name), self.facts[stage.name]
        verdicts.close(at[verdicts.open] < 0, [Reason("pending", stage.name)])
        _close_failed(verdicts, stage.name, _take(facts["code"], at[verdicts.open]))
        _filter(verdicts, stage.name, filters, facts, at)

    def _judge_copies(self, verdicts: Verdicts, limit: Filter) -> None:
        """Closes the open rows that are copies of one in front of them which stays open.

        With the filter off no row waits for a comparison.
        """
        if limit.off:
            return
        at, facts = self.at(NEAR_DUPLICATE), self.facts[NEAR_DUPLICATE]
        verdicts.close(at[verdicts.open] < 0, [Reason("pending", NEAR_DUPLICATE)])
        is_open = np.zeros(len(at), bool)
        is_open[verdicts.open] = True
        nearest = facts["similarity"].take(pa.array(at[verdicts.open]))
        alike = verdicts.open[~limit.accepts_each(nearest) & np.asarray(nearest.is_valid())]
        pairs = pairs_of(alike, facts.take(pa.array(at[alike])))
        alike = ~limit.accepts_each(pa.chunked_array([pa.array(pairs.similarity)]))
        pairs = pairs.where(alike & is_open[pairs.later] & is_open[pairs.earlier])
        found = copies(pairs, len(at))
        threshold = limit.threshold(math.inf)
        reason = Reason("rejected", NEAR_DUPLICATE, "similarity", threshold)
        rows = verdicts.close(np.isin(verdicts.open, found.later), [reason])
        first = self.manifest.rows["video"].take(pa.array(found.earlier)).to_pylist()
        values = zip(found.similarity.tolist(), first, strict=True)
        words = [f"{limit.short(value)} to {video}" for value, video in values]
        verdicts.add_values(rows, pa.array(words, pa.string()), str)


def judge(
    manifest: Manifest, stages: Sequence[Source], filters: Filters, facts: Mapping[str, pa.Table]
) -> Verdicts:
    """One replay of facts that are not looked at again."""
    return Replay(manifest, stages, facts).judge(filters)


def _take(column: pa.ChunkedArray, at: np.ndarray) -> pa.Array:
    return column.combine_chunks().take(pa.array(at))


def _filter(
    verdicts: Verdicts, stage: str, filters: Mapping[str, Filter], facts: pa.Table, at: np.ndarray
) -> None:
    """Closes the open rows that a filter does not let pass; at: (N,) their facts in the table."""
    for measure, limit in filters.items():
        if limit.off:
            continue
        values = _take(facts[measure], at[verdicts.open])
        _close_rejected(verdicts, stage, measure, limit, values, limit.lets_pass(values))


def _close_failed(verdicts: Verdicts, stage: str, codes: pa.Array) -> None:
    """codes: of the open rows, null where nothing failed."""
    failed = np.asarray(codes.is_valid())
    found = codes.drop_null().dictionary_encode()
    reasons = [Reason("failed", stage, code=code) for code in found.dictionary.to_pylist()]
    verdicts.close(failed, reasons, found.indices.to_numpy())


def _close_rejected(
    verdicts: Verdicts, stage: str, measure: str, limit: Filter, values: pa.Array, passed: Any
) -> None:
    """values: of the open rows."""
    left = values.filter(pa.array(~passed))
    _, examples, of = np.unique(limit.broken_each(left), return_index=True, return_inverse=True)
    reasons = []
    for example in examples.tolist():
        why = rejection(measure, limit, left[example].as_py())
        verdict = "failed" if why.failed else "rejected"
        reasons.append(Reason(verdict, stage, measure, why.threshold, why.code))
    rows = verdicts.close(~passed, reasons, of)
    verdicts.add_values(rows, left, partial(_value, measure, limit))


def _value(measure: str, limit: Filter, value: Any) -> str:
    return rejection(measure, limit, value).value
