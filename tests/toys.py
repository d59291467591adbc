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
from pipeline.frames import Frames
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
    diary: a file that gets one line per measured clip; batch: clips at once.
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

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        return [self._one(clip.video) for clip in clips]

    def _one(self, name: str) -> Outcome:
        if self._diary is not None:
            with self._diary.open("a") as diary:
                diary.write(f"{name} {os.getpid()}\n")
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
