from collections import Counter

import pytest
import torch
from small_training import SOURCES, SmallSamples

from pipeline.errors import InputError
from training.held_out import HeldOutSettings, hold_out, paired, split


def test_a_source_video_is_on_one_side_with_all_its_clips():
    trained, held = split(0, SOURCES, 0.3)
    assert sorted(trained + held) == list(range(len(SOURCES)))
    assert not {SOURCES[n] for n in trained} & {SOURCES[n] for n in held}


def test_a_corpus_that_grows_moves_nobody_to_the_other_side():
    _, before = split(0, SOURCES, 0.3)
    _, after = split(0, [*SOURCES, *(f"new {n}" for n in range(40))], 0.3)
    assert [number for number in after if number < len(SOURCES)] == before


def test_the_share_is_about_what_was_asked_for():
    sources = [f"video {number}" for number in range(2000)]
    assert abs(len(split(3, sources, 0.1)[1]) / 2000 - 0.1) < 0.03


def test_a_split_without_two_held_out_subjects_is_refused():
    with pytest.raises(InputError, match=r"held_out.share 0.0: found 40 .* 0 of 20"):
        split(0, SOURCES, 0.0)
    with pytest.raises(InputError, match="found 0 samples to train on"):
        split(0, SOURCES, 1.0)


@pytest.mark.parametrize(
    "sources", ["aabb", "aaaaaab", "abcabcaab", "aaabbbc", "ab", "aabbccddeeffgg"]
)
@pytest.mark.parametrize("most", [2, 3, 5, 100])
def test_everyone_gets_another_subject_s_reference_and_each_is_given_once(sources: str, most: int):
    pairs = paired(0, range(len(sources)), sources, most)
    assert 2 <= len(pairs) <= most
    assert all(sources[one] != sources[other] for one, other in pairs)
    assert sorted(one for one, _ in pairs) == sorted(other for _, other in pairs)


def test_places_go_to_as_many_subjects_as_there_are():
    sources = "aaaaaaaabcdefgh"
    pairs = paired(0, range(len(sources)), sources, 8)
    assert Counter(sources[one] for one, _ in pairs) == Counter("abcdefgh")


def test_the_three_losses_differ_by_the_reference_alone():
    samples = SmallSamples()
    _, aside = split(0, SOURCES, 0.3)
    settings = HeldOutSettings(samples=6, draws=5)
    held = hold_out(0, aside, SOURCES, samples.__getitem__, settings, with_entity=True)
    seen: dict[str, list] = {}

    def losses(examples):
        kind = seen.setdefault(str(len(seen)), [])
        kind += examples
        return torch.tensor([float(one.timestep) for one in examples])

    measured = held.measure(losses, batch=1000, with_reference=True)
    right, shuffled, none = seen.values()
    assert measured.mean("right") == measured.mean("shuffled") == measured.mean("none")
    for a, b, c in zip(right, shuffled, none, strict=True):
        assert a.key == b.key == c.key
        assert torch.equal(a.noise, b.noise)
        assert torch.equal(a.noise, c.noise)
        assert torch.equal(a.latents[:1], a.reference)
        assert not torch.equal(a.reference, b.reference)
        assert c.reference is c.entity is None
        assert torch.equal(a.entity, b.entity)
    fifths = Counter((one.key, one.timestep // 200) for one in right)
    assert len(fifths) == 6 * 5
