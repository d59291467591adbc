"""What stands at a position of a run is the same whoever asks for it, and whenever."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_latents import DIM, TOKENS, blob, small_latents, write_latents

from training.course import Course, LoopSettings
from training.dataset import LatentDataset, Latents
from training.held_out import HeldOutSettings, hold_out, split
from training.order import ShuffleSettings, normal
from training.step import Example

WITH = {"codec": "vae", "text": "tiny"}
LOOP = LoopSettings(text_drop=0.3)


def course(url: str) -> Course:
    dataset = LatentDataset(url)
    numbers, aside = split(0, dataset.source_ids, 0.3)
    settings = HeldOutSettings(samples=2, draws=1)
    held = hold_out(0, aside, dataset.source_ids, dataset.__getitem__, settings)
    return Course(dataset, numbers, held, torch.zeros(TOKENS, DIM), with_reference=True)


def same(one: Example, other: Example) -> bool:
    assert one.reference is not None
    assert other.reference is not None
    return (
        (one.key, one.timestep) == (other.key, other.timestep)
        and torch.equal(one.latents, other.latents)
        and torch.equal(one.noise, other.noise)
        and torch.equal(one.text, other.text)
        and torch.equal(one.reference, other.reference)
    )


@pytest.fixture
def full(tmp_path: Path) -> str:
    """12 samples with a spread and three variants each, whose values are their numbers."""
    views = torch.stack([torch.full((16, 4, 6), float(n)) for n in (1, 2, 3)], 1)
    more = {"video_std": torch.full((16, 2, 4, 6), 0.5), "variants": views}
    blobs = {n: (f"s{n}", blob(n, f"s{n}", WITH, more=more)) for n in range(12)}
    return write_latents(tmp_path, blobs)


@pytest.mark.parametrize("shuffle", [ShuffleSettings(), ShuffleSettings(block=2, window=2)])
def test_a_position_says_the_same_in_any_order_and_in_another_process_s_course(
    full: str, shuffle: ShuffleSettings
):
    loop = LoopSettings(text_drop=0.3, shuffle=shuffle)
    one, other = course(full), course(full)
    forwards = [one.example(loop, at) for at in range(20)]
    backwards = [other.example(loop, at) for at in reversed(range(20))][::-1]
    assert all(map(same, forwards, backwards))


def stored(trained: Course, key: str) -> Latents:
    """The sample of this key."""
    (sample,) = [trained.samples[n] for n in trained.numbers if trained.samples[n].key == key]
    return sample


def test_a_sample_is_drawn_anew_each_time_and_seen_in_every_view(full: str):
    trained = course(full)
    count = len(trained.numbers)
    seen = [trained.example(LOOP, at) for at in range(20 * count)]
    views = Counter(float(one.reference.mean()) for one in seen if one.reference is not None)
    assert set(views) >= {1.0, 2.0, 3.0}
    assert 0.65 < sum(views[n] for n in (1.0, 2.0, 3.0)) / len(seen) < 0.85
    draws = torch.stack([one.latents for one in seen if one.key == seen[0].key])
    assert len({draw.numpy().tobytes() for draw in draws}) == 20
    mean = stored(trained, seen[0].key).video
    torch.testing.assert_close((draws - mean).mean(), torch.tensor(0.0), rtol=0, atol=0.05)
    torch.testing.assert_close((draws - mean).std(), torch.tensor(0.5), rtol=0, atol=0.05)


def test_without_spread_and_variants_an_example_is_what_it_was_before_there_were_any(
    tmp_path: Path,
):
    """So the runs of a codec without a spread keep their numbers."""
    trained = course(small_latents(tmp_path))
    for at in range(10):
        example = trained.example(LOOP, at)
        sample = stored(trained, example.key)
        noise = normal(f"noise/0/0/{at}/{example.key}", sample.video.shape)
        assert example.reference is not None
        assert torch.equal(example.latents, sample.video)
        assert torch.equal(example.reference, sample.reference)
        assert torch.equal(example.noise, torch.from_numpy(noise))
