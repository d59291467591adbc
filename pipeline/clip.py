"""The nouns: a clip, what is measured about it, and what became of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Facts = Mapping[str, Mapping[str, Any]]
"""What is known of one clip: stage -> column -> value. Only measured stages are present."""


def clip_id(video: str) -> str:
    """16 lower-case base32 characters (80 bits) of the SHA-256 of the name in the manifest."""
    digest = hashlib.sha256(video.encode("utf-8", "surrogateescape")).digest()
    return base64.b32encode(digest[:10]).decode().lower()


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest.

    video: its name there; path: where its bytes are (a local path or a URL); caption: "" when the
    corpus has none; source_id: the source video that it was cut from (held-out splits go by it);
    published: the corpus's own score columns, absent ones left out.
    """

    clip_id: str
    video: str
    path: str
    caption: str
    source_id: str
    published: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a stage found out: one value per column of the stage, None where a column is absent."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The clip could not be measured. code: a short stable word (`missing`, `partial`, `crash`)."""

    code: str
    message: str


Outcome = Measurement | Failed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one manifest row, and why.

    stage: the first one, in the fixed order, that rejected, failed or is missing; None when kept.
    measure, value, threshold: of the filter that rejected, e.g. `top5`, `0.006`, `>= 0.015`.
    code: of the failure, or `absent` / `duplicate`.
    """

    clip_id: str
    video: str
    verdict: Literal["kept", "rejected", "failed", "pending"]
    stage: str | None = None
    measure: str | None = None
    value: str | None = None
    threshold: str | None = None
    code: str | None = None
