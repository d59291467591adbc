"""CLIP's embeddings, against transformers' own way of taking them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPModel

from jobs.rehearsal.clip import WIDTH, save_clip
from pipeline.errors import InputError
from pipeline.weights import Weights
from stages.networks.clip import ClipImages
from stages.networks.placement import Placement

Texture = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def embedder(folder: Path, dtype: Literal["f32", "bf16"] = "f32", batch: int = 32) -> ClipImages:
    return ClipImages(Weights(str(folder), "appearance.model"), Placement("cpu", dtype, batch))


@pytest.fixture(scope="module")
def pictures(texture: Texture) -> list[np.ndarray]:
    """Wide, tall and small ones, finely grained: the sizes of three clips."""
    sizes = ((320, 576, 3), (570, 320, 2), (200, 240, 1))
    return [
        np.stack([texture(height, width, seed=n)[:, :, ::-1] for n in range(count)])
        for height, width, count in sizes
    ]


def test_the_embeddings_are_those_of_transformers_on_pil_pictures(
    folder: Path, pictures: list[np.ndarray]
) -> None:
    """The pictures differ by a grey level at most, as torch and PIL round; the cosine by 1e-4."""
    model: Any = CLIPModel.from_pretrained(folder).eval()
    cut = CLIPImageProcessorPil.from_pretrained(folder)
    found = embedder(folder).embed(pictures)
    for clip, embeddings in zip(pictures, found, strict=True):
        pixels = cut([Image.fromarray(picture) for picture in clip], return_tensors="pt")
        with torch.inference_mode():
            theirs = model.get_image_features(**pixels).pooler_output.double().numpy()
        theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
        assert embeddings.shape == (len(clip), WIDTH)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
        assert (embeddings * theirs).sum(1).min() > 1 - 1e-4


def test_pictures_are_cut_as_pil_cuts_them(folder: Path, pictures: list[np.ndarray]) -> None:
    processor = embedder(folder)._processor
    theirs = CLIPImageProcessorPil.from_pretrained(folder)
    grey_level = 1 / 255 / min(processor.image_std)
    for clip in pictures:
        ours = processor(images=torch.from_numpy(clip).permute(0, 3, 1, 2), return_tensors="pt")
        pil = theirs([Image.fromarray(picture) for picture in clip], return_tensors="pt")
        moved = (ours["pixel_values"] - pil["pixel_values"]).abs()
        assert moved.max() < 1.01 * grey_level


def test_the_preprocessor_of_the_folder_is_asked(
    tmp_path: Path, pictures: list[np.ndarray]
) -> None:
    other = save_clip(tmp_path)
    before = embedder(other).embed(pictures[:1])[0]
    file = other / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_mean": [0.9, 0.1, 0.5]}))
    assert np.abs(embedder(other).embed(pictures[:1])[0] - before).max() > 0.01


def test_batches_change_nothing(folder: Path, pictures: list[np.ndarray]) -> None:
    together = embedder(folder).embed(pictures)
    by_two = embedder(folder, batch=2).embed(pictures)
    alone = [embedder(folder).embed([clip])[0] for clip in pictures]
    for first, second, third in zip(together, by_two, alone, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)
        np.testing.assert_allclose(first, third, atol=1e-6)


def test_half_precision_keeps_the_direction(folder: Path, pictures: list[np.ndarray]) -> None:
    whole = np.concatenate(embedder(folder).embed(pictures))
    half = np.concatenate(embedder(folder, dtype="bf16").embed(pictures))
    assert half.dtype == np.float32
    assert (whole * half).sum(1).min() > 0.999


def test_a_folder_without_a_model_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"appearance\.model: found no \*\.safetensors in"):
        embedder(tmp_path)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    """Left alone, transformers would go on with random numbers."""
    file = save_clip(tmp_path) / "model.safetensors"
    state = load_file(file)
    del state["visual_projection.weight"]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of the .* CLIPModel, such as visual_projection"):
        embedder(tmp_path)
