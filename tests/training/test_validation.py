"""Validation videos: there, from fixed seeds, and no step of the training is another for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_latents import DIM, TOKENS, small_latents
from small_training import quiet
from small_transformer import SMALL, base_of
from torch import Tensor

from model.codec import DctCodec
from model.config import AdapterConfig, SamplingConfig
from model.extra_frame import open_model
from model.weights import Base
from pipeline import video
from pipeline.errors import InputError
from training.course import Course, LoopSettings
from training.dataset import LatentDataset
from training.held_out import HeldOutSettings, hold_out
from training.metrics import ANEW, read_metrics
from training.objective import noise_schedule
from training.step import OptimizerSettings, Training
from training.trainer import Told, Trainer
from training.validation import Validation, ValidationSettings, preview
from training.weights import AdapterWeights
from training.world import World

LOOP = LoopSettings(steps=4, global_batch=2, batch=2)
SETTINGS = ValidationSettings(every=2, samples=3, sampling=SamplingConfig(steps=3))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LatentDataset:
    torch.set_num_threads(1)
    return LatentDataset(small_latents(tmp_path_factory.mktemp("latents"), count=12))


def _train(folder: Path, dataset: LatentDataset, settings: ValidationSettings) -> dict[str, Tensor]:
    """The trained weights."""
    config = replace(SMALL, text_embed_dim=DIM, max_text_seq_length=TOKENS)
    model = open_model(base_of(config), AdapterConfig(rank=3, alpha=6))
    held = HeldOutSettings(samples=4, draws=1, every=2)
    course = Course(
        dataset,
        range(8),
        hold_out(0, range(8, 12), dataset.source_ids, dataset.__getitem__, held),
        torch.zeros(TOKENS, DIM),
        with_reference=True,
    )
    trained, rate = model.optimised_parameters(), OptimizerSettings(learning_rate=1e-2)
    training = Training(model, trained, noise_schedule(), rate)
    told = Told(validation=_validation(folder, model, course, settings))
    weights = AdapterWeights(model, Base("small", "", "0"), {})
    trainer = Trainer(folder, training, weights, course, LOOP, {}, told)
    assert trainer.run(lambda: 0, quiet).done
    return dict(trained)


def _validation(folder, model, course, settings, world=World()) -> Validation:
    return Validation(
        str(folder),
        model,
        course.held_out.samples,
        course.null_text,
        settings,
        1.0,
        _decoded,
        world,
    )


def _decoded(latents: Tensor) -> np.ndarray:
    with torch.no_grad():
        pixels = DctCodec().decode(latents.transpose(0, 1)[None])[0]
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()


def test_a_training_with_videos_is_the_same_to_the_bit(dataset: LatentDataset, tmp_path: Path):
    torch.manual_seed(7)
    here = _train(tmp_path / "with", dataset, SETTINGS)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    there = _train(tmp_path / "without", dataset, replace(SETTINGS, every=0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(here[name], weight) for name, weight in there.items())
    assert not (tmp_path / "without" / "validation").exists()
    with_videos, without = (
        [
            {name: value for name, value in line.items() if name not in ANEW}
            for line in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("with", "without")
    )
    assert with_videos == without


def test_every_sample_has_a_video_and_a_sheet_of_each_time(dataset: LatentDataset, tmp_path: Path):
    _train(tmp_path, dataset, SETTINGS)
    folders = sorted((tmp_path / "validation").iterdir())
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004"]
    for folder in folders:
        videos = [video.decode(file.read_bytes()) for file in sorted(folder.glob("*.mp4"))]
        assert [one.shape for one in videos] == [(5, 32, 48, 3)] * 3
        sheets = [Image.open(file) for file in folder.glob("*.png")]
        assert [sheet.size for sheet in sheets] == [(5 * 48, 2 * 32)] * 3
    first, last = folders
    files = [file.name for file in first.glob("*.mp4")]
    assert all((first / name).read_bytes() != (last / name).read_bytes() for name in files)


def test_workers_share_the_samples_and_make_as_many_passes(dataset: LatentDataset, tmp_path: Path):
    config = replace(SMALL, text_embed_dim=DIM, max_text_seq_length=TOKENS)
    model = open_model(base_of(config), AdapterConfig(rank=3, alpha=6))
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    course = Course(
        dataset,
        range(8),
        hold_out(0, range(8, 12), dataset.source_ids, dataset.__getitem__, HeldOutSettings()),
        torch.zeros(TOKENS, DIM),
        with_reference=True,
    )
    alone = _validation(tmp_path, model, course, SETTINGS).sampled()
    found: dict[int, Tensor] = {}
    counts = []
    for rank in range(2):
        passes.clear()
        found |= _validation(tmp_path, model, course, SETTINGS, World(rank, 2)).sampled()
        counts.append(len(passes))
    assert counts[0] == counts[1] > 0
    assert found.keys() == alone.keys() == {0, 1, 2}
    assert all(torch.equal(found[number], latents) for number, latents in alone.items())


def test_without_a_codec_the_latents_are_shown():
    latents = torch.zeros(2, 16, 3, 4)
    latents[1, 0] = 9.0
    images = preview(latents)
    assert images.shape == (2, 24, 32, 3)
    assert (images[0] == 128).all()
    assert images[1, 0, 0].tolist() == [255, 128, 128]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="found every -1 and samples 4"):
        ValidationSettings(every=-1)
