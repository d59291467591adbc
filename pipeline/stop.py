"""SIGTERM and SIGINT as a question that long work asks between two steps."""

from __future__ import annotations

import signal
from types import FrameType


class Stop:
    """Calling it tells whether a signal asked us to stop; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def listen(self) -> None:
        """Installs the handlers (again: Ray puts its own in their place when it starts)."""
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, self._hear)

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.signal or 0)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
