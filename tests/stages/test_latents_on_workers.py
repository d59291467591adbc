"""The pass over latents on both runners, with small networks of the real classes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load
from small_samples import packed_sample
from small_vae import save_vae

from model.text import build_tiny
from pipeline import storage
from pipeline.clip import Clip, Failed, Measurement, Outcome, clip_id
from pipeline.local_runner import LocalFleet
from pipeline.sample_tar import unpack
from pipeline.units import Batch, Loop, cut
from pipeline.work import Task, Work, WorkerKind
from stages.augment import AugmentSettings
from stages.encoders import LatentsSettings
from stages.latents import Latents
from stages.networks.placement import Placement

if TYPE_CHECKING:
    from pipeline.ray_runner import RayFleet

CAPTIONS = ("A red ball rolls.", "A red ball stops.", "A cube stops.", "A red ball waits.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, texture: Callable[..., np.ndarray]) -> Path:
    """Networks, and four samples, of which one's caption lacks its entity."""
    folder = tmp_path_factory.mktemp("workers")
    save_vae(folder)
    build_tiny(str(folder), CAPTIONS)
    for number, caption in enumerate(CAPTIONS):
        wide = texture(32, 80, number)
        images = np.stack([wide[:, 4 * n : 4 * n + 48] for n in range(5)])
        packed = packed_sample(clip_id(caption), caption, images, texture(32, 48, 9 + number))
        storage.create(str(folder / "samples" / f"{number}.tar"), packed)
    return folder


def stage_of(folder: Path, out: str, device: Literal["cpu", "cuda"] = "cpu") -> Latents:
    where = str(folder)
    settings = LatentsSettings(where, where, 48, 32, max_tokens=12)
    settings = replace(
        settings,
        augment=AugmentSettings(variants=1),
        placement=Placement(device, batch=2),
    )
    return Latents(settings, where, f"{where}/samples", f"{where}/{out}")


def task(folder: Path, number: int) -> Task:
    caption = CAPTIONS[number]
    packed = (folder / "samples" / f"{number}.tar").read_bytes()
    sample = {"name": f"{number}.tar", "sha256": hashlib.sha256(packed).hexdigest()}
    return Task(
        Clip(clip_id(caption), caption, "/nowhere.mp4", caption, caption),
        {"sample": sample, "entities": {"phrase": "red ball"}},
    )


def built(
    folder: Path, out: str, fleet: Callable[[Work], LocalFleet | RayFleet]
) -> dict[str, Outcome]:
    """Caption -> what came of its clip."""
    batches: list[Batch] = []
    with closing(fleet(Work((stage_of(folder, out),), {}))) as workers:
        units = cut([task(folder, number) for number in range(len(CAPTIONS))], 3)
        assert Loop(workers, batches.append, lambda: False).run(units)
    names = {clip_id(caption): caption for caption in CAPTIONS}
    return {names[key]: outcome for batch in batches for key, _, outcome in batch.outcomes}


def name_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Measurement), outcome
    return outcome.values["name"]


@pytest.fixture(scope="module")
def here(folder: Path) -> dict[str, Outcome]:
    return built(folder, "here", lambda work: LocalFleet(work, lambda: False))


def test_a_worker_encodes_what_can_be_encoded(here: dict[str, Outcome]) -> None:
    codes = [each.code if isinstance(each, Failed) else None for each in map(here.get, CAPTIONS)]
    assert codes == [None, None, "entity", None]


@pytest.mark.ray
def test_workers_on_ray_make_the_same_bytes(folder: Path, here: dict[str, Outcome]) -> None:
    from pipeline.ray_runner import RayFleet, cluster

    with cluster():
        there = built(folder, "ray", lambda work: RayFleet(work, [WorkerKind(count=1)]))
    assert there == here
    for caption in (0, 1, 3):
        name = name_of(here[CAPTIONS[caption]])
        assert (folder / "ray" / name).read_bytes() == (folder / "here" / name).read_bytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_gpu_says_what_a_cpu_says(folder: Path, here: dict[str, Outcome]) -> None:
    stage, first = stage_of(folder, "gpu", "cuda"), task(folder, 0)
    stage.setup()
    (outcome,) = stage.measure([first.clip], [None], [first.facts])
    ours, theirs = (
        load(unpack(first.clip.clip_id, (folder / out / name).read_bytes())["safetensors"])
        for out, name in (("gpu", name_of(outcome)), ("here", name_of(here[CAPTIONS[0]])))
    )
    assert set(ours) == {"video", "video_std", "reference", "variants", "text"} == set(theirs)
    for part, tensor in ours.items():
        torch.testing.assert_close(tensor.float(), theirs[part].float(), rtol=0.01, atol=0.01)
