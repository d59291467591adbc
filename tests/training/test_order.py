import numpy as np

from pipeline.chance import uniform
from training.order import Place, draw, normal, place, shuffled

COUNT = 50


def test_every_epoch_has_each_sample_once_in_another_order():
    epochs = [[place(7, e * COUNT + at, COUNT).number for at in range(COUNT)] for e in range(3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_position_says_the_same_whatever_was_asked_before():
    backwards = [place(7, at, COUNT) for at in reversed(range(3 * COUNT))]
    assert backwards[::-1] == [place(7, at, COUNT) for at in range(3 * COUNT)]


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
