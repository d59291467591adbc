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
class Member:
    """A file inside a zip: where its bytes are, so that no worker has to read a zip's directory.

    pieces: (url, bytes) of the files that are the zip, one after the other; offset: of its local
    header in there; packed, size: bytes before and after unpacking; crc: of them unpacked;
    method: 0 stored, 8 deflated, others cannot be read.
    """

    name: str
    pieces: tuple[tuple[str, int], ...]
    offset: int
    packed: int
    size: int
    crc: int
    method: int


Location = str | Member
"""Where a clip's bytes are: a local path, a URL, or in a zip."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the manifest.

    video: its name there; path: where its bytes are; caption: "" when the corpus has none;
    source_id: the source video that it was cut from (held-out splits go by it); published: the
    corpus's own score columns, absent ones left out.
    """

    clip_id: str
    video: str
    path: Location
    caption: str
    source_id: str
    published: Mapping[str, float | str] = field(default_factory=dict)


def caption_of(clip: Clip, facts: Facts) -> str:
    """What the clip shows, in words: as the `caption` stage has it, else as the corpus does."""
    return facts.get("caption", {}).get("caption") or clip.caption


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
