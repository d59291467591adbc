"""Who works on something just now, so that a second one does not do the same work.

A lease only saves work: whatever two holders write stays right. So there is no lock (flock hangs on
NFS), only a file that is created exclusively and renewed.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from pipeline import storage
from pipeline.errors import InputError

_log = logging.getLogger(__name__)

RENEW_S = 20.0
"""Between two renewals: two may fail before the lease is stale."""

STALE_S = 60.0
"""Without renewal for so long, the holder is taken for dead; longer than a pause or a slow PUT."""


class LeaseHeldError(InputError):
    """Somebody else works on it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """machine: host, boot and process namespace, so that `pid` means something; times in epoch s.

    started: when the process began, for process ids come again; token: of one lease; doing: in
    words.
    """

    host: str
    machine: str
    pid: int
    started: float
    token: str
    since: float
    renewed: float
    doing: str = ""

    @classmethod
    def here(cls, doing: str = "") -> Holder:
        """The process that asks, now."""
        host, now = socket.gethostname(), time.time()
        started = psutil.Process().create_time()
        return cls(
            host, _machine(host), os.getpid(), started, secrets.token_hex(8), now, now, doing
        )

    def is_gone(self, silent_s: float) -> bool:
        """Whether it is known to be dead, or has not been heard of for too long."""
        if silent_s > STALE_S:
            return True
        if self.machine != _machine(socket.gethostname()):
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            return not same or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).isoformat(" ", "seconds")
        doing = f" ({self.doing})" if self.doing else ""
        return f"process {self.pid} on {self.host} since {since}{doing}"


class Lease:
    """Holds a url while a `with` block runs. LeaseHeldError when another one does.

    It is renewed by a thread. A lease that is lost all the same (this machine slept) is given up
    with a warning: the work goes on, and is done twice.
    """

    def __init__(self, url: str, doing: str = "") -> None:
        """doing: what another one is told."""
        self.url = url
        self._mine = Holder.here(doing)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError, InputError):  # then it is stale in a minute
            if self._is_mine():
                storage.remove(self.url)

    def _take(self) -> None:
        """Creates the file; a stale one is taken away first, if it is still the same."""
        other, silent_s = None, 0.0
        for _ in range(3):
            self._mine = replace(self._mine, since=time.time(), renewed=time.time())
            if storage.create(self.url, _encode(self._mine)):
                return
            other = _holder(self.url)
            silent_s = 0.0 if other is None else self._silent_s(other)
            if other is not None and not other.is_gone(silent_s):
                break
            if other == _holder(self.url):
                storage.remove(self.url)
        who = other or "another process"
        raise LeaseHeldError(
            f"{self.url}: held by {who}, heard of {max(silent_s, 0):.0f} s ago; wait for it, or "
            "stop it: then the same command does what is left. Should it die, the lease is free at "
            f"once on its own machine, and {STALE_S:.0f} s later on others"
        )

    def _silent_s(self, other: Holder) -> float:
        """Seconds since the holder was heard of, by the clock of the store alone.

        The clocks of two machines may be minutes apart, and so a holder that lives may seem dead.
        """
        asked = f"{self.url}.asked-{self._mine.token}"
        try:
            storage.write(asked, b"")
            now, then = storage.modified(asked), storage.modified(self.url)
        except FileNotFoundError:
            return math.inf  # it was given back just now
        finally:
            storage.remove(asked)
        if now is None or then is None:
            return time.time() - other.renewed
        return now - then

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            try:
                if not self._is_mine():
                    _log.warning("%s: the lease was lost; work may be done twice", self.url)
                    return
                self._mine = replace(self._mine, renewed=time.time())
                storage.write(self.url, _encode(self._mine))
            except (OSError, InputError) as error:
                _log.warning("%s: the lease could not be renewed: %s", self.url, error)

    def _is_mine(self) -> bool:
        holder = _holder(self.url)
        return holder is not None and holder.token == self._mine.token


def _encode(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _holder(url: str) -> Holder | None:
    """Who holds it; None when nobody does, or the file says nothing."""
    try:
        return Holder(**json.loads(storage.read(url)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _machine(host: str) -> str:
    """What two processes share that see the same process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{host} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{host} {psutil.boot_time():.0f}"
