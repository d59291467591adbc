"""One filter says the same of a value alone and of a whole column."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from toys import Length

from pipeline.errors import InputError
from pipeline.filters import (
    Filter,
    FilterChange,
    Rejection,
    check_known,
    defaults,
    first_rejection,
    merge,
)

VALUES: dict[pa.DataType, list[Any]] = {
    pa.float64(): [0.0, -1.5, 0.5, 1.0, math.nan, math.inf, -math.inf, None],
    pa.int64(): [-2, 0, 1, 3, 1080, None],
    pa.string(): ["human", "animal", "", "true", None],
    pa.bool_(): [True, False, None],
}


def any_filter(draw: random.Random, kind: pa.DataType) -> Filter:
    present = [value for value in VALUES[kind] if value is not None]
    if kind in (pa.string(), pa.bool_()):
        return Filter(one_of=tuple(draw.sample(present, 1)))
    low, high = sorted(draw.choice([-1.0, 0.0, 0.5, 1.0, 3.0]) for _ in range(2))
    return Filter(min=draw.choice([low, None]), max=draw.choice([high, None]))


@pytest.mark.parametrize("kind", list(VALUES), ids=str)
def test_alone_and_in_a_column_a_value_passes_the_same_filters(kind: pa.DataType) -> None:
    draw = random.Random(7)
    for _ in range(200):
        limit = any_filter(draw, kind)
        values = draw.choices(VALUES[kind], k=draw.randrange(12))
        column = pa.chunked_array([pa.array(values[:5], kind), pa.array(values[5:], kind)])
        alone = [value is not None and limit.accepts(value) for value in values]
        np.testing.assert_array_equal(limit.accepts_each(column), np.array(alone, dtype=bool))


def test_a_column_without_rows_is_fine() -> None:
    assert len(Filter(one_of=("a",)).accepts_each(pa.chunked_array([], pa.string()))) == 0
    assert len(Filter(min=1).accepts_each(pa.chunked_array([], pa.float64()))) == 0


def test_the_first_filter_in_their_order_gives_the_reason() -> None:
    filters = {"top5": Filter(min=0.015), "mean": Filter(max=0.2)}
    assert first_rejection(filters, {"top5": 0.02, "mean": 0.1}) is None
    assert first_rejection(filters, {"top5": 0.00612345, "mean": 9.0}) == Rejection(
        "top5", "0.006123", ">= 0.015"
    )
    assert first_rejection(filters, {"top5": 1.0, "mean": 9.0}) == Rejection("mean", "9", "<= 0.2")


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        (Filter(min=0.02, max=0.8), 0.01, ("0.01", ">= 0.02")),
        (Filter(min=0.02, max=0.8), 0.9, ("0.9", "<= 0.8")),
        (Filter(min=0.015), 0.0149999999, ("0.0149999999", ">= 0.015")),
        (Filter(min=0.0), math.nan, ("nan", ">= 0")),
        (Filter(min=1080), 720, ("720", ">= 1080")),
        (Filter(max=20_000), 123_456.7, ("123457", "<= 20000")),
        (Filter(one_of=("human", "animal")), "vehicle", ("vehicle", "one of human, animal")),
        (Filter(one_of=(True,)), False, ("false", "one of true")),
    ],
)
def test_the_reason_names_value_and_the_bound_it_breaks(limit, value, words) -> None:
    reason = first_rejection({"m": limit}, {"m": value})
    assert reason is not None
    assert (reason.value, reason.threshold) == words


def test_a_missing_value_passes_rejects_or_fails() -> None:
    bounds = Filter(min=1, max=2)
    reasons = [
        first_rejection({"m": limit}, {"m": None})
        for limit in (replace(bounds, absent=absent) for absent in ("pass", "reject", "fail"))
    ]
    assert reasons == [
        None,
        Rejection("m", "absent", ">= 1 and <= 2", False, "absent"),
        Rejection("m", "absent", ">= 1 and <= 2", True, "absent"),
    ]


def test_a_filter_that_is_off_lets_everything_pass() -> None:
    assert first_rejection({"m": Filter(min=1, off=True)}, {"m": 0}) is None


def test_a_change_replaces_only_what_it_names() -> None:
    base = {"segment": {"area": Filter(min=0.02, max=0.8), "fill": Filter(min=0.2)}}
    changed = merge(base, {"segment": {"area": FilterChange(min=0.01)}, "motion": {}})
    assert changed["segment"]["area"] == Filter(min=0.01, max=0.8)
    assert changed["segment"]["fill"] == Filter(min=0.2)
    switched = merge(base, {"segment": {"area": FilterChange(off=True)}})
    assert first_rejection(switched["segment"], {"area": 0.9, "fill": 1.0}) is None


@pytest.mark.parametrize(
    "change", [FilterChange(max=0.01), FilterChange(one_of=("a",)), FilterChange(min=2.0)]
)
def test_a_change_after_which_nothing_could_pass_is_refused(change: FilterChange) -> None:
    with pytest.raises(InputError, match=r"filters\.segment\.area"):
        merge({"segment": {"area": Filter(min=0.02, max=0.8)}}, {"segment": {"area": change}})


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"lenght": {"letters": Filter(min=1)}}, "filters.lenght.*did you mean length"),
        ({"length": {"leters": Filter(min=1)}}, "filters.length.leters.*did you mean letters"),
        ({"length": {"letters": FilterChange(one_of=("a",))}}, "one_of holds 'a'"),
    ],
)
def test_a_filter_on_what_no_stage_measures_is_refused(filters, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_known(filters, [Length()])


def test_what_the_stages_propose_is_known() -> None:
    check_known(defaults([Length()]), [Length()])
