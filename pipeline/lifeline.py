"""A child process that never outlives its parent: an orphan would hold memory, or a GPU."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1


def module_path() -> str:
    """A PYTHONPATH with which a child finds the modules that this process finds."""
    return os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, sys.path)]))


def spawn(
    module: str,
    fds: Sequence[int],
    stderr: IO[bytes] | None = None,
    withheld: Collection[str] = (),
) -> Child:
    """Starts `python -m module FD... LIFELINE` in a session of its own, those descriptors open.

    withheld: variables of the environment that it does not get.
    The call must come from a thread that lives as long as the child is wanted: Linux delivers the
    parent's death when the thread that forked ends.
    """
    read_end, write_end = os.pipe()
    passed = [*fds, read_end]
    environment = {name: text for name, text in os.environ.items() if name not in withheld}
    environment["PYTHONPATH"] = module_path()
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, passed), str(os.getpid())],
        pass_fds=passed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(read_end)
    return Child(process, write_end)


class Child:
    """A running child and the pipe whose end of file tells it that we are gone."""

    def __init__(self, process: subprocess.Popen[bytes], lifeline: int) -> None:
        self._process = process
        self._lifeline: int | None = lifeline

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills and reaps it; its own children follow by their own lifelines."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        self._process.kill()
        self._process.wait()


def die_with_parent(lifeline: int, parent: int) -> None:
    """In the child: dies when the parent does, by the kernel's signal and by the pipe's end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    def watch() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def rss_bytes(pid: int) -> int:
    """Resident memory of a process that is not shared with others; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
