"""What a person sees while a pass runs: one line on the terminal, and `status.json`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Self, TextIO

from tqdm import tqdm

from pipeline import storage
from pipeline.errors import InputError

LINE_EVERY_S = 10.0
"""Between plain lines when nobody watches a terminal (ours: a log of a night stays readable)."""
STATUS_EVERY_S = 2.0
"""Between two writes of `status.json` (ours: an object store charges for each)."""
RATE_OVER_S = 60.0
"""The rate is that of the last minute, so that it follows workers that come and go."""
MARK_EVERY_S = 0.5
RATE_MARKS = 10
"""... or of the last ten updates, where a minute holds fewer."""

_WORDS = {"kept": "kept", "rejected": "rejected", "failed": "failed"}


class Progress:
    """Counts the clips of one pass, as a context manager.

    total: clips that this pass has to do. status_url: where `status.json` goes; None: nowhere.
    watcher: called with this whenever something came back.
    Its state is `done` when all clips came back, `failed` when an error left the block, and
    `stopped` when it was left early (an interrupt, SystemExit, a drained run). words: which of its
    counts are shown, and how they are called.
    """

    def __init__(
        self,
        pass_name: str,
        total: int,
        status_url: str | None,
        runner: str = "local",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        words: Mapping[str, str] = _WORDS,
        watcher: Callable[[Progress], None] = lambda shown: None,
    ) -> None:
        self.pass_name, self.total, self.runner = pass_name, total, runner
        self.done = self.kept = self.rejected = self.failed = 0
        self._status_url = status_url
        self._words = words
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._watcher = watcher
        self._writer = ThreadPoolExecutor(1, "status")
        self._writing: Future[None] | None = None
        self._began = self._lined = self._saved = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._started = _now()
        self._before = 0
        self._bar: tqdm | None = None

    def after(self, done: int) -> Self:
        """Counts on from what was done before, which has no part in the rate."""
        self.done = self._before = done
        self._marks = deque([(self._began, done)])
        return self

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._bar = tqdm(
                total=self.total,
                initial=self.done,
                file=self._stream,
                dynamic_ncols=True,
                leave=False,
                bar_format="{percentage:3.0f}% |{bar:16}| {desc}",
            )
            self._bar.set_description_str(self.line())
        self._save("running")
        return self

    def update(self, done: int = 1, kept: int = 0, rejected: int = 0, failed: int = 0) -> None:
        """Adds what came back since the last call."""
        self.done += done
        self.kept += kept
        self.rejected += rejected
        self.failed += failed
        now = self._clock()
        self._mark(now)
        self._watcher(self)
        if self._bar is not None:
            self._bar.set_description_str(self.line(), refresh=False)
            self._bar.update(done)
        elif now - self._lined >= LINE_EVERY_S:
            self._lined = now
            self._write(self.line())
        if now - self._saved >= STATUS_EVERY_S:
            self._save("running")

    def note(self, text: str) -> None:
        """Says something that stays on the screen, above the line."""
        if self._bar is not None:
            tqdm.write(text, file=self._stream)
        else:
            self._write(text)

    def rate(self) -> float:
        """Clips per second of late; 0 before the first one."""
        (then, before), (now, done) = self._marks[0], self._marks[-1]
        return (done - before) / (now - then) if now > then else 0.0

    def eta_s(self) -> float | None:
        """Seconds until the last clip at this rate; None while nothing is known."""
        rate = self.rate()
        return max(0, self.total - self.done) / rate if rate else None

    def line(self) -> str:
        """`motion 120/400, 3.2/s, 01:27 left: 80 kept, 35 rejected, 5 failed`."""
        eta = self.eta_s()
        left = "" if eta is None else f", {tqdm.format_interval(round(eta))} left"
        speed = "" if eta is None else f", {_spelt(self.rate())}/s"
        return f"{self.pass_name} {self.done}/{self.total}{speed}{left}: {self._counts()}"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.set_description_str(self.line(), refresh=False)
            self._bar.close()
        if kind is None:
            state = "done" if self.done >= self.total else "stopped"
        else:
            state = "failed" if issubclass(kind, Exception) else "stopped"
        took = self._clock() - self._began
        done = self.done - self._before
        speed = f", {_spelt(done / took)}/s" if done and took > 0 else ""
        self._write(
            f"{self.pass_name} {state}: {self.done}/{self.total}"
            f" in {tqdm.format_interval(round(took))}{speed}: {self._counts()}"
        )
        # The error that ends the block is the one to show, even when the disk is full too.
        with contextlib.suppress(OSError, InputError) if kind else contextlib.nullcontext():
            self._save(state)
        self._writer.shutdown(wait=False)

    def status(self, state: str) -> dict[str, Any]:
        """What `status.json` says; times in UTC, rate in clips per second."""
        eta = self.eta_s()
        return {
            "pass": self.pass_name,
            "state": state,
            "done": self.done,
            "total": self.total,
            "rate": round(self.rate(), 3),
            "eta_s": None if eta is None else round(eta, 1),
            "kept": self.kept,
            "rejected": self.rejected,
            "failed": self.failed,
            "started": self._started,
            "updated": _now(),
            "runner": self.runner,
            "pid": os.getpid(),
        }

    def _counts(self) -> str:
        return ", ".join(f"{getattr(self, count)} {word}" for count, word in self._words.items())

    def _mark(self, now: float) -> None:
        if len(self._marks) > 1 and now - self._marks[-2][0] < MARK_EVERY_S:
            self._marks.pop()
        self._marks.append((now, self.done))
        while len(self._marks) > RATE_MARKS and now - self._marks[1][0] >= RATE_OVER_S:
            self._marks.popleft()

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _save(self, state: str) -> None:
        """A slow store holds nothing up: while one write is on its way, others are skipped."""
        self._saved = self._clock()
        if self._status_url is None:
            return
        content = json.dumps(self.status(state), indent=2).encode()
        running = state == "running" and storage.local(self._status_url) is None
        if running and self._writing is not None and not self._writing.done():
            return
        if self._writing is not None:
            self._writing.result()
        self._writing = self._writer.submit(storage.write, self._status_url, content)
        if not running:
            self._writing.result()


def _spelt(rate: float) -> str:
    """Two digits, or all before the point."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
