"""Facts and filters -> one verdict per manifest row, and what they look like to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.filters import Filter, Filters, rejection
from pipeline.manifest import Manifest
from pipeline.stage import Stage

VERDICTS = ("kept", "rejected", "failed", "pending")

MANIFEST_STAGE = "manifest"
"""The `stage` of rows that no stage sees: duplicates (rejected) and malformed ones (failed)."""

_REASON = ("verdict", "stage", "measure", "value", "threshold", "code")
SCHEMA = pa.schema([(name, pa.string()) for name in ("clip_id", "video", *_REASON)])


class _Sheet:
    """The reasons of all rows while they are found; a row is open until it has a verdict."""

    def __init__(self, num_rows: int) -> None:
        self._columns = {name: np.full(num_rows, None, dtype=object) for name in _REASON}
        self.open = np.arange(num_rows)

    def close(self, which: np.ndarray, **reason: object) -> None:
        """Gives the open rows of this mask their verdict; values are one word or one per row."""
        rows = self.open[which]
        for name, value in reason.items():
            self._columns[name][rows] = value
        self.open = self.open[~which]

    def table(self, rows: pa.Table) -> pa.Table:
        self._columns["verdict"][self.open] = "kept"
        columns = {name: pa.array(column, pa.string()) for name, column in self._columns.items()}
        return pa.table({"clip_id": rows["clip_id"], "video": rows["video"], **columns}, SCHEMA)


def judge(
    manifest: Manifest, stages: Sequence[Stage], filters: Filters, facts: Mapping[str, pa.Table]
) -> pa.Table:
    """One row per manifest row: clip_id, video, verdict, stage, measure, value, threshold, code.

    The reason is the first in the order: manifest, then the stages; in a stage: facts missing
    (pending), failed, then its filters. Kept means that every stage measured it and let it pass.
    """
    sheet = _Sheet(len(manifest.rows))
    problems = manifest.rows["problem"].combine_chunks()
    bad = np.asarray(problems.is_valid())
    codes = problems.drop_null().to_numpy(zero_copy_only=False)
    sheet.close(bad, verdict="failed", stage=MANIFEST_STAGE, code=codes)
    twice = np.asarray(manifest.rows["duplicate"])[sheet.open]
    sheet.close(twice, verdict="rejected", stage=MANIFEST_STAGE, code="duplicate")
    for stage in stages:
        _judge_stage(sheet, manifest.rows, stage, filters.get(stage.name, {}), facts[stage.name])
    return sheet.table(manifest.rows)


def _judge_stage(
    sheet: _Sheet, rows: pa.Table, stage: Stage, filters: Mapping[str, Filter], facts: pa.Table
) -> None:
    """Closes the open rows that this stage does not let pass."""
    at = _positions(rows["clip_id"].combine_chunks(), facts["clip_id"].combine_chunks())[sheet.open]
    sheet.close(at < 0, verdict="pending", stage=stage.name)
    at = at[at >= 0]
    codes = facts["code"].combine_chunks().take(pa.array(at))
    failed = np.asarray(codes.is_valid())
    words = codes.drop_null().to_numpy(zero_copy_only=False)
    sheet.close(failed, verdict="failed", stage=stage.name, code=words)
    at = at[~failed]
    for measure, limit in filters.items():
        if limit.off:
            continue
        values = facts[measure].combine_chunks().take(pa.array(at))
        passed = limit.accepts_each(pa.chunked_array([values]))
        if limit.absent == "pass":
            passed |= ~np.asarray(values.is_valid())
        _close_rejected(sheet, stage.name, measure, limit, values.filter(pa.array(~passed)), passed)
        at = at[passed]


def _close_rejected(
    sheet: _Sheet, stage: str, measure: str, limit: Filter, values: pa.Array, passed: np.ndarray
) -> None:
    """Writes down why; values: of the rows that did not pass."""
    reasons = [rejection(measure, limit, value) for value in values.to_pylist()]
    sheet.close(
        ~passed,
        verdict=["failed" if reason.failed else "rejected" for reason in reasons],
        stage=stage,
        measure=measure,
        value=[reason.value for reason in reasons],
        threshold=[reason.threshold for reason in reasons],
        code=[reason.code for reason in reasons],
    )


def _positions(wanted: pa.Array, there: pa.Array) -> np.ndarray:
    """Where each wanted id stands in `there`, whose ids are distinct; -1 where it does not."""
    codes = pa.concat_arrays([there, wanted]).dictionary_encode().indices.to_numpy()[len(there) :]
    # Codes are given in order of appearance, so those of `there` are its row numbers.
    return np.where(codes < len(there), codes, -1)


def tally(verdicts: pa.Table) -> dict[str, int]:
    """How many rows have each of the four verdicts."""
    pairs = verdicts["verdict"].value_counts().to_pylist()
    counted = {pair["values"]: pair["counts"] for pair in pairs}
    return {verdict: counted.get(verdict, 0) for verdict in VERDICTS}


def check_sum(verdicts: pa.Table, manifest: Manifest) -> None:
    """ValueError unless every manifest row has exactly one verdict, in its place."""
    if not verdicts["clip_id"].equals(manifest.rows["clip_id"]):
        raise ValueError(f"{len(verdicts)} verdicts are not those of {len(manifest.rows)} rows")
    if sum(tally(verdicts).values()) != len(manifest.rows):
        raise ValueError(f"the verdicts {tally(verdicts)} do not add up to {len(manifest.rows)}")


def reason(verdict: Mapping[str, Any]) -> str:
    """One row in words: `rejected: motion.top5 0.006, wanted >= 0.015`."""
    word, stage, measure = verdict["verdict"], verdict["stage"], verdict["measure"]
    if stage is None:
        return word
    if measure is None:
        return f"{word}: {stage} {verdict['code'] or ''}".rstrip()
    return f"{word}: {stage}.{measure} {verdict['value']}, wanted {verdict['threshold']}"


def flips(before: pa.Table, after: pa.Table) -> pa.Table:
    """The rows whose verdict is another one now.

    clip_id, video, verdict_before, verdict_after, before, after (the reasons in words).
    """
    if not before["clip_id"].equals(after["clip_id"]):
        raise InputError(
            f"the verdicts to compare are of other clips ({len(before)} and {len(after)} rows); "
            "wanted two replays of one manifest"
        )
    words = [np.asarray(table["verdict"].to_numpy()) for table in (before, after)]
    rows = pa.array(np.flatnonzero(words[0] != words[1]))
    old, new = before.take(rows), after.take(rows)
    columns = {
        "clip_id": old["clip_id"],
        "video": old["video"],
        "verdict_before": old["verdict"],
        "verdict_after": new["verdict"],
        "before": pa.array([reason(row) for row in old.to_pylist()], pa.string()),
        "after": pa.array([reason(row) for row in new.to_pylist()], pa.string()),
    }
    return pa.table(columns)


def funnel(verdicts: pa.Table, stages: Sequence[Stage]) -> str:
    """What entered each stage and what left the funnel there, in 80 columns; shares of all rows."""
    keys = ["stage", "verdict", "measure", "threshold", "code"]
    groups = verdicts.group_by(keys).aggregate([([], "count_all")]).to_pylist()
    groups.sort(key=lambda g: (VERDICTS.index(g["verdict"]), -g["count_all"], str(g["measure"])))
    total = left = len(verdicts)
    lines = [_line("rows of the manifest", total, total)]
    for stage in (MANIFEST_STAGE, *(stage.name for stage in stages)):
        if stage != MANIFEST_STAGE:
            lines.append(_line(f"-> {stage}", left, total))
        for group in groups:
            if group["stage"] == stage:
                left -= group["count_all"]
                lines.append(_line(f"     {_left_by(group)}", group["count_all"], total))
    counts = tally(verdicts)
    lines += [
        _line(word, counts[word], total) for word in VERDICTS if counts[word] or word == "kept"
    ]
    return "\n".join(lines)


def _left_by(group: Mapping[str, Any]) -> str:
    """`rejected: wanted top5 >= 0.015`, `failed: unreadable`, `failed: aesthetic is absent`."""
    word, measure, code = group["verdict"], group["measure"], group["code"]
    if measure is None:
        return f"{word}: {code}" if code else word
    if code:
        return f"{word}: {measure} is absent"
    return f"{word}: wanted {measure} {group['threshold']}"


def _line(text: str, count: int, total: int) -> str:
    text = text if len(text) <= 56 else f"{text[:55]}…"
    return f"{text:<56}{count:>11,}{count / max(total, 1):>11.1%}"
