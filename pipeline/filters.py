"""Thresholds -> verdicts, and their replay over the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Filter:
    """One threshold on one column of one stage.

    min, max: inclusive bounds of a number; one_of: allowed values of a word or flag.
    absent: what a missing value means: it passes, rejects, or the clip failed (`code: absent`).
    off: the filter is switched off in this run.
    """

    min: float | None = None
    max: float | None = None
    one_of: tuple[str | bool | int, ...] | None = None
    absent: Literal["pass", "reject", "fail"] = "fail"
    off: bool = False

    def accepts(self, value: Any) -> bool:
        """Whether a present value lies within the bounds. NaN does not."""
        if self.one_of is not None:
            return value in self.one_of
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)
