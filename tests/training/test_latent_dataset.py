import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch
import torch
from small_latents import PICTURES, blob, key, small_latents, write_latents
from torch import Tensor

from pipeline import shards, storage
from pipeline.errors import InputError
from pipeline.sample_tar import MEMBERS, pack
from pipeline.shards import read_index
from training.dataset import LatentDataset, Latents
from training.order import normal

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


@pytest.mark.filterwarnings("error")
def test_reading_warns_of_nothing(tmp_path: Path):
    dataset = LatentDataset(small_latents(tmp_path))
    torch.set_warn_always(True)
    try:
        assert dataset[0].video.shape == (2, 16, 4, 6)
    finally:
        torch.set_warn_always(False)


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


def _one(folder: Path, **more: Tensor) -> Latents:
    return LatentDataset(write_latents(folder, {0: ("s", blob(0, "s", WITH, more=more))}))[0]


def test_latents_are_drawn_from_the_posterior_by_name(tmp_path: Path):
    spread = torch.rand(16, 2, 4, 6, generator=torch.Generator().manual_seed(0)).half()
    sample = _one(tmp_path, video_std=spread)
    noise = torch.from_numpy(normal("posterior/0/1/2/key", sample.video.shape))
    wanted = sample.video + spread.float().transpose(0, 1) * noise
    torch.testing.assert_close(sample.drawn("0/1/2/key"), wanted)
    assert torch.equal(sample.drawn("a"), sample.drawn("a"))
    draws = torch.stack([sample.drawn(f"{number}") for number in range(2000)])
    torch.testing.assert_close(draws.mean(0), sample.video, rtol=0, atol=0.1)
    torch.testing.assert_close(draws.std(0), spread.float().transpose(0, 1), rtol=0.1, atol=0.02)


def test_without_a_spread_the_draw_is_the_latents_to_the_bit(tmp_path: Path):
    sample = _one(tmp_path)
    assert sample.std is None
    assert torch.equal(sample.drawn("a"), sample.video)


def test_chance_picks_the_reference_and_each_of_its_variants_alike(tmp_path: Path):
    others = torch.stack([torch.full((16, 4, 6), float(n)) for n in (1, 2, 3)], 1)
    sample = _one(tmp_path, variants=others)
    views = [sample.view(chance / 8) for chance in range(8)]
    assert {view.shape for view in views} == {sample.reference.shape}
    assert all(torch.equal(view, sample.reference) for view in views[:2])
    assert [float(view.mean()) for view in views[2:]] == [1, 1, 2, 2, 3, 3]
    assert torch.equal(_one(tmp_path / "none").view(0.99), sample.reference)


def test_what_is_read_is_what_safetensors_reads(tmp_path: Path):
    content = blob(3, "s", WITH, more={"video_std": torch.rand(16, 2, 4, 6)})
    theirs = safetensors.torch.load(content)
    sample = LatentDataset(write_latents(tmp_path, {3: ("s", content)}))[0]
    assert sample.std is not None
    for name, ours in (("video", sample.video), ("video_std", sample.std)):
        assert torch.equal(ours, theirs[name].float().transpose(0, 1))
    assert torch.equal(sample.text, theirs["text"].float())


@pytest.mark.parametrize("said", [{}, {"format": "2"}])
def test_latents_of_another_format_are_refused_in_one_line(tmp_path: Path, said: dict[str, str]):
    parts = {"video": torch.zeros(16, 2, 4, 6), "reference": torch.zeros(16, 1, 4, 6)}
    content = safetensors.torch.save({**parts, "text": torch.zeros(2, 2)}, {"key": "k", **said})
    with pytest.raises(InputError, match=r"format (2|before 3), wanted 3; make them again: python"):
        LatentDataset(write_latents(tmp_path, {0: ("s", content)}))


def test_shards_of_samples_in_the_place_of_latents_are_named(tmp_path: Path):
    """The folder beside it, taken by mistake."""
    (tmp_path / "packed").mkdir()
    packed = pack(key(0), dict.fromkeys(MEMBERS, b"x"))
    (tmp_path / "packed" / "a").write_bytes(packed)
    sha = hashlib.sha256(packed).hexdigest()
    row = {"clip_id": key(0), "source_id": "s", "address": sha, "name": "a", "sha256": sha}
    url = str(tmp_path / "shards")
    shards.build(pa.Table.from_pylist([row]), str(tmp_path / "packed"), url)
    with pytest.raises(InputError, match=r"json, mask.png, mp4, reference.png and no latents"):
        LatentDataset(url)


def test_an_object_store_gives_the_same_samples_as_a_folder(tmp_path: Path):
    local = small_latents(tmp_path)
    url = f"memory://{tmp_path.name}/latents"
    for name in storage.names(local):
        storage.write(f"{url}/{name}", storage.read(f"{local}/{name}"))
    here, there = LatentDataset(local), LatentDataset(url)
    assert (here.keys, here.dataset_id) == (there.keys, there.dataset_id)
    for number in range(len(here)):
        assert torch.equal(here[number].video, there[number].video)
        assert torch.equal(here[number].text, there[number].text)


def test_a_bit_that_changed_is_named_with_its_sample_and_shard(tmp_path: Path):
    url = small_latents(tmp_path)
    dataset = LatentDataset(url)
    (last,) = [row for row in read_index(url).to_pylist() if row["key"] == dataset.keys[-1]]
    file = Path(url, last["shard"])
    content = bytearray(file.read_bytes())
    content[last["offset"] + last["size"] // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{last['shard']}: sample {last['key']}: .*sha256"):
        dataset[len(dataset) - 1]
