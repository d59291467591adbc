"""For each measure with a filter: what the clips have, and how many each threshold would keep.

Nothing is measured or built. `kept at least`, `kept at most`: clips kept in the end with this value
as the lower or the upper bound, everything else as in the run. `unknown`: clips that may be kept as
well, once they are measured: what an earlier stage rejected was not shown to the later ones.
`--measure motion` shows all measures of a stage, `--measure motion.top5` one of them finely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import shorten

import numpy as np
import pyarrow as pa

from jobs.command import finish, parser, read_run
from jobs.curation import look_at
from jobs.house import House
from pipeline.errors import InputError
from pipeline.filters import MANIFEST_STAGE, Filter, Filters
from pipeline.yields import Yields

_SHARES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
_FINE = (0, 0.1, 0.5, *range(1, 5), *range(5, 96, 5), *range(96, 100), 99.5, 99.9, 100)
_WORDS = 20


def main() -> int:
    """Prints a table for each measure."""
    arguments = parser(__doc__)
    arguments.add_argument("--measure", help="a stage, or STAGE.COLUMN")
    given = arguments.parse_args()
    house = look_at(read_run(given))
    asked = _asked(house, given.measure)
    also = {stage: {column: Filter() for column in columns} for stage, columns in asked.items()}
    yields = Yields(house.facts(also), house.curation.filters)
    fine = given.measure is not None and "." in given.measure
    for stage, columns in asked.items():
        for column in columns:
            print("\n".join(_table(yields, house.curation.filters, stage, column, fine)))
            print()
    if given.measure is None:
        print("what has no filter: --measure STAGE, or --measure STAGE.COLUMN")
    return 0


def _asked(house: House, measure: str | None) -> dict[str, list[str]]:
    """Stage -> columns to show, in the order of the house. Raises InputError."""
    bounded = {stage.name: _bounded(stage.columns) for stage in house.measures}
    bounded = {MANIFEST_STAGE: _bounded(house.curation.manifest.published), **bounded}
    if measure is None:
        asked = {stage: _in_force(house.curation.filters, stage) for stage in bounded}
        return {stage: columns for stage, columns in asked.items() if columns}
    stage, _, column = measure.partition(".")
    if stage not in bounded or (column and column not in bounded[stage]):
        known = ", ".join(bounded.get(stage, bounded))
        raise InputError(f"--measure {measure}: no such measure; wanted one of {known}")
    return {stage: [column] if column else bounded[stage]}


def _in_force(filters: Filters, stage: str) -> list[str]:
    return [name for name, limit in filters.get(stage, {}).items() if not limit.off]


def _bounded(columns: pa.Schema) -> list[str]:
    """What a filter can bound: numbers, words and flags."""
    return [column.name for column in columns if not pa.types.is_nested(column.type)]


def _table(yields: Yields, filters: Filters, stage: str, measure: str, fine: bool) -> Iterator[str]:
    rows, values = yields.values(stage, measure)
    limit = filters.get(stage, {}).get(measure, Filter(off=True))
    present = yields.at(stage, measure, [limit])[0]
    state = "no filter" if limit.off else limit.threshold()
    known = values.drop_null()
    yield shorten(f"{stage}.{measure}: {state}", 80, placeholder=" ...")
    yield f"  kept {present.kept:,}, unknown {present.unknown:,}"
    absent = f", absent of {values.null_count:,}" if values.null_count else ""
    yield f"  measured of {len(known):,} clips{absent}; {yields.unmeasured(rows):,} not measured"
    if len(known) == 0:
        return
    if pa.types.is_floating(known.type) or pa.types.is_integer(known.type):
        yield from _numbers(yields, stage, measure, limit, known, _FINE if fine else _SHARES)
    else:
        yield from _words(yields, stage, measure, limit, known)


def _numbers(
    yields: Yields,
    stage: str,
    measure: str,
    limit: Filter,
    known: pa.Array,
    shares: Sequence[float],
) -> Iterator[str]:
    """A line for each quantile, and one for each bound in force, where it lies among them."""
    numbers = np.sort(known.cast(pa.float64()).to_numpy())
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) == 0:
        return
    found = [numbers[round(share / 100 * (len(numbers) - 1))] for share in shares]
    at = {float(f"{value:.4g}"): "" for value in found}  # what is printed is what is counted
    marks = {limit.min: "  min", limit.max: "  max"}
    at |= {bound: mark for bound, mark in marks.items() if bound is not None and not limit.off}
    values = sorted(at)
    yield f"  {'below':>8}{'value':>12}{'kept at least':>15}{'unknown':>9}" + (
        f"{'kept at most':>15}{'unknown':>9}"
    )
    lows = _counts(yields, stage, measure, [_bound(limit, "min", value) for value in values])
    highs = _counts(yields, stage, measure, [_bound(limit, "max", value) for value in values])
    for value, low, high in zip(values, lows, highs, strict=True):
        below = np.searchsorted(numbers, value) / len(numbers)
        yield f"  {below:>8.1%}{value:>12.6g}{low}{high}{at[value]}"


def _bound(limit: Filter, side: str, value: float) -> Filter | None:
    """The filter with this bound instead; None when nothing could pass both bounds."""
    try:
        return replace(limit, **{side: value, "one_of": None, "off": False})
    except ValueError:
        return None


def _counts(
    yields: Yields, stage: str, measure: str, limits: Sequence[Filter | None]
) -> Iterator[str]:
    possible = [limit for limit in limits if limit is not None]
    found = iter(yields.at(stage, measure, possible))
    for limit in limits:
        if limit is None:
            yield f"{'-':>15}{'-':>9}"
        else:
            count = next(found)
            yield f"{count.kept:>15,}{count.unknown:>9,}"


def _words(
    yields: Yields, stage: str, measure: str, limit: Filter, known: pa.Array
) -> Iterator[str]:
    """A line for each of the most frequent values: how many clips, and how many of them stay."""
    groups = sorted(
        known.value_counts().to_pylist(), key=lambda g: (-g["counts"], str(g["values"]))
    )
    yield f"  {'value':<36}{'clips':>12}{'kept':>12}{'unknown':>12}"
    shown = groups[:_WORDS]
    limits = [Filter(one_of=(group["values"],), absent="reject") for group in shown]
    for group, count in zip(shown, yields.at(stage, measure, limits), strict=True):
        mark = " " if limit.off or limit.accepts(group["values"]) else "x"
        word = str(group["values"])[:33]
        yield f"  {mark} {word:<34}{group['counts']:>12,}{count.kept:>12,}{count.unknown:>12,}"
    if len(groups) > len(shown):
        yield f"  and {len(groups) - len(shown):,} other values"


if __name__ == "__main__":
    finish(main)
