"""Eight processes that create one object at once; prints the numbers of those that have won.

Started as `python tests/racing_writers.py URL BYTES`. They are forks of a process that has used the
store before, and uses it afterwards.
"""

from __future__ import annotations

import os
import random
import sys

from pipeline import storage

WRITERS = 8


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def main() -> None:
    url, size = sys.argv[1], int(sys.argv[2])
    assert not storage.exists(url)
    writers = []
    for number in range(WRITERS):
        writer = os.fork()
        if writer == 0:
            os._exit(3 if storage.create(url, content(size, number)) else 4)
        writers.append(writer)
    ends = [os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) for writer in writers]
    assert set(ends) <= {3, 4}, ends
    assert storage.exists(url)
    print(*(number for number, end in enumerate(ends) if end == 3))


if __name__ == "__main__":
    main()
