"""Clip ids in bulk: a million are joined without a Python object for any of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_BYTES = 16  # pipeline.clip.clip_id


def words(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Ids of at most 16 bytes as numbers: (N, 2) uint64. ValueError when one is longer."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if len(ids) == 0:
        return np.empty((0, 2), np.uint64)
    ends = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset :][: len(ids) + 1]
    longest = int(np.diff(ends).max())
    if longest > _BYTES:
        raise ValueError(f"found a clip id of {longest} bytes, wanted at most {_BYTES}")
    if ends[-1] - ends[0] < _BYTES * len(ids):
        padded = np.array([id_.encode() for id_ in ids.to_pylist()], f"S{_BYTES}")
        return padded.view(np.uint64).reshape(-1, 2)
    start = int(ends[0])
    flat = np.frombuffer(ids.buffers()[2], np.uint64, count=2 * len(ids), offset=start)
    return flat.reshape(-1, 2)


class Index:
    """Where each of some distinct ids stands; sorted once, asked often.

    Ids are hashes: few share their first half, so that a search by it hardly ever goes on.
    """

    def __init__(self, there: np.ndarray) -> None:
        """there: as `words` gives them."""
        self._order = np.argsort(there[:, 0])
        self._first, self._second = np.ascontiguousarray(there[self._order].T)

    def match(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids that are in both: (M,) where they stand among the wanted, and (M,) there."""
        # In the order of the sorted ones, so that memory is walked through once.
        asking = np.argsort(wanted[:, 0])
        first, second = np.ascontiguousarray(wanted[asking].T)
        at = np.searchsorted(self._first, first)
        found = []
        while len(at) and len(self._first):
            near = np.minimum(at, len(self._first) - 1)
            like = (self._first[near] == first) & (near == at)
            same = like & (self._second[near] == second)
            found.append((asking[same], self._order[at[same]]))
            left = like & ~same
            at, asking, first, second = at[left] + 1, asking[left], first[left], second[left]
        none = (at[:0], at[:0])
        here, place = zip(none, *found, strict=True)
        return np.concatenate(here), np.concatenate(place)


def positions(wanted: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(N,) where each wanted id stands in `there`, whose ids are distinct; -1: it does not."""
    found = np.full(len(wanted), -1, np.int64)
    here, place = Index(there).match(wanted)
    found[here] = place
    return found


def firsts(ids: np.ndarray) -> np.ndarray | None:
    """Row numbers of the first of every id, ascending; None when all are distinct."""
    halves = np.sort(ids[:, 0])
    if not (halves[1:] == halves[:-1]).any():
        return None
    order = np.lexsort((ids[:, 1], ids[:, 0]))  # stable: of equal ids the first stays first
    new = np.ones(len(order), bool)
    new[1:] = (ids[order[1:]] != ids[order[:-1]]).any(axis=1)
    return None if new.all() else np.sort(order[new])
