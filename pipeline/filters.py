"""Thresholds: what they accept, how a run changes them, and the words for what they reject."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.stage import Source


MANIFEST_STAGE = "manifest"
"""The `stage` of what is known of a row before any stage sees it; its columns are what the corpus
publishes.
"""


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

    def __post_init__(self) -> None:
        """ValueError when nothing could pass."""
        if self.one_of is not None and (self.min is not None or self.max is not None):
            raise ValueError("found one_of and min or max, wanted either")
        if self.one_of == ():
            raise ValueError("one_of is empty: nothing could pass")
        if self.min is not None and self.max is not None and not self.min <= self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing could pass")

    def accepts(self, value: Any) -> bool:
        """Whether a present value lies within the bounds. NaN does not."""
        if self.one_of is not None:
            return value in self.one_of
        if isinstance(value, float) and math.isnan(value):
            return False
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def accepts_each(self, values: pa.ChunkedArray) -> np.ndarray:
        """(N,) bool: `accepts` for a whole column; False where a value is absent."""
        if self.one_of is not None:
            encoded = values.combine_chunks().dictionary_encode()
            passes = [self.accepts(word) for word in encoded.dictionary.to_pylist()]
            return np.asarray([*passes, False])[encoded.indices.fill_null(len(passes)).to_numpy()]
        present = np.asarray(values.is_valid(), dtype=bool)
        if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            return present  # a word or a list: there is no bound that it could break
        numbers = values.cast(pa.float64()).to_numpy()
        low = -math.inf if self.min is None else self.min
        high = math.inf if self.max is None else self.max
        return present & (numbers >= low) & (numbers <= high)

    def lets_pass(self, values: pa.Array) -> np.ndarray:
        """(N,) bool: the same, and what is absent where that passes."""
        passed = self.accepts_each(pa.chunked_array([values]))
        return passed | ~np.asarray(values.is_valid()) if self.absent == "pass" else passed

    def broken_each(self, values: pa.Array) -> np.ndarray:
        """(N,) which bound values break that are not accepted: 0 absent, 1 the upper, 2 another."""
        above = np.zeros(len(values), bool)
        if self.max is not None:
            above = values.cast(pa.float64()).to_numpy(zero_copy_only=False) > self.max
        return np.where(np.asarray(values.is_valid()), np.where(above, 1, 2), 0)

    def threshold(self, value: Any = None) -> str:
        """The bound that this value breaks, e.g. `>= 0.015` or `one of human, animal`.

        Without a value: all bounds.
        """
        if self.one_of is not None:
            return "one of " + ", ".join(_plain(word) for word in self.one_of)
        low = None if self.min is None else f">= {_plain(self.min)}"
        high = None if self.max is None else f"<= {_plain(self.max)}"
        if low and (value is None or self.max is None or not value > self.max):
            return f"{low} and {high}" if value is None and high else low
        return high or "present"

    def short(self, value: Any) -> str:
        """Four significant digits, or all of them where four would seem to pass."""
        if not isinstance(value, float):
            return _plain(value)
        short = f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
        return repr(value) if self.accepts(float(short)) else short


@dataclass(frozen=True, slots=True)
class FilterChange:
    """What a run file says about one filter: only the fields that it names are changed."""

    min: float | None = None
    max: float | None = None
    one_of: tuple[str | bool | int, ...] | None = None
    absent: Literal["pass", "reject", "fail"] | None = None
    off: bool | None = None


Filters = Mapping[str, Mapping[str, Filter]]
"""Stage -> column -> filter. The order of the columns is the order of the reasons."""

Changes = Mapping[str, Mapping[str, FilterChange]]
"""Stage -> column -> change: the `[filters.<stage>]` tables of a run file."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a filter did not let a clip pass.

    failed: the value is absent and the filter calls that a failure; code: `absent` or None.
    """

    measure: str
    value: str
    threshold: str
    failed: bool = False
    code: str | None = None


def first_rejection(filters: Mapping[str, Filter], values: Mapping[str, Any]) -> Rejection | None:
    """The first of one stage's filters, in their order, that does not let these values pass."""
    for measure, limit in filters.items():
        value = values.get(measure)
        if limit.off or (value is None and limit.absent == "pass"):
            continue
        if value is None or not limit.accepts(value):
            return rejection(measure, limit, value)
    return None


def rejection(measure: str, limit: Filter, value: Any) -> Rejection:
    """The words for a value that this filter does not let pass."""
    if value is None:
        failed = limit.absent == "fail"
        return Rejection(measure, "absent", limit.threshold(), failed, "absent")
    return Rejection(measure, limit.short(value), limit.threshold(value))


def defaults(stages: Sequence[Source]) -> Filters:
    """The filters that the stages themselves propose."""
    return {stage.name: stage.filters for stage in stages}


def merge(base: Filters, changes: Changes) -> Filters:
    """`base` with the named fields replaced. InputError when nothing could pass any more."""
    merged = {stage: dict(columns) for stage, columns in base.items()}
    for stage, columns in changes.items():
        table = merged.setdefault(stage, {})
        for column, change in columns.items():
            named = {f.name: getattr(change, f.name) for f in fields(change)}
            named = {name: value for name, value in named.items() if value is not None}
            try:
                table[column] = replace(table.get(column, Filter()), **named)
            except ValueError as error:
                raise InputError(f"filters.{stage}.{column}: {error}") from error
    return merged


def check_known(
    filters: Filters | Changes, stages: Sequence[Source], published: pa.Schema | None = None
) -> None:
    """InputError, with the nearest known word, for a stage, column or bound that cannot be.

    published: the columns of the corpus, which `[filters.manifest]` asks for.
    """
    schemas = {stage.name: stage.columns for stage in stages}
    if published is not None:
        schemas[MANIFEST_STAGE] = published
    for stage, columns in filters.items():
        if stage not in schemas:
            raise InputError(f"filters.{stage}: no such stage; {_nearest(stage, schemas)}")
        for column, limit in columns.items():
            if column not in schemas[stage].names:
                known = _nearest(column, schemas[stage].names)
                raise InputError(f"filters.{stage}.{column}: no such measure; {known}")
            wrong = _misfit(limit, schemas[stage].field(column).type)
            if wrong:
                raise InputError(f"filters.{stage}.{column}: {wrong}")


def _misfit(limit: Filter | FilterChange, kind: pa.DataType) -> str | None:
    """What is wrong with this filter on a column of this type."""
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if (limit.min is not None or limit.max is not None) and not number:
        return f"found min or max, wanted one_of: the column holds {kind}"
    for word in limit.one_of or ():
        try:
            pa.scalar(word, type=kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            return f"one_of holds {word!r}, wanted values of type {kind}"
    return None


def _nearest(word: str, known: Iterable[str]) -> str:
    choices = list(known)
    near = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {near[0]}?" if near else "known: " + ", ".join(choices)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
