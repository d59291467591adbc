"""Two implementations of Grounding DINO find the same boxes, and company changes none of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from groundingdino.datasets import transforms as package_transforms
from PIL import Image
from transformers import AutoTokenizer, GroundingDinoForObjectDetection

from pipeline.errors import InputError
from stages.networks.grounding import GroundingSettings, load_detector
from stages.networks.grounding_boxes import (
    BatchedDetector,
    Grounding,
    caption_of,
    chosen,
    network_size,
    prepared,
)
from stages.networks.grounding_original import OriginalGrounding
from stages.networks.grounding_transformers import TransformersGrounding

CAPTIONS = ["cat.", "a red toy frog.", "ball. cat."]
PACKAGES = ["original", "transformers"]


@pytest.fixture(scope="module")
def networks(small_detectors: dict[str, GroundingSettings]) -> dict[str, Grounding]:
    original, ours = small_detectors["original"], small_detectors["transformers"]
    return {
        "original": OriginalGrounding.load(
            Path(original.model), Path(original.text), original.config, "here"
        ),
        "transformers": TransformersGrounding.load(Path(ours.model), "here"),
    }


@pytest.fixture
def detector(
    small_detectors: dict[str, GroundingSettings], networks: dict[str, Grounding]
) -> Callable[..., BatchedDetector]:
    return lambda package, **changes: BatchedDetector(
        networks[package], replace(small_detectors[package], **changes)
    )


def answers(network: Grounding, captions: list[str], pixels: torch.Tensor) -> list[torch.Tensor]:
    """Logits with 0 for no token, and boxes."""
    network.model.eval()
    with torch.inference_mode():
        logits, boxes = network(pixels, captions)
    return [torch.where(logits.isfinite(), logits, 0.0), boxes]


def pixels(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 96, 128, generator=torch.Generator().manual_seed(1))


def test_both_packages_give_the_same_boxes(networks: dict[str, Grounding]) -> None:
    """On one set of weights, renamed; a batch of different captions, one of two phrases."""
    logits, boxes = answers(networks["original"], CAPTIONS, pixels(3))
    same_logits, same_boxes = answers(networks["transformers"], CAPTIONS, pixels(3))
    assert logits.std() > 1
    assert boxes.std() > 0.1
    torch.testing.assert_close(logits, same_logits, rtol=0, atol=1e-3)
    torch.testing.assert_close(boxes, same_boxes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_caption_is_understood_alike_alone_and_among_others(
    networks: dict[str, Grounding], package: str
) -> None:
    logits, boxes = answers(networks[package], CAPTIONS, pixels(3))
    for i, caption in enumerate(CAPTIONS):
        alone = answers(networks[package], [caption], pixels(3)[i : i + 1])
        torch.testing.assert_close(logits[i], alone[0][0], rtol=0, atol=1e-3)
        torch.testing.assert_close(boxes[i], alone[1][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("package", PACKAGES)
def test_pictures_of_different_sizes_are_as_they_are_one_by_one(
    detector: Callable[..., BatchedDetector], texture: Callable[..., np.ndarray], package: str
) -> None:
    sizes = [(60, 90), (90, 60), (60, 90), (50, 50)]
    pictures = [texture(*size, seed) for seed, size in enumerate(sizes)]
    entities = ["cat", "Toy Frog", "red ball", "a cat"]
    finds = detector(package)
    together = finds.detect(pictures, entities)
    assert all(together)
    for picture, entity, found in zip(pictures, entities, together, strict=True):
        (alone,) = finds.detect([picture], [entity])
        assert [box.phrase for box in found] == [box.phrase for box in alone]
        np.testing.assert_allclose(
            [(*box.box, box.score) for box in found],
            [(*box.box, box.score) for box in alone],
            atol=1e-4,
        )


def test_what_is_found_is_within_the_picture_best_first_and_in_the_words_asked(
    detector: Callable[..., BatchedDetector], texture: Callable[..., np.ndarray]
) -> None:
    (found,) = detector("transformers", text_threshold=0.0).detect([texture(60, 90)], ["Red Ball"])
    assert [box.score for box in found] == sorted((box.score for box in found), reverse=True)
    corners = [box.box for box in found]
    assert all(0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1 for x0, y0, x1, y1 in corners)
    assert {box.phrase for box in found} == {"red ball"}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_above_the_threshold_is_nothing_found(
    detector: Callable[..., BatchedDetector], texture: Callable[..., np.ndarray], package: str
) -> None:
    assert detector(package, box_threshold=1.0).detect([texture(60, 90)], ["cat"]) == [[]]


def test_without_a_name_nothing_is_looked_for(
    detector: Callable[..., BatchedDetector], texture: Callable[..., np.ndarray]
) -> None:
    found = detector("transformers").detect([texture(60, 90)] * 2, [" . ", "cat"])
    assert found[0] == []
    assert found[1]


def test_a_name_becomes_one_phrase() -> None:
    assert caption_of("Toy Frog") == "toy frog."
    assert caption_of(" St. Bernard?\n") == "st bernard."
    assert caption_of("") == ""


def test_overlapping_boxes_are_dropped_as_a_plain_loop_drops_them() -> None:
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0.4, 0.6, (80, 2)), rng.uniform(0.2, 0.4, (80, 2))])
    logits = rng.normal(0, 2, (80, 5))
    settings = GroundingSettings(box_threshold=0.6, nms_iou=0.5)
    corners, words = chosen(torch.from_numpy(logits), torch.from_numpy(boxes), settings)
    scores = 1 / (1 + np.exp(-logits.max(1)))
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    kept: list[int] = []
    for i in np.argsort(-scores):
        if scores[i] <= 0.6:
            break
        shared = [
            np.prod(np.clip(np.minimum(high[i], high[k]) - np.maximum(low[i], low[k]), 0, None))
            for k in kept
        ]
        areas = [np.prod(boxes[i, 2:]) + np.prod(boxes[k, 2:]) for k in kept]
        if all(s / (a - s) <= 0.5 for s, a in zip(shared, areas, strict=True)):
            kept.append(int(i))
    assert 3 < len(kept) < (scores > 0.6).sum()
    np.testing.assert_allclose(corners, np.hstack([low, high])[kept], atol=1e-12)
    np.testing.assert_allclose(words.amax(-1), scores[kept], atol=1e-12)


@pytest.mark.parametrize("size", [(1080, 1920), (720, 406), (333, 2000), (500, 500)])
def test_pictures_are_resized_as_the_package_does(size: tuple[int, int]) -> None:
    height, width = size
    resized: Any = package_transforms.resize(Image.new("RGB", (width, height)), None, 800, 1333)[0]
    assert network_size(size, 800, 1333) == (resized.height, resized.width)


def test_pixels_are_as_the_package_prepares_them(texture: Callable[..., np.ndarray]) -> None:
    shown = texture(90, 120)
    steps = package_transforms.Compose(
        [
            package_transforms.RandomResize([60], max_size=100),
            package_transforms.ToTensor(),
            package_transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    wanted, _ = steps(Image.fromarray(shown), None)
    ours = prepared(torch.from_numpy(shown).permute(2, 0, 1)[None], (60, 80))[0]
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1.5 / 255 / 0.224)  # a grey level


def test_attention_that_would_ignore_the_captions_mask_is_refused(
    small_detectors: dict[str, GroundingSettings],
) -> None:
    folder = small_detectors["transformers"].model
    model = GroundingDinoForObjectDetection.from_pretrained(folder, attn_implementation="eager")
    with pytest.raises(RuntimeError, match="eager"):
        TransformersGrounding(model, AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("key", ["model", "text", "config"])
def test_what_is_not_there_is_named_by_its_setting(
    small_detectors: dict[str, GroundingSettings], key: str, tmp_path: Path
) -> None:
    missing = replace(small_detectors["original"], **{key: str(tmp_path / "none.json")})
    with pytest.raises(InputError, match=rf"^segment\.detector\.{key}: found no"):
        load_detector(missing)


def test_a_folder_without_a_vocabulary_is_refused(
    small_detectors: dict[str, GroundingSettings], tmp_path: Path
) -> None:
    """Of nothing, transformers makes a tokenizer that knows no word."""
    shutil.copy(Path(small_detectors["original"].text, "config.json"), tmp_path)
    with pytest.raises(InputError, match=r"^segment\.detector\.text: found no tokenizer"):
        load_detector(replace(small_detectors["original"], text=str(tmp_path)))


def test_who_asks_again_gets_the_same_network(
    small_detectors: dict[str, GroundingSettings],
) -> None:
    loaded = load_detector(small_detectors["transformers"])
    assert load_detector(replace(small_detectors["transformers"])) is loaded


def test_weights_of_another_network_are_refused(
    small_detectors: dict[str, GroundingSettings], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    written = Path(small_detectors["original"].config).read_text()
    other.write_text(written.replace('"num_queries": 20', '"num_queries": 10'))
    with pytest.raises(InputError, match=r"^segment\.detector\.model: .* do not fit"):
        load_detector(replace(small_detectors["original"], config=str(other)))
