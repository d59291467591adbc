"""Ids are joined as a dictionary would join them."""

import random

import numpy as np
import pyarrow as pa
import pytest

from pipeline import ids


def draw(count: int, seed: int) -> list[str]:
    """Many of these share their first half, which random ids do not."""
    letters = random.Random(seed)
    return ["".join(letters.choices("ab", k=10)) + "xyzxyz" for _ in range(count)]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 50), (50, 0), (400, 300), (1, 900)])
def test_every_id_is_found_where_it_stands(first: int, second: int) -> None:
    there, wanted = list(dict.fromkeys(draw(first, 1))), draw(second, 2)
    found = ids.positions(
        ids.words(pa.array(wanted, pa.string())), ids.words(pa.array(there, pa.string()))
    )
    place = {id_: number for number, id_ in enumerate(there)}
    assert found.tolist() == [place.get(id_, -1) for id_ in wanted]


def test_the_first_of_every_id_is_told() -> None:
    some = draw(700, 3)
    first = ids.firsts(ids.words(pa.array(some)))
    assert first is not None
    assert first.tolist() == [some.index(id_) for id_ in dict.fromkeys(some)]
    assert ids.firsts(ids.words(pa.array(list(dict.fromkeys(some))))) is None


def test_a_slice_of_ids_is_read_from_where_it_begins() -> None:
    some = pa.array(draw(9, 4))
    np.testing.assert_array_equal(ids.words(some.slice(3, 4)), ids.words(some)[3:7])
    short = pa.array(["a", "bc", "", "d"])
    np.testing.assert_array_equal(ids.words(short.slice(1, 2)), ids.words(short)[1:3])
    with pytest.raises(ValueError, match="17 bytes"):
        ids.words(pa.array(["a" * 17]))
