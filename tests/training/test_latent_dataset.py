from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_latents import PICTURES, blob, key, small_latents, write_latents

from pipeline.errors import InputError
from training.dataset import LatentDataset

WITH = {"codec": "dct", "text": "tiny"}


def test_a_sample_comes_back_as_it_was_encoded(tmp_path: Path):
    dataset = LatentDataset(small_latents(tmp_path))
    assert len(dataset) == 24
    number = dataset.keys.index(key(5))
    sample = dataset[number]
    assert (sample.key, sample.source_id, sample.entity) == (key(5), "source 2", "ball")
    assert sample.entity_tokens == (1,)
    assert sample.video.shape == (2, 16, 4, 6)
    assert sample.reference.shape == (1, 16, 4, 6)
    assert sample.text.shape == (12, 16)
    assert {t.dtype for t in (sample.video, sample.reference, sample.text)} == {torch.float32}
    assert torch.equal(sample.video[1:], sample.reference)
    assert dataset.made_with == {**WITH, **PICTURES}


def test_the_order_is_that_of_the_keys_however_the_shards_are_cut(tmp_path: Path):
    blobs = {n: (f"s{n}", blob(n, f"s{n}", WITH)) for n in range(20)}
    few = LatentDataset(write_latents(tmp_path / "few", blobs, most=100))
    many = LatentDataset(write_latents(tmp_path / "many", blobs, most=3))
    assert few.keys == many.keys == sorted(map(key, range(20)))
    assert few.source_ids == many.source_ids


def test_threads_may_read_at_once(tmp_path: Path):
    dataset = LatentDataset(small_latents(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(dataset.__getitem__, [*range(24)] * 4))
    assert [sample.key for sample in read] == dataset.keys * 4


def test_no_latents_is_said_in_one_line(tmp_path: Path):
    with pytest.raises(InputError, match=r"nothing: found no latents; run `python -m jobs.latents"):
        LatentDataset(str(tmp_path / "nothing"))


@pytest.mark.parametrize("what", ["codec", "text", "interval", "reference_version"])
def test_latents_of_two_kinds_are_refused(tmp_path: Path, what: str):
    other = {**WITH, what: "another"}
    kinds = [WITH if n < 3 else other for n in range(6)]
    url = write_latents(tmp_path, {n: ("s", blob(n, "s", kind)) for n, kind in enumerate(kinds)})
    dataset = LatentDataset(url)
    with pytest.raises(InputError, match=f"has the {what} (another|dct|tiny|3|1), others"):
        list(map(dataset.__getitem__, range(6)))


def test_latents_of_two_sizes_are_refused(tmp_path: Path):
    blobs = {n: ("s", blob(n, "s", WITH, frames=2 + n)) for n in range(2)}
    dataset = LatentDataset(write_latents(tmp_path, blobs))
    with pytest.raises(InputError, match=r"has latents of \(\d, 16, 4, 6\), others"):
        list(map(dataset.__getitem__, range(2)))


@pytest.mark.parametrize("content", [b"", b"rubbish", blob(0, "s", {"codec": "dct"})])
def test_damaged_latents_are_named(tmp_path: Path, content: bytes):
    with pytest.raises(InputError, match=f"sample {key(0)}: damaged latents"):
        LatentDataset(write_latents(tmp_path, {0: ("s", content)}))
