"""Outcomes to the ledger, from a thread: many small ones become few parts."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Self

from pipeline.clip import Outcome
from pipeline.ledger import Ledger


class LedgerWriter:
    """Collects outcomes and writes a part every so often; a context manager that ends written.

    flush_s, flush_rows: when a part is written; hold_rows: unwritten rows at which `add` blocks,
    so that a slow store holds the feeding back instead of filling the memory.
    """

    def __init__(
        self,
        ledger: Ledger,
        flush_s: float = 30.0,
        flush_rows: int = 5_000,
        hold_rows: int = 20_000,
    ) -> None:
        self._ledger = ledger
        self._flush_s = flush_s
        self._flush_rows = flush_rows
        self._hold_rows = hold_rows
        self._rows: list[tuple[str, str, Outcome]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def add(self, outcomes: Sequence[tuple[str, str, Outcome]]) -> None:
        """Takes (clip id, stage, outcome) rows. Raises what stopped the writing, if anything."""
        with self._changed:
            self._rows.extend(outcomes)
            self._changed.notify_all()
            while len(self._rows) >= self._hold_rows and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error

    def _run(self) -> None:
        try:
            while self._flush():
                pass
        except BaseException as error:
            # Whatever it is, it belongs to the thread that adds: it stops the job there.
            with self._changed:
                self._error = error
                self._changed.notify_all()
            if not isinstance(error, Exception):
                raise

    def _flush(self) -> bool:
        """Waits until a part is due and writes it; False after the last one."""
        due = time.monotonic() + self._flush_s
        with self._changed:
            while not self._closing and len(self._rows) < self._flush_rows:
                left = due - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            rows, closing = list(self._rows), self._closing
        by_stage: defaultdict[str, list[tuple[str, Outcome]]] = defaultdict(list)
        for clip_id, stage, outcome in rows:
            by_stage[stage].append((clip_id, outcome))
        if by_stage:
            self._ledger.append(by_stage)
        with self._changed:
            del self._rows[: len(rows)]
            self._changed.notify_all()
        return not closing
