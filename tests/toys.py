"""Stages for the engine's tests: what they do to their process is written in the clip's name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.clip import Clip, Facts, Failed, Measurement, Outcome, clip_id
from pipeline.errors import InputError
from pipeline.filters import Filter
from pipeline.frames import FrameRequest, Frames
from pipeline.stage import Resources, Stage
from pipeline.work import Task


def clip(name: str) -> Clip:
    return Clip(clip_id(name), name, f"/nowhere/{name}", f"A {name}.", name)


def tasks(*names: str) -> list[Task]:
    return [Task(clip(name)) for name in names]


class Length(Stage):
    """Measures the length of the clip's name.

    A name with `crash` kills the process, `hang` hangs, `eat` fills the memory, `bad` has failed,
    `bug` raises, `full` finds no room and `slow` takes half a second.
    diary: a file that gets one line per loading and per measured clip; batch: clips at once.
    """

    name = "length"
    version = 1
    columns = pa.schema([("letters", pa.int64())])
    filters: ClassVar[Mapping[str, Filter]] = {"letters": Filter(max=12)}

    def __init__(self, diary: Path | None = None, batch: int = 1, pause_s: float = 0.0) -> None:
        self._diary = diary
        self._pause_s = pause_s
        self.resources = Resources(batch=batch)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def setup(self) -> None:
        self._note("loads")

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        return [self._one(clip.video) for clip in clips]

    def _note(self, what: str) -> None:
        if self._diary is not None:
            with self._diary.open("a") as diary:
                diary.write(f"{what} {os.getpid()}\n")

    def _one(self, name: str) -> Outcome:
        self._note(name)
        time.sleep(self._pause_s + (0.5 if "slow" in name else 0))
        if "crash" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in name:
            time.sleep(3600)
        if "eat" in name:
            held = []
            while True:
                held.append(bytearray(b"x") * (32 << 20))
                time.sleep(0.02)
        if "bug" in name:
            raise ZeroDivisionError(f"a bug at {name}")
        if "full" in name:
            raise InputError("no space left for full")
        if "bad" in name:
            return Failed("bad", "the name says so")
        return Measurement({"letters": len(name)})


class Double(Length):
    """Twice the length that `length` found."""

    name = "double"
    columns = pa.schema([("twice", pa.int64())])
    filters: ClassVar[Mapping[str, Filter]] = {}
    needs = ("length",)

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        return [Measurement({"twice": 2 * fact["length"]["letters"]}) for fact in facts]


class Counted(Length):
    """The same under another name, for what is told of it."""

    name = "counted"


class Weightless(Length):
    """Finds no weights on the machine that it is set up on."""

    def setup(self) -> None:
        raise InputError("length.model: the weights are not on this machine")


class Heavy(Length):
    """Fills the memory while it is set up."""

    def setup(self) -> None:
        self._one("eat")


class Brightness(Stage):
    """The mean level of a clip's frames, of as many clips at once as were handed over."""

    name = "brightness"
    version = 1
    columns = pa.schema([("level", pa.float64()), ("together", pa.int64())])

    def __init__(self, request: FrameRequest, batch: int = 1) -> None:
        self.frames = request
        self.resources = Resources(batch=batch)

    def settings(self) -> Mapping[str, Any]:
        return {}

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        return [
            Measurement({"level": float(seen.images.mean()), "together": len(clips)})
            for seen in frames
            if seen is not None
        ]


class Darkness(Brightness):
    """The same under another name, for two framed stages in a pass."""

    name = "darkness"
