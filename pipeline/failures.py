"""What a clip can fail of, how many did, and how many of them are too many."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.filters import MANIFEST_STAGE
from pipeline.verdicts import Verdicts

CODES: Mapping[str, str] = {
    "missing": "its file is not there",
    "empty": "its file has 0 bytes",
    "unreachable": "its address could not be fetched",
    "too_large": "its file, or what it unpacks to, is larger than is read",
    "unreadable": "no video that FFmpeg knows, or a damaged one",
    "no_video": "its file holds no video stream",
    "partial": "frames that a stage needs are missing",
    "no_frames": "there was no frame to look at",
    "too_short": "fewer frames than a measure needs",
    "too_small": "fewer pixels than a measure needs",
    "crash": "it killed its decoder or its host twice",
    "timeout": "it took longer than engine.limits or a server's settings allow",
    "memory": "it took more memory than engine.limits allows",
    "not_finite": "the network overflowed",
    "no_caption": "its caption is empty, or holds no word",
    "bad_answer": "a language model's answer could not be understood",
    "refused": "a server refused the question",
    "server_error": "a server broke on the question",
    "no_entity": "there is no name to look for",
    "no_mask": "there is no subject to cut out",
    "changed": "the video is not the one that was measured before",
    "no_reference": "no reference was named for a generated video",
    "sample": "its sample is missing or damaged",
    "frames": "its sample has a number of frames that the codec does not take",
    "entity": "its entity is not among the caption's tokens",
}
"""Every code that a stage can give, and what it says of the clip."""


def parse_codes(text: str) -> list[str]:
    """`timeout,crash` as codes. InputError names the nearest one where one is not known."""
    codes = [code.strip() for code in text.split(",") if code.strip()]
    for code in codes:
        if code not in CODES:
            near = difflib.get_close_matches(code, CODES, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(CODES)}"
            raise InputError(f"errors: unknown code {code}; {advice}")
    if not codes:
        raise InputError(f"errors: found no code, wanted some of {', '.join(CODES)}")
    return codes


def count(verdicts: Verdicts) -> Counter[tuple[str, str]]:
    """How many rows have failed: (stage, code) -> rows."""
    failed: Counter[tuple[str, str]] = Counter()
    for reason, rows in verdicts.counts().items():
        if reason.verdict == "failed":
            failed[reason.stage or "", reason.code or ""] += rows
    return failed


def words(failed: Mapping[tuple[str, str], int]) -> str:
    """`3 unreadable in probe, 2 timeout in motion`, the most first; `none`."""
    most = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{rows:,} {code} in {stage}" for (stage, code), rows in most) or "none"


@dataclass(frozen=True, slots=True)
class Budget:
    """Of the clips that came to some stages, how many failed there.

    allowed: the share that may.
    """

    failed: Mapping[tuple[str, str], int]
    reached: int
    allowed: float

    @property
    def share(self) -> float:
        return sum(self.failed.values()) / max(self.reached, 1)

    @property
    def is_over(self) -> bool:
        return self.share > self.allowed

    def __str__(self) -> str:
        return (
            f"{sum(self.failed.values()):,} of {self.reached:,} clips failed ({self.share:.1%}, "
            f"engine.failed_share allows {self.allowed:.1%}): {words(self.failed)}"
        )


def budget(verdicts: Verdicts, order: Sequence[str], of: Collection[str], allowed: float) -> Budget:
    """What failed in these stages, of the clips that came to the first of them.

    order: all stages. Clips without a verdict of theirs have not come yet; what the manifest says
    of a row (its video is in none of the zips that are here) is no failure of a stage.
    """
    first = min(map(order.index, of), default=len(order))
    failed = {key: rows for key, rows in count(verdicts).items() if key[0] in of}
    reached = 0
    for reason, rows in verdicts.counts().items():
        at = len(order) if reason.stage is None else -1
        if reason.stage is not None and reason.stage != MANIFEST_STAGE:
            at = order.index(reason.stage)
        waits = reason.verdict == "pending" and reason.stage in of
        reached += rows if at >= first and not waits else 0
    return Budget(failed, reached, allowed)
