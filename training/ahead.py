"""Samples are read before they are wanted, by threads, and come in order all the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Read = TypeVar("Read")


def read_ahead(
    read: Callable[[int], Read], positions: Iterable[int], readers: int, most: int
) -> Generator[Read]:
    """What `read` says at each position; an error comes where its result would.

    readers: threads. most: that are read, being read or waiting for a thread; they bound the
    memory. Closing this ends the threads, after what each is at.
    """
    waiting: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(readers) as pool:
        try:
            for position in positions:
                waiting.append(pool.submit(read, position))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
