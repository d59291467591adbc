"""Clips decoded ahead, side by side: a network should never wait for one of them.

Each child has a thread of its own, which gives it clip after clip and does nothing but wait for it:
a child that dies costs its own clip a second try, and the others nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.clip import Failed, Location
from pipeline.decoder import Decoder
from pipeline.frames import FrameRequest, Frames

Decoded = list[Frames] | Failed


@dataclass(frozen=True, slots=True)
class _Order:
    path: Location
    requests: tuple[FrameRequest, ...]
    decoded: Future[Decoded] = field(default_factory=Future)


class Decoders:
    """Hands frames over in the order in which they were asked for.

    count: of children. ahead: clips begun beyond those that were handed over; ahead_bytes: no
    further one is begun while frames of so many bytes wait. deadline_s, memory_bytes: of one clip
    in its child.
    """

    def __init__(
        self, count: int, ahead: int, ahead_bytes: int, deadline_s: float, memory_bytes: int
    ) -> None:
        self._decoders = [Decoder(deadline_s, memory_bytes) for _ in range(count)]
        self._ahead, self._ahead_bytes = ahead, ahead_bytes
        self._changed = threading.Condition()
        self._waiting: deque[_Order] = deque()  # not begun yet
        self._open: deque[_Order] = deque()  # not handed over yet
        self._begun = 0  # of the open ones
        self._held_bytes = 0
        self._closed = False

    def start(self) -> None:
        """Has all children ready before the first clip.

        A child lives as long as the thread that started it, and these threads as long as we do.
        """
        for decoder in self._decoders:
            threading.Thread(target=self._serve, args=(decoder,), daemon=True).start()

    def order(self, path: Location, requests: Sequence[FrameRequest]) -> None:
        """Asks for the frames of one clip."""
        order = _Order(path, tuple(requests))
        with self._changed:
            self._waiting.append(order)
            self._open.append(order)
            self._changed.notify_all()

    def next(self) -> Decoded:
        """Waits for the clip asked for first: its frames, one per request, or why not."""
        decoded = self._open[0].decoded.result()
        with self._changed:
            self._open.popleft()
            self._begun -= 1
            self._held_bytes -= _size_bytes(decoded)
            self._changed.notify_all()
        return decoded

    def close(self) -> None:
        """Begins nothing more; each child goes when its clip is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _serve(self, decoder: Decoder) -> None:
        with suppress(OSError):  # `decode` starts it again, and what it raises is told
            decoder.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has_room())
                if self._closed:
                    decoder.close()
                    return
                order = self._waiting.popleft()
                self._begun += 1
            try:
                decoded = decoder.decode(order.path, order.requests)
            except Exception as error:
                order.decoded.set_exception(error)  # ours, or the machine's: whoever waits raises
                raise
            with self._changed:
                self._held_bytes += _size_bytes(decoded)
            order.decoded.set_result(decoded)

    def _has_room(self) -> bool:
        """Clips begin in their order, so the one that is waited for never waits for room."""
        has_room = self._begun < self._ahead and self._held_bytes < self._ahead_bytes
        return bool(self._waiting) and has_room


def _size_bytes(decoded: Decoded) -> int:
    """What the pixels take."""
    return 0 if isinstance(decoded, Failed) else sum(frames.size_bytes() for frames in decoded)
