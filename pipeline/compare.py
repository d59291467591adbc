"""The pass that compares clips with one another: on the driver, where all embeddings are at hand.

A block of clips is recorded once it has been compared with everything, so a run that is stopped
goes on behind it, and clips that come later are compared with those that were there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from pipeline import ids
from pipeline.clip import Measurement
from pipeline.crowds import Crowds, few
from pipeline.errors import InputError
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest
from pipeline.neighbours import EMBEDDED, NEAR_DUPLICATE, NearDuplicate, Vectors
from pipeline.passes import Curation, PassReport
from pipeline.progress import Progress
from pipeline.writer import LedgerWriter

_BLOCK = 1_024


def run_comparison(
    name: str,
    curation: Curation,
    stopping: Callable[[], bool],
    flush_s: float,
    progress: Callable[[str, int], Progress],
) -> PassReport:
    """Compares the clips whose verdict waits for it. Raises InputError."""
    source = next(s for s in curation.stages if isinstance(s, NearDuplicate))
    limit = curation.filters[NEAR_DUPLICATE]["similarity"]
    if not limit.off and limit.max is not None and limit.max < source.floor:
        raise InputError(
            f"filters.{NEAR_DUPLICATE}.similarity: found max {limit.max:g} below the floor of what "
            f"is recorded; wanted {source.floor:g} or more; lower floor under [{NEAR_DUPLICATE}]"
        )
    todo = curation.missing([NEAR_DUPLICATE])
    if len(todo) == 0:
        return PassReport(name, 0, True, {}, {})
    rows, vectors = embeddings(curation.manifest, curation.ledger)
    clip_ids = curation.manifest.rows["clip_id"].take(pa.array(todo)).to_pylist()
    done = 0
    with (
        LedgerWriter(curation.ledger, flush_s) as writer,
        progress(name, len(todo)) as shown,
    ):
        for found in _compared(todo, rows, vectors, source.floor):
            names = clip_ids[done : done + len(found)]
            writer.add([(c, NEAR_DUPLICATE, m) for c, m in zip(names, found, strict=True)])
            done += len(found)
            shown.update(len(found), kept=len(found))
            if stopping():
                break
    return PassReport(name, len(todo), done == len(todo), {"kept": done}, {})


def embeddings(manifest: Manifest, ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Manifest rows (N,), and their embeddings (N, D) float16; clips that have none are left out.

    Read part by part: a million take 1.5 GB, and are not held twice.
    """
    unusable = np.asarray(manifest.rows["duplicate"]) | np.asarray(
        manifest.rows["problem"].is_valid()
    )
    numbers = np.flatnonzero(~unusable)
    known = ids.Index(ids.words(manifest.rows["clip_id"])[numbers])
    rows = np.full(len(ledger.facts(EMBEDDED, ())), -1, np.int32)
    vectors = np.empty((0, 0), np.float16)
    seen = np.zeros(len(manifest.rows), bool)
    filled = 0
    for part in ledger.parts(EMBEDDED, ["embedding"]):
        part = part.filter(part["embedding"].is_valid())
        here, place = known.match(ids.words(part["clip_id"]))
        of, fresh = numbers[place], ~seen[numbers[place]]
        if not fresh.any():
            continue
        flat = part["embedding"].combine_chunks().flatten().to_numpy()
        some = flat.reshape(len(part), -1)[here[fresh]]
        if filled == 0:
            vectors = np.empty((len(rows), some.shape[1]), np.float16)
        end = filled + len(some)
        rows[filled:end], vectors[filled:end] = of[fresh], some
        seen[of[fresh]] = True
        filled = end
    return rows[:filled], vectors[:filled]


def _compared(
    todo: np.ndarray, rows: np.ndarray, vectors: np.ndarray, floor: float
) -> Iterator[list[Measurement]]:
    """Block by block what is recorded of the rows to do, in their order."""
    search = Vectors(vectors, floor) if len(rows) else None
    place = np.full(max(todo.max(), rows.max(initial=0)) + 1, -1)
    place[rows] = np.arange(len(rows))
    crowds = Crowds(len(place))
    for start in range(0, len(todo), _BLOCK):
        block = todo[start : start + _BLOCK]
        embedded = block[place[block] >= 0]
        found = {row: _measurement(None, [], []) for row in block.tolist()}
        if search is not None and len(embedded):
            found.update(_alike(search.near(place[embedded]), embedded, rows, crowds))
        yield list(found.values())


def _alike(
    near: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    block: np.ndarray,
    rows: np.ndarray,
    crowds: Crowds,
) -> Iterator[tuple[int, Measurement]]:
    """What is recorded of those rows of a block that are like others, in rising order."""
    nearest = np.full(len(block), -np.inf)
    parts = []
    for i, j, cosine in near:
        np.maximum.at(nearest, i, cosine)
        selected = crowds.select(block[i], rows[j], cosine)
        parts.append((i[selected], rows[j[selected]], cosine[selected]))
    i, others, cosine = (np.concatenate(column) for column in zip(*parts, strict=True))
    selected = np.flatnonzero(few(block[i], others, cosine))
    order = selected[np.lexsort((others[selected], i[selected]))]
    ends = np.searchsorted(i[order], np.arange(len(block) + 1))
    for k in np.flatnonzero(np.isfinite(nearest)).tolist():
        some = order[ends[k] : ends[k + 1]]
        recorded = others[some].tolist(), cosine[some].tolist()
        yield int(block[k]), _measurement(float(nearest[k]), *recorded)


def _measurement(
    nearest: float | None, others: list[int], similarities: list[float]
) -> Measurement:
    return Measurement({"similarity": nearest, "others": others, "similarities": similarities})
