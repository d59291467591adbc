"""A child process that decodes: broken files hang or kill decoders, so none runs beside a model.

Frames come back in an anonymous memory file (memfd) whose descriptor is handed over the socket: the
kernel frees it with its last holder, however that one died.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import numpy as np

from pipeline.clip import Failed
from pipeline.frames import FrameRequest, Frames
from pipeline.lifeline import Child, rss_bytes, spawn


@dataclass(slots=True)
class _Order:
    key: str
    path: str
    requests: tuple[FrameRequest, ...]
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class _Lost:
    """The child is of no more use; failed: what it means for the clip, if it happens again."""

    failed: Failed


class Decoder:
    """Decodes ahead, in order, in one child; a clip that kills two of them or is late has failed.

    deadline_s: for one clip; memory_bytes: of the child.
    """

    def __init__(self, deadline_s: float, memory_bytes: int) -> None:
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._orders: deque[_Order] = deque()
        self._child: Child | None = None
        self._socket: socket.socket | None = None
        self._since = 0.0
        self._served = 0

    def __len__(self) -> int:
        """How many orders are open."""
        return len(self._orders)

    def start(self) -> None:
        """Has a child ready before the first order."""
        if self._child is None:
            self._start()

    def order(self, key: str, path: str, requests: Sequence[FrameRequest]) -> None:
        """Asks for the frames of one clip."""
        order = _Order(key, path, tuple(requests))
        self.start()
        self._orders.append(order)
        self._send(order)
        if len(self._orders) == 1:
            self._since = time.monotonic()

    def next(self) -> tuple[str, list[Frames] | Failed]:
        """Waits for the oldest open order: its key, and its frames (one per request) or why not."""
        order = self._orders[0]
        while True:
            answer = self._await()
            if not isinstance(answer, _Lost):
                self._served += 1
                self._finish()
                return order.key, answer
            # A crash counts in a fresh child only: the machine may have killed a seasoned one.
            order.attempts += self._served == 0 or answer.failed.code != "crash"
            self._stop()
            if order.attempts >= 2:
                self._finish()
                if self._orders:
                    self._start()
                return order.key, answer.failed
            self._start()

    def close(self) -> None:
        """Kills the child and forgets the open orders."""
        self._orders.clear()
        self._stop()

    def _await(self) -> list[Frames] | Failed | _Lost:
        """The child's answer, or why the child has to go."""
        assert self._socket is not None
        assert self._child is not None
        with Connection(os.dup(self._socket.fileno())) as connection:
            while not connection.poll(0.1):
                if time.monotonic() - self._since > self._deadline_s:
                    return _Lost(Failed("timeout", f"not decoded within {self._deadline_s:g} s"))
                if rss_bytes(self._child.pid) > self._memory_bytes:
                    gib = self._memory_bytes / 2**30
                    return _Lost(Failed("memory", f"decoding took more than {gib:.1f} GiB"))
            try:
                answer = connection.recv()
            except (EOFError, ConnectionResetError):
                return _Lost(Failed("crash", "decoding killed the decoder"))
        if isinstance(answer, Failed):
            return answer
        _, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not fds:
            return _Lost(Failed("crash", "the decoder died while it handed its frames over"))
        return _unpack(answer, fds[0])

    def _finish(self) -> None:
        self._orders.popleft()
        self._since = time.monotonic()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._child = spawn("pipeline.decoder_main", [theirs.fileno()])
        theirs.close()
        self._since = time.monotonic()
        self._served = 0
        for order in self._orders:
            self._send(order)

    def _send(self, order: _Order) -> None:
        assert self._socket is not None
        with Connection(os.dup(self._socket.fileno())) as connection:
            try:
                connection.send((order.path, order.requests, self._memory_bytes))
            except (BrokenPipeError, ConnectionResetError):
                return  # the child is gone: `next` finds out, and orders again from a new one

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _unpack(metas: Sequence[tuple[Frames, tuple[int, ...]]], fd: int) -> list[Frames]:
    """The frames with their pixels: views of the memory file, freed with the last one."""
    size = os.fstat(fd).st_size
    buffer = mmap.mmap(fd, size) if size else b""  # an empty file cannot be mapped
    os.close(fd)
    unpacked, offset = [], 0
    for frames, shape in metas:
        count = int(np.prod(shape))
        images = np.frombuffer(buffer, np.uint8, count, offset).reshape(shape)
        unpacked.append(replace(frames, images=images))
        offset += count
    return unpacked
