"""A run's verdicts and masks against the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.synthetic.truth import Truth, read_mask, read_truth
from pipeline.errors import InputError
from pipeline.mask import mask_iou, rle_decode

BARS = {"macro_recall": 0.9, "kept_share": 0.9, "mean_iou": 0.8}
"""What curation must reach on seeds that it was not tuned on (ours)."""


POOR_IOU = 0.6
"""A kept clip whose mask overlaps the truth by less is listed among the mistakes (ours)."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A row with another verdict than the right one, or a kept one whose mask is poor (`iou`)."""

    video: str
    reason: str
    tags: Sequence[str]
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Score:
    """How well a run did, all values in 0..1.

    recall: per reason for a rejection or failure, the share of its rows with the right verdict and
    stage; macro_recall: their mean; kept_share: of the rows that should be kept; mean_iou: over
    these rows, with 0 where no mask was found; ious: video -> IoU.
    """

    recall: Mapping[str, float]
    macro_recall: float
    kept_share: float
    mean_iou: float
    ious: Mapping[str, float]
    mistakes: tuple[Mistake, ...]

    @property
    def passed(self) -> bool:
        """Whether every bar is reached."""
        return all(getattr(self, name) >= bar for name, bar in BARS.items())


MaskOf = Callable[[str], np.ndarray | None]
"""clip_id -> (H, W) bool in frame 0, or None where none was found."""


def masks_in(facts: pa.Table) -> MaskOf:
    """Masks out of segment's facts, decoded when they are asked for."""
    columns = ("clip_id", "mask_rle", "mask_width", "mask_height")
    rows = {row["clip_id"]: row for row in facts.select(columns).to_pylist()}

    def mask_of(clip_id: str) -> np.ndarray | None:
        row = rows.get(clip_id)
        if row is None or not row["mask_rle"]:
            return None
        return rle_decode(row["mask_rle"], row["mask_width"], row["mask_height"])

    return mask_of


def score(corpus: Path, verdicts: pa.Table, mask_of: MaskOf) -> Score:
    """verdicts: video, verdict, stage, one row per manifest row, in the manifest's order.

    InputError when the run is of another corpus.
    """
    truth = read_truth(corpus)
    found = _found(corpus, truth, verdicts)
    right = [verdict in row.expected for row, verdict in zip(truth, found, strict=True)]
    by_reason: dict[str, list[bool]] = defaultdict(list)
    for row, good in zip(truth, right, strict=True):
        by_reason[row.reason].append(good)
    kept = by_reason.pop("kept", [])
    ious = {
        row.video: _overlap(read_mask(corpus, row), mask_of(row.clip_id))
        for row in truth
        if row.reason == "kept"
    }
    recall = {reason: fmean(goods) for reason, goods in sorted(by_reason.items())}
    wrong = [_mistake(row, f) for row, f, good in zip(truth, found, right, strict=True) if not good]
    poor = [
        _poor(row, ious[row.video])
        for row, good in zip(truth, right, strict=True)
        if row.reason == "kept" and good and ious[row.video] < POOR_IOU
    ]
    return Score(
        recall=recall,
        macro_recall=fmean(recall.values()) if recall else 1.0,
        kept_share=fmean(kept) if kept else 1.0,
        mean_iou=fmean(ious.values()) if ious else 1.0,
        ious=ious,
        mistakes=(*wrong, *poor),
    )


def _found(corpus: Path, truth: Sequence[Truth], verdicts: pa.Table) -> list[str]:
    """What the run says of each row: `kept`, `rejected:motion`, ..."""
    rows: list[dict[str, Any]] = verdicts.to_pylist()
    if [row["video"] for row in rows] != [row.video for row in truth]:
        raise InputError(
            f"the run has {len(rows)} rows that are not the {len(truth)} of {corpus}: "
            "name the corpus of that run with --out"
        )
    return [":".join(filter(None, (row["verdict"], row["stage"]))) for row in rows]


def _overlap(true: np.ndarray | None, found: np.ndarray | None) -> float:
    if true is None or found is None or true.shape != found.shape:
        return 0.0
    return mask_iou(true, found)


def _mistake(row: Truth, found: str) -> Mistake:
    return Mistake(row.video, row.reason, row.tags, " or ".join(row.expected), found)


def _poor(row: Truth, iou: float) -> Mistake:
    return Mistake(row.video, row.reason, row.tags, "a mask", f"IoU {iou:.2f}")


def table(scores: Mapping[str, Score]) -> str:
    """For a person: a column per run, then every mistake."""
    reasons = sorted({reason for one in scores.values() for reason in one.recall})
    wide = max(8, *(len(name) for name in scores)) + 2
    lines = ["".ljust(18) + "".join(name.rjust(wide) for name in scores)]
    for reason in reasons:
        cells = (one.recall.get(reason) for one in scores.values())
        lines.append(
            reason.ljust(18)
            + "".join(("-" if c is None else f"{c:.2f}").rjust(wide) for c in cells)
        )
    lines.append("")
    for name, bar in BARS.items():
        cells = (getattr(one, name) for one in scores.values())
        said = "".join(f"{cell:.3f}".rjust(wide) for cell in cells)
        lines.append(f"{name.ljust(18)}{said}   (wanted {bar})")
    for name, one in scores.items():
        for m in one.mistakes:
            odd = ", ".join((m.reason, *m.tags))
            lines.append(f"{name}: {m.video} ({odd}): wanted {m.expected}, found {m.found}")
    return "\n".join(lines)
