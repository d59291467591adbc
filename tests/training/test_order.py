import statistics

import numpy as np
import pytest

from pipeline.chance import uniform
from pipeline.errors import InputError
from training.order import Place, ShuffleSettings, draw, epoch_order, normal, place, shuffled

COUNT = 50
LOCAL = ShuffleSettings(block=8, window=3)


def test_every_epoch_has_each_sample_once_in_another_order():
    epochs = [[place(7, e * COUNT + at, COUNT).number for at in range(COUNT)] for e in range(3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("count", [1, 7, 8, 50, 1000])
@pytest.mark.parametrize("shuffle", [LOCAL, ShuffleSettings(1, 1), ShuffleSettings(100, 5)])
def test_every_epoch_has_each_sample_once_when_neighbours_stay_together(
    count: int, shuffle: ShuffleSettings
):
    epochs = [epoch_order(7, epoch, count, shuffle).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 8 or epochs[0] != epochs[1] != epochs[2]


def test_a_window_is_of_few_blocks_that_lie_anywhere():
    order = epoch_order(0, 0, 9600, LOCAL)
    windows = [sorted(order[at : at + 24].tolist()) for at in range(0, 9600, 24)]
    starts = [[n for n in window if (n - 1) % 9600 not in window] for window in windows]
    assert max(len(each) for each in starts) <= 3 + 1  # the ring's cut may part a block
    spread = [max(each) - min(each) for each in starts]
    assert np.median(spread) > 3000


def test_blocks_have_other_members_in_another_epoch():
    def parted(epoch: int) -> set[int]:
        order = epoch_order(0, epoch, 9600, LOCAL).tolist()
        windows = [set(order[at : at + 24]) for at in range(0, 9600, 24)]
        return {n % 8 for window in windows for n in window if n + 1 not in window}

    assert all(len(parted(epoch)) <= 2 for epoch in range(24))  # and at the ring's cut
    assert len(set().union(*map(parted, range(24)))) == 8


def test_a_window_reads_fewer_shards_than_a_full_shuffle():
    def shards(shuffle: ShuffleSettings) -> float:
        places = [place(0, at, 9600, shuffle).number // 100 for at in range(2400)]
        return statistics.mean([len(set(places[at : at + 24])) for at in range(0, 2400, 24)])

    assert shards(LOCAL) < 6
    assert shards(ShuffleSettings()) > 18


def test_a_position_says_the_same_whatever_was_asked_before():
    for shuffle in (ShuffleSettings(), LOCAL):
        backwards = [place(7, at, COUNT, shuffle) for at in reversed(range(3 * COUNT))]
        assert backwards[::-1] == [place(7, at, COUNT, shuffle) for at in range(3 * COUNT)]


def test_blocks_and_windows_have_to_be_counts():
    for wrong in ({"block": -1}, {"window": 0}):
        with pytest.raises(InputError, match=r"loop\.shuffle: found block"):
            ShuffleSettings(**wrong)


def test_another_seed_is_another_order():
    assert shuffled("order/0/0", COUNT).tolist() != shuffled("order/1/0", COUNT).tolist()


def test_chance_is_the_sample_s_own_at_its_place():
    here = draw(0, Place(0, 3, 9), "a", (2, 3), 0.5)
    again = draw(0, Place(0, 3, 9), "a", (2, 3), 0.5)
    assert np.array_equal(here.noise, again.noise)
    assert here.timestep == again.timestep
    for other in (Place(1, 3, 9), Place(0, 4, 9)):
        assert not np.array_equal(here.noise, draw(0, other, "a", (2, 3), 0.5).noise)
    assert not np.array_equal(here.noise, draw(0, Place(0, 3, 9), "b", (2, 3), 0.5).noise)


def test_the_draws_have_the_distributions_that_they_should():
    draws = [draw(0, Place(0, at, 0), f"key {at}", (16,), 0.1) for at in range(4000)]
    times = np.array([one.timestep for one in draws])
    noise = np.concatenate([one.noise for one in draws])
    assert noise.dtype == np.float32
    assert times.min() <= 3
    assert times.max() >= 996
    # Ten equal ranges of time: 400 each, a standard deviation of 19.
    assert np.abs(np.bincount(times // 100) - 400).max() < 80
    assert abs(np.mean([one.drop_text for one in draws]) - 0.1) < 0.02
    assert abs(noise.mean()) < 0.015
    assert abs(noise.std() - 1) < 0.015
    assert abs(np.corrcoef(times[:-1], times[1:])[0, 1]) < 0.06


def test_the_stream_is_the_one_that_checkpoints_were_written_with():
    # A numpy that draws other numbers would silently break every resumed run.
    assert shuffled("order", 6).tolist() == ORDER
    assert uniform("chance") == UNIFORM
    assert normal("noise", (3,)).tolist() == NORMAL


ORDER = [0, 2, 1, 4, 3, 5]
UNIFORM = 0.6449227033736665
NORMAL = [-0.36911457777023315, -1.786213755607605, -0.2976997494697571]
