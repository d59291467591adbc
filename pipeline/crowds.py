"""Of a crowd of clips that are all alike, the pairs that decide: n clips have n^2 of them.

A clip is one too many when it is like an earlier one that stays. So of each clip `MOST` earlier
ones are recorded: half of them the first that there are, as one of those stays unless something
else rejects every one of them; and half those that it is most like, as a threshold above the floor
may let the first ones go. Where something else does reject all of those, a few of a crowd stay.
"""

from __future__ import annotations

import numpy as np

MOST = 64
"""Ours: as a corpus shows a clip a few times, it bounds nothing but crowds."""


class Crowds:
    """Selects pairs in one comparison, whose rows come in rising order."""

    def __init__(self, num_rows: int) -> None:
        """num_rows: of the manifest."""
        self._taken = np.zeros(num_rows, np.int32)

    def select(self, one: np.ndarray, other: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        """(P,) bool: which pairs to record of row `one`; they are all that a later `other` has.

        A later row may have been compared before there was anything to say of `one`; so `one` says
        it, as long as not enough earlier ones have.
        """
        ahead = other > one
        selected = few(one, other, cosine)
        selected[ahead] = _places((one[ahead], other[ahead])) + self._taken[other[ahead]] < MOST
        np.add.at(self._taken, other[ahead & selected], 1)
        return selected


def few(one: np.ndarray, other: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """(P,) bool: of each row `one` all later others, and at most `MOST` earlier ones."""
    selected = np.ones(len(one), bool)
    behind = np.flatnonzero(other < one)
    one, other, cosine = one[behind], other[behind], cosine[behind]
    first = _places((other, one)) < MOST // 2
    selected[behind] = first | (_places((other, -cosine, first, one)) < MOST // 2)
    return selected


def _places(keys: tuple[np.ndarray, ...]) -> np.ndarray:
    """(P,) the place of each within its group, the last of the keys, sorted by those before it."""
    order = np.lexsort(keys)
    groups = keys[-1][order]
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    return places
