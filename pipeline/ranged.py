"""Bytes that are fetched range by range, as a file to read and seek in."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any


class Ranged(io.RawIOBase):
    """`size` bytes; fetch: (offset, bytes wanted) -> these, fewer at the end. Unbuffered."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size, self._fetch = size, fetch
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._fetch(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
