import threading
import time
from contextlib import closing

import pytest

from training.ahead import read_ahead


def test_results_come_in_order_however_long_each_takes():
    def read(position: int) -> int:
        time.sleep(0.002 * (position % 3 == 0))
        return position * position

    assert list(read_ahead(read, range(50), readers=4, most=9)) == [n * n for n in range(50)]


def test_no_more_are_read_than_asked_for():
    begun: list[int] = []
    with closing(read_ahead(lambda n: begun.append(n) or n, range(100), 3, most=5)) as ahead:
        for taken in range(20):
            assert next(ahead) == taken
            assert len(begun) <= taken + 5


def test_an_error_comes_at_its_position_and_ends_the_threads():
    def read(position: int) -> int:
        if position == 3:
            raise OSError("the disk is gone")
        return position

    before = threading.active_count()
    ahead = read_ahead(read, range(10), readers=2, most=6)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="gone"):
        next(ahead)
    assert threading.active_count() == before
