"""One verdict per manifest row, and what verdicts look like to a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.filters import MANIFEST_STAGE
from pipeline.manifest import Manifest
from pipeline.stage import Source

VERDICTS: tuple[str, ...] = ("kept", "rejected", "failed", "pending")

_COLUMNS = ("verdict", "stage", "measure", "value", "threshold", "code")
SCHEMA = pa.schema([(name, pa.string()) for name in ("clip_id", "video", *_COLUMNS)])


@dataclass(frozen=True, slots=True)
class Reason:
    """What rows with the same verdict share: all but the value, which is each row's own."""

    verdict: str
    stage: str | None = None
    measure: str | None = None
    threshold: str | None = None
    code: str | None = None

    def words(self, value: str | None = None) -> str:
        """`rejected: motion.top5 0.006, wanted >= 0.015`; without the value where none is given."""
        if self.stage is None:
            return self.verdict
        if self.measure is None:
            return f"{self.verdict}: {self.stage} {self.code or ''}".rstrip()
        found = f"{self.stage}.{self.measure} {value or self.code or ''}".rstrip()
        return f"{self.verdict}: {found}, wanted {self.threshold}"


KEPT = Reason("kept")

Words = Callable[[Any], str]
"""How a rejected value is written."""


class Verdicts:
    """The verdicts of all rows; a row is open, and will be kept, until it is closed.

    rows: the manifest's; reasons: those that there are; reason: (N,) the number of each row's.
    A value is put in words only where it is looked at: a million of them take seconds.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows.select(["clip_id", "video"])
        self.reasons = [KEPT]
        self.reason = np.zeros(len(rows), np.int32)
        self.open = np.arange(len(rows))
        self._values: list[tuple[np.ndarray, pa.Array, Words]] = []

    def close(self, which: np.ndarray, reasons: Sequence[Reason], of: Any = 0) -> np.ndarray:
        """Gives the open rows of this mask their verdict; these rows.

        of: which of the reasons, one number or one per row.
        """
        rows, self.open = self.open[which], self.open[~which]
        if len(rows):
            self.reason[rows] = len(self.reasons) + np.asarray(of)
            self.reasons.extend(reasons)
        return rows

    def add_values(self, rows: np.ndarray, values: pa.Array, words: Words) -> None:
        """What was found in closed rows, which stand in ascending order."""
        if len(rows):
            self._values.append((rows, values, words))

    def counts(self) -> dict[Reason, int]:
        """How many rows have each reason."""
        counted: dict[Reason, int] = {}
        numbers = np.bincount(self.reason, minlength=len(self.reasons))
        for reason, count in zip(self.reasons, numbers.tolist(), strict=True):
            if count:
                counted[reason] = counted.get(reason, 0) + count
        return counted

    def are(self, verdict: str, stages: Sequence[str] | None = None) -> np.ndarray:
        """(N,) bool: the rows with this verdict, from one of these stages if any are named."""
        wanted = [
            reason.verdict == verdict and (stages is None or reason.stage in stages)
            for reason in self.reasons
        ]
        return np.array(wanted)[self.reason]

    def table(self, rows: np.ndarray | None = None) -> pa.Table:
        """clip_id, video, verdict, stage, measure, value, threshold, code of these rows, or all."""
        rows = np.arange(len(self.rows)) if rows is None else rows
        of, named = pa.array(self.reason[rows]), self.rows.take(pa.array(rows))
        columns = {
            name: pa.array([getattr(reason, name) for reason in self.reasons], pa.string()).take(of)
            for name in _COLUMNS
            if name != "value"
        }
        columns["value"] = pa.array(self._shown(rows), pa.string())
        return pa.table({**{n: named[n] for n in named.column_names}, **columns}).select(
            SCHEMA.names
        )

    def _shown(self, rows: np.ndarray) -> np.ndarray:
        """The values of these rows in words, None where a row has none."""
        shown = np.full(len(rows), None, dtype=object)
        for closed, values, words in self._values:
            at = np.minimum(np.searchsorted(closed, rows), len(closed) - 1)
            hit = np.flatnonzero(closed[at] == rows)
            found = values.take(pa.array(at[hit])).dictionary_encode()
            texts = np.array([*map(words, found.dictionary.to_pylist()), words(None)], object)
            shown[hit] = texts[found.indices.fill_null(len(texts) - 1).to_numpy()]
        return shown


def tally(verdicts: Verdicts) -> dict[str, int]:
    """How many rows have each of the four verdicts."""
    counted = dict.fromkeys(VERDICTS, 0)
    for reason, count in verdicts.counts().items():
        counted[reason.verdict] += count
    return counted


def check_sum(verdicts: pa.Table, manifest: Manifest) -> None:
    """ValueError unless every manifest row has exactly one verdict, in its place."""
    if not verdicts["clip_id"].equals(manifest.rows["clip_id"]):
        raise ValueError(f"{len(verdicts)} verdicts are not those of {len(manifest.rows)} rows")
    found = verdicts["verdict"].unique().to_pylist()
    if not set(found) <= set(VERDICTS):
        raise ValueError(f"found the verdicts {found}, wanted each to be one of {VERDICTS}")


def reason(verdict: Mapping[str, Any]) -> str:
    """One row in words: `rejected: motion.top5 0.006, wanted >= 0.015`."""
    shared = {name: verdict[name] for name in _COLUMNS if name != "value"}
    return Reason(**shared).words(verdict["value"])


def flips(before: Verdicts, after: Verdicts) -> np.ndarray:
    """The numbers of the rows whose verdict is another one now. InputError: of other clips."""
    if not before.rows["clip_id"].equals(after.rows["clip_id"]):
        raise InputError(
            f"the verdicts to compare are of other clips ({len(before.rows)} and "
            f"{len(after.rows)} rows); wanted two replays of one manifest"
        )
    words = [
        np.array([VERDICTS.index(reason.verdict) for reason in verdicts.reasons])[verdicts.reason]
        for verdicts in (before, after)
    ]
    return np.flatnonzero(words[0] != words[1])


def flip_counts(before: Verdicts, after: Verdicts, rows: np.ndarray) -> dict[tuple[str, str], int]:
    """How many of these rows went from which reason to which, in words; the most first."""
    pairs = before.reason[rows].astype(np.int64) * len(after.reasons) + after.reason[rows]
    found, counts = np.unique(pairs, return_counts=True)
    counted: dict[tuple[str, str], int] = {}
    for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
        old, new = divmod(pair, len(after.reasons))
        words = before.reasons[old].words(), after.reasons[new].words()
        counted[words] = counted.get(words, 0) + count
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def funnel(verdicts: Verdicts, stages: Sequence[Source]) -> str:
    """What entered each stage and what left the funnel there, in 80 columns; shares of all rows."""
    groups = sorted(
        verdicts.counts().items(),
        key=lambda group: (VERDICTS.index(group[0].verdict), -group[1], str(group[0].measure)),
    )
    total = left = len(verdicts.rows)
    lines = [_line("rows of the manifest", total, total)]
    for stage in (MANIFEST_STAGE, *(stage.name for stage in stages)):
        if stage != MANIFEST_STAGE:
            lines.append(_line(f"-> {stage}", left, total))
        for reason, count in groups:
            if reason.stage == stage:
                left -= count
                lines.append(_line(f"     {_left_by(reason)}", count, total))
    counts = tally(verdicts)
    lines += [
        _line(word, counts[word], total) for word in VERDICTS if counts[word] or word == "kept"
    ]
    return "\n".join(lines)


def _left_by(reason: Reason) -> str:
    """`rejected: wanted top5 >= 0.015`, `failed: unreadable`, `failed: aesthetic is absent`."""
    if reason.measure is None:
        return f"{reason.verdict}: {reason.code}" if reason.code else reason.verdict
    if reason.code:
        return f"{reason.verdict}: {reason.measure} is absent"
    return f"{reason.verdict}: wanted {reason.measure} {reason.threshold}"


def _line(text: str, count: int, total: int) -> str:
    text = text if len(text) <= 56 else f"{text[:55]}…"
    return f"{text:<56}{count:>11,}{count / max(total, 1):>11.1%}"
