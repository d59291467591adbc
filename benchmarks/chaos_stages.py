"""Stages that take no time, for benchmarks/chaos.py: one that looks at frames, one that follows
from it, and two builds. Every call of `measure` leaves a line in a file, for each clip.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline import storage
from pipeline.clip import Clip, Facts, Measurement, Outcome
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames, Indices
from pipeline.sample_tar import LATENTS, MEMBERS, unpack
from pipeline.stage import Resources, Stage

PAUSE_S = 0.01
"""What a clip takes in a stage: so that kills meet passes, not only their beginnings."""

_BUILT = [
    ("address", pa.string()),
    ("name", pa.string()),
    ("bytes", pa.int64()),
    ("sha256", pa.string()),
]


class Counted(Stage):
    """Notes each clip that it measures. diary: the file."""

    version = 1
    resources = Resources(batch=4)

    def __init__(self, diary: Path) -> None:
        self._diary = diary

    def settings(self) -> Mapping[str, Any]:
        return {}

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        outcomes = []
        for clip, seen, known in zip(clips, frames, facts, strict=True):
            line = f"{self.name} {clip.video}\n".encode()
            place = os.open(self._diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(place, line)  # at once, so that lines of several processes stay whole
            os.close(place)
            time.sleep(PAUSE_S)
            outcomes.append(Measurement(self.find(clip, seen, known)))
        return outcomes

    def find(self, clip: Clip, seen: Frames | None, known: Facts) -> Mapping[str, Any]:
        """The columns of one clip."""
        raise AssertionError(f"{self.name} finds nothing")


class Level(Counted):
    """Mean level of two frames: what it takes a decoder to know."""

    name = "score"
    columns = pa.schema([("level", pa.float64()), ("lucky", pa.int64())])
    filters: ClassVar[Mapping[str, Filter]] = {"lucky": Filter(min=1)}
    frames = FrameRequest(Indices((0, 3)), area_px=32 * 32)

    def find(self, clip: Clip, seen: Frames | None, known: Facts) -> Mapping[str, Any]:
        """One clip in four is rejected, by its name."""
        assert seen is not None
        return {"level": float(seen.images.mean()), "lucky": _digest(clip.video)[0] % 4}


class Part(Counted):
    """Follows from the level, as masks follow from captions."""

    name = "segment"
    columns = pa.schema([("word", pa.string())])
    needs = ("score",)

    def find(self, clip: Clip, seen: Frames | None, known: Facts) -> Mapping[str, Any]:
        """A word of the name and the level."""
        return {"word": _digest(f"{clip.video} {known['score']['level']}").hex()}


class Built(Counted):
    """A file under the name of its inputs, put there once."""

    columns = pa.schema(_BUILT)

    def __init__(self, diary: Path, out: str) -> None:
        super().__init__(diary)
        self._out = out

    def put(self, clip: Clip, members: Mapping[str, bytes], made_of: str) -> Mapping[str, Any]:
        """The columns of what was built."""
        address = hashlib.sha256(made_of.encode()).hexdigest()
        url = storage.join(self._out, f"{address}.tar")
        storage.create(url, _packed(clip.clip_id, members))
        content = storage.read(url)
        digest = hashlib.sha256(content).hexdigest()
        return {
            "address": address,
            "name": f"{address}.tar",
            "bytes": len(content),
            "sha256": digest,
        }


class Pairs(Built):
    """The training sample, with a few bytes for each of its files."""

    name = "sample"
    needs = ("score", "segment")

    def find(self, clip: Clip, seen: Frames | None, known: Facts) -> Mapping[str, Any]:
        """Whatever was found before decides the bytes."""
        word = known["segment"]["word"]
        return self.put(clip, {member: f"{member} {word}".encode() for member in MEMBERS}, word)


class Encoded(Built):
    """What is made of a sample."""

    name = "latents"
    needs = ("sample",)

    def __init__(self, diary: Path, samples: str, out: str) -> None:
        super().__init__(diary, out)
        self._samples = samples

    def find(self, clip: Clip, seen: Frames | None, known: Facts) -> Mapping[str, Any]:
        """Read from the sample's file."""
        sample = known["sample"]
        packed = storage.read(storage.join(self._samples, sample["name"]))
        content = _digest(repr(sorted(unpack(clip.clip_id, packed).items())))
        return self.put(clip, {LATENTS[0]: content}, sample["sha256"])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _packed(key: str, members: Mapping[str, bytes]) -> bytes:
    """As `pipeline.sample_tar.pack`, which loads torch in every new host."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in sorted(members.items()):
            entry = tarfile.TarInfo(f"{key}.{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()
