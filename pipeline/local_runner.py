"""The loop over one host in this machine, without Ray."""

from __future__ import annotations

import platform
from collections.abc import Callable

from pipeline.host import Host
from pipeline.units import Finished, Lost
from pipeline.work import Unit, Work, WorkerKind

_NAME = "here"


class LocalFleet:
    """One worker: the host is driven from this thread, so `wait` blocks until its unit is done."""

    def __init__(
        self, work: Work, stopping: Callable[[], bool], kind: WorkerKind | None = None
    ) -> None:
        """kind: of it, only how many decoders the worker has means something here."""
        self._work = work
        self._decoders = (kind or WorkerKind()).decoders
        self._stopping = stopping
        self._host = Host(work, self._decoders)
        self._host.start()
        self._unit: Unit | None = None

    def free(self) -> list[str]:
        return [_NAME] if self._unit is None else []

    def idle(self) -> list[str]:
        return self.free()

    def size(self) -> int:
        return 1

    def submit(self, worker: str, unit: Unit) -> None:
        self._unit = unit

    def wait(self, timeout_s: float) -> list[Finished | Lost]:
        if self._unit is None:
            return []
        unit, self._unit = self._unit, None
        result = self._host.run(unit, self._stopping)
        result.node = platform.node()
        return [Finished(_NAME, unit, result)]

    def retire(self, worker: str) -> None:
        self._host.close()
        self._host = Host(self._work, self._decoders)

    def drain(self) -> None:
        return  # the host is asked by `stopping`

    def close(self) -> None:
        self._host.close()
