"""Near copies: which clips look alike, and which of those that do are kept.

That two clips are alike is a fact of both; that one of them is a copy too many is a verdict, and
depends on which others pass the filters: of each row's neighbours in front of it, none may be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.bounds import Cosine
from pipeline.filters import Filter
from pipeline.stage import Source

NEAR_DUPLICATE = "near_duplicate"
EMBEDDED = "appearance"
"""Whose embeddings are compared."""

_FEWEST = 64  # of 192 or 768 numbers; doubled until too little is computed in vain
_IN_VAIN = 1e-4  # share of all pairs: one computed exactly costs as much as a thousand bounds
_SAMPLE = 2_000
_ROUNDING = 1e-4  # of float32 sums of a thousand numbers within 1
_COLUMNS = 16_384  # compared at once with a block: the tile stays in a processor's cache
_PAIRS = 8_192


@dataclass(frozen=True, slots=True)
class NearDuplicateSettings:
    """floor: pairs below this similarity are not recorded, so no filter can ask for less."""

    floor: Cosine = 0.9  # docs/decisions/012: well below what tells copies from other clips


class NearDuplicate(Source):
    """Which other clips of the manifest have nearly the same embedding.

    similarity: the highest cosine with another clip, null where none reaches the floor; others:
    the manifest rows of those that reach it, of a crowd some (crowds.py); similarities: theirs. A
    clip is compared with every embedding that is known by then, so that of two clips the one
    compared later has the pair.
    """

    name = NEAR_DUPLICATE
    version = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "similarity": pa.float64(),
            "others": pa.list_(pa.int32()),
            "similarities": pa.list_(pa.float64()),
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "similarity": Filter(max=0.98, absent="pass")  # docs/decisions/012
    }
    needs = (EMBEDDED,)

    def __init__(self, settings: NearDuplicateSettings | None = None) -> None:
        self._settings = settings or NearDuplicateSettings()

    @property
    def floor(self) -> float:
        return self._settings.floor

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is recorded."""
        return asdict(self._settings)

    def read_for(self, measures: Collection[str]) -> Collection[str]:
        """A verdict asks which the others are."""
        return self.columns.names if measures else ()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Manifest rows that are alike: (P,) the later and the earlier row, and their cosine."""

    later: np.ndarray
    earlier: np.ndarray
    similarity: np.ndarray

    def where(self, mask: np.ndarray) -> Pairs:
        """Those of this mask (P,)."""
        return Pairs(self.later[mask], self.earlier[mask], self.similarity[mask])


def pairs_of(rows: np.ndarray, facts: pa.Table) -> Pairs:
    """The pairs that these manifest rows have; facts: a row of NearDuplicate's for each."""
    others = facts["others"].combine_chunks()
    counts = others.value_lengths().fill_null(0).to_numpy()
    one, other = np.repeat(rows, counts), others.flatten().to_numpy()
    similarity = facts["similarities"].combine_chunks().flatten().to_numpy()
    return Pairs(np.maximum(one, other), np.minimum(one, other), similarity)


def copies(pairs: Pairs, num_rows: int) -> Pairs:
    """The rows that are copies of an earlier one that is none itself, in ascending order.

    With each row the one of those that it is most like. Rows without pairs are no copies.
    """
    undecided, kept, copy = 0, 1, 2
    state = np.full(num_rows, kept, np.int8)
    state[pairs.later] = undecided
    left = pairs
    while len(left.later):
        state[left.later[state[left.earlier] == kept]] = copy
        left = left.where(state[left.later] == undecided)
        waits = np.unique(left.later[state[left.earlier] == undecided])
        free = np.setdiff1d(left.later, waits)  # all in front of it are copies
        state[free] = kept
        left = left.where(state[left.later] == undecided)
    found = pairs.where((state[pairs.later] == copy) & (state[pairs.earlier] == kept))
    order = np.lexsort((found.earlier, -found.similarity, found.later))
    _, first = np.unique(found.later[order], return_index=True)
    return found.where(order[first])


class Vectors:
    """Vectors of length 1, of which all that are alike are found.

    The cosine of two is that of their shadows on some axes plus that of what is left of them, which
    is at most the product of its lengths (Cauchy and Schwarz). So a few numbers of each, and the
    length of the rest, rule out nearly all pairs; those that remain are computed in float64, and
    are the same whatever they are computed beside.
    """

    def __init__(self, vectors: np.ndarray, floor: float) -> None:
        """vectors: (N, D) float16, of length 1 but for rounding. floor: cosines that count."""
        self._vectors = vectors
        self._floor = floor
        sample = vectors[:: max(1, len(vectors) // _SAMPLE)]
        axes = _axes(sample.astype(np.float32), floor - _ROUNDING)
        self._short = np.empty((len(vectors), axes.shape[1] + 1), np.float32)
        for start in range(0, len(vectors), _COLUMNS):
            some = slice(start, start + _COLUMNS)
            self._short[some] = _shortened(vectors[some].astype(np.float32), axes)

    def near(self, block: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(i, j, cosine): the pairs of the i-th of a block with any other that reach the floor.

        They come for some j after the other, as of a crowd they are many.
        """
        short = self._short[block]
        for start in range(0, len(self._short), _COLUMNS):
            bounds = short @ self._short[start : start + _COLUMNS].T
            maybe = np.flatnonzero(bounds >= self._floor - _ROUNDING)
            i, j = np.divmod(maybe, bounds.shape[1])
            j += start
            cosine = self._cosine(block[i], j)
            hit = (cosine >= self._floor) & (block[i] != j)
            yield i[hit], j[hit], cosine[hit]

    def _cosine(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        cosine = np.empty(len(i))
        for start in range(0, len(i), _PAIRS):
            some = slice(start, start + _PAIRS)
            one, other = (self._vectors[at[some]].astype(np.float64) for at in (i, j))
            lengths = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
            cosine[some] = (one * other).sum(axis=1) / lengths
        return cosine


def _axes(sample: np.ndarray, floor: float) -> np.ndarray:
    """(D, K) principal axes of a sample (S, D): as few as rule out nearly all that is not alike."""
    _, axes = np.linalg.eigh(sample.T @ sample)
    whole = _shortened(sample, axes)
    alike = np.count_nonzero(whole @ whole.T >= floor)
    kept = _FEWEST
    while kept < len(axes):
        short = _shortened(sample, axes[:, -kept:])
        if np.count_nonzero(short @ short.T >= floor) - alike < _IN_VAIN * len(sample) ** 2:
            return axes[:, -kept:]
        kept *= 2
    return axes


def _shortened(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(N, K + 1): the shadows on K axes, and the length of what is left."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shadow = vectors @ axes
    rest = np.maximum(0, 1 - (shadow**2).sum(axis=1))
    return np.column_stack([shadow, np.sqrt(rest)])
