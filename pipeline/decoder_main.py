"""The child process that decodes: orders in, frames out, until its socket closes."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np

from pipeline.clip import Failed
from pipeline.decode import DecodeError, read_frames
from pipeline.frames import FrameRequest, Frames
from pipeline.lifeline import die_with_parent


def _pack(all_frames: Sequence[Frames]) -> tuple[list[tuple[Frames, tuple[int, ...]]], int]:
    """The frames without pixels but with their shapes, and the memory file of the pixels."""
    fd = os.memfd_create("frames")
    metas = []
    with os.fdopen(os.dup(fd), "wb") as file:
        for frames in all_frames:
            file.write(np.ascontiguousarray(frames.images).data)
            metas.append((replace(frames, images=np.empty(0, np.uint8)), frames.images.shape))
    return metas, fd


def main() -> None:
    """Answers one order after the other."""
    fd, lifeline, parent = map(int, sys.argv[1:])
    die_with_parent(lifeline, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=fd)
    with Connection(os.dup(fd)) as connection:
        while True:
            try:
                file, requests, memory_bytes = connection.recv()
            except EOFError:
                return
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
            _answer(connection, channel, file, requests)


def _answer(
    connection: Connection, channel: socket.socket, file: str, requests: Sequence[FrameRequest]
) -> None:
    try:
        metas, memory = _pack(read_frames(file, requests))
    except DecodeError as error:
        connection.send(Failed(error.code, error.message))
    except MemoryError:
        connection.send(Failed("memory", "not enough memory to decode"))
    else:
        connection.send(metas)
        socket.send_fds(channel, [b"f"], [memory])
        os.close(memory)


if __name__ == "__main__":
    main()
