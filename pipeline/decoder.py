"""A child process that decodes: broken files hang or kill decoders, so none runs beside a model.

Frames come back in an anonymous memory file (memfd) whose descriptor is handed over the socket: the
kernel frees it with its last holder, however that one died.
"""

from __future__ import annotations

import mmap
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import numpy as np

from pipeline.clip import Failed, Location
from pipeline.clip_file import local_file
from pipeline.container import DecodeError
from pipeline.frames import FrameRequest, Frames
from pipeline.lifeline import Child, rss_bytes, spawn

_WITHHELD = (  # a hostile file may take the child over
    *("OPENAI_API_KEY", "HF_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("FSSPEC_S3", "FSSPEC_S3_KEY", "FSSPEC_S3_SECRET", "FSSPEC_S3_TOKEN"),
)


@dataclass(frozen=True, slots=True)
class _Lost:
    """The child is of no more use; failed: what it means for the clip, if it happens again."""

    failed: Failed


class Decoder:
    """Decodes clip after clip in one child; a clip that kills two of them or is late has failed.

    deadline_s: for one clip; memory_bytes: of the child. What lies in a zip or an object store is
    fetched here: the child gets a file to open, and no credentials.
    """

    def __init__(self, deadline_s: float, memory_bytes: int) -> None:
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._child: Child | None = None
        self._socket: socket.socket | None = None
        self._served = 0

    def start(self) -> None:
        """Has a child ready before the first clip."""
        if self._child is None:
            ours, theirs = socket.socketpair()
            self._socket = ours
            self._child = spawn("pipeline.decoder_main", [theirs.fileno()], withheld=_WITHHELD)
            theirs.close()
            self._served = 0

    def decode(self, path: Location, requests: Sequence[FrameRequest]) -> list[Frames] | Failed:
        """The frames of one clip, one per request, or why not. InputError: the store is away."""
        try:
            with local_file(path) as file:
                return self._decode(file, tuple(requests))
        except DecodeError as error:
            return Failed(error.code, error.message)

    def _decode(self, file: str, requests: tuple[FrameRequest, ...]) -> list[Frames] | Failed:
        deaths = 0
        while True:
            self.start()
            answer = self._ask(file, requests)
            if not isinstance(answer, _Lost):
                self._served += 1
                return answer
            # A crash counts in a fresh child only: the machine may have killed a seasoned one.
            deaths += self._served == 0 or answer.failed.code != "crash"
            self.close()
            if deaths >= 2:
                return answer.failed

    def close(self) -> None:
        """Kills the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, file: str, requests: tuple[FrameRequest, ...]) -> list[Frames] | Failed | _Lost:
        """The child's answer, or why the child has to go."""
        assert self._socket is not None
        try:
            with Connection(os.dup(self._socket.fileno())) as connection:
                connection.send((file, requests, self._memory_bytes))
                late = self._await(connection)
                answer = late or connection.recv()
            if isinstance(answer, Failed | _Lost):
                return answer
            _, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
            if not fds:
                return _Lost(Failed("crash", "the decoder died while it handed its frames over"))
            return _unpack(answer, fds[0])
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return _Lost(Failed("crash", "decoding killed the decoder"))
        except OSError as error:  # ours: no memory, or no descriptor
            return _Lost(Failed("crash", f"no frames came from the decoder: {error}"))

    def _await(self, connection: Connection) -> _Lost | None:
        """Returns when there is an answer, or with what the child did too much of."""
        assert self._child is not None
        until = time.monotonic() + self._deadline_s
        while not connection.poll(0.1):
            if time.monotonic() > until:
                return _Lost(Failed("timeout", f"not decoded within {self._deadline_s:g} s"))
            if rss_bytes(self._child.pid) > self._memory_bytes:
                gib = self._memory_bytes / 2**30
                return _Lost(Failed("memory", f"decoding took more than {gib:.1f} GiB"))
        return None


def _unpack(metas: Sequence[tuple[Frames, tuple[int, ...]]], fd: int) -> list[Frames]:
    """The frames with their pixels: views of the memory file, freed with the last one."""
    try:
        size = os.fstat(fd).st_size
        buffer = mmap.mmap(fd, size) if size else b""  # an empty file cannot be mapped
    finally:
        os.close(fd)
    unpacked, offset = [], 0
    for frames, shape in metas:
        count = int(np.prod(shape))
        images = np.frombuffer(buffer, np.uint8, count, offset).reshape(shape)
        unpacked.append(replace(frames, images=images))
        offset += count
    return unpacked
