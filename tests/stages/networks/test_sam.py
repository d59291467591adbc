"""Two implementations of SAM cut out the same masks, and company changes none of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import SamPredictor
from segment_anything.utils.transforms import ResizeLongestSide
from torchvision.transforms.v2 import functional as pixel

from jobs.rehearsal.sam import KIND
from pipeline.errors import InputError
from stages.networks.placement import Placement
from stages.networks.sam import SamSettings, load_cutter
from stages.networks.sam_masks import BatchedCutter, Sam, squared, stability
from stages.networks.sam_original import OriginalSam
from stages.networks.sam_transformers import TransformersSam

PACKAGES = ["original", "transformers"]
SIZES = [(60, 90), (200, 100), (60, 90)]
BOXES = [(0.1, 0.2, 0.7, 0.9), (0.0, 0.0, 0.5, 0.5), (0.2, 0.2, 0.6, 0.6)]


@pytest.fixture(scope="module")
def networks(small_cutters: dict[str, SamSettings]) -> dict[str, Sam]:
    return {
        "original": OriginalSam.load(Path(small_cutters["original"].model), KIND, "here"),
        "transformers": TransformersSam.load(Path(small_cutters["transformers"].model), "here"),
    }


def test_both_packages_give_the_same_masks(networks: dict[str, Sam]) -> None:
    """On one set of weights, renamed. transformers' layer norms have another epsilon."""
    pixels = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[10.0, 20, 90, 100], [0, 0, 50, 50], [30, 30, 120, 125]])
    original, other = (networks[package] for package in PACKAGES)
    with torch.inference_mode():
        masks, ious = original.decode(original.encode(pixels), boxes)
        same_masks, same_ious = other.decode(other.encode(pixels), boxes)
    assert masks.shape == (3, 32, 32)
    assert masks.std() > 0.5
    torch.testing.assert_close(masks, same_masks, rtol=0, atol=1e-3)
    torch.testing.assert_close(ious, same_ious, rtol=0, atol=1e-3)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_cutout_is_the_packages_own_single_mask(
    small_cutters: dict[str, SamSettings],
    networks: dict[str, Sam],
    texture: Callable[..., np.ndarray],
    package: str,
) -> None:
    """On pixels resized as ours are; the next test compares these with the package's."""
    predictor = SamPredictor(networks["original"].model)  # type: ignore[arg-type]
    pictures = [texture(*size, seed) for seed, size in enumerate(SIZES)]
    cutouts = BatchedCutter(networks[package], small_cutters[package].placement).cut(
        pictures, BOXES
    )
    for picture, (x0, y0, x1, y1), cutout in zip(pictures, BOXES, cutouts, strict=True):
        height, width = picture.shape[:2]
        resized = pixel.resize(torch.from_numpy(picture).permute(2, 0, 1)[None], _size(picture))
        predictor.set_torch_image(resized, (height, width))
        box = np.array([x0 * width, y0 * height, x1 * width, y1 * height])
        (logits,), (iou,), _ = predictor.predict(
            box=box, multimask_output=False, return_logits=True
        )
        assert cutout.mask.shape == (height, width)
        assert np.mean(cutout.mask == (logits > 0)) > 0.999
        assert cutout.predicted_iou == pytest.approx(iou, abs=1e-3)
        strict, loose = logits > 1, logits > -1
        wanted = np.count_nonzero(strict & loose) / np.count_nonzero(strict | loose)
        assert cutout.stability == pytest.approx(wanted, abs=2e-3)


def _size(picture: np.ndarray) -> list[int]:
    height, width = picture.shape[:2]
    return list(ResizeLongestSide.get_preprocess_shape(height, width, 128))


@pytest.mark.parametrize("size", SIZES[:2])
def test_pixels_are_as_the_package_prepares_them(
    networks: dict[str, Sam], texture: Callable[..., np.ndarray], size: tuple[int, int]
) -> None:
    shown = texture(*size)
    package: Any = networks["original"].model
    resized = torch.from_numpy(ResizeLongestSide(128).apply_image(shown)).permute(2, 0, 1)
    ours = squared(torch.from_numpy(shown).permute(2, 0, 1)[None], 128)[0]
    torch.testing.assert_close(ours, package.preprocess(resized), rtol=0, atol=1.5 / 57)  # a level


@pytest.mark.parametrize("package", PACKAGES)
def test_pictures_of_different_sizes_are_as_they_are_one_by_one(
    small_cutters: dict[str, SamSettings],
    networks: dict[str, Sam],
    texture: Callable[..., np.ndarray],
    package: str,
) -> None:
    cutter = BatchedCutter(networks[package], small_cutters[package].placement)
    pictures = [texture(*size, seed) for seed, size in enumerate(SIZES)]
    for picture, box, found in zip(pictures, BOXES, cutter.cut(pictures, BOXES), strict=True):
        (alone,) = cutter.cut([picture], [box])
        assert np.mean(alone.mask == found.mask) > 0.999
        assert alone.predicted_iou == pytest.approx(found.predicted_iou, abs=1e-4)


def test_stability_is_the_overlap_of_a_strict_and_a_loose_mask() -> None:
    logits = np.random.default_rng(0).normal(0.5, 2, (40, 50))
    strict, loose = logits > 1, logits > -1
    wanted = (strict & loose).sum() / (strict | loose).sum()
    assert stability(torch.from_numpy(logits)) == pytest.approx(wanted)
    assert stability(torch.full((4, 4), -3.0)) == 0.0


def test_no_pictures_are_no_cutouts(small_cutters: dict[str, SamSettings], networks: dict) -> None:
    assert (
        BatchedCutter(networks["original"], small_cutters["original"].placement).cut([], []) == []
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_weights_that_are_not_there_are_named_by_their_setting(
    package: str, tmp_path: Path
) -> None:
    settings = SamSettings(package, str(tmp_path / "none"), kind=KIND)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^segment\.sam\.model: found nothing at"):
        load_cutter(settings)


@pytest.mark.parametrize("package", PACKAGES)
def test_half_precision_moves_the_masks_little(
    small_cutters: dict[str, SamSettings],
    networks: dict[str, Sam],
    texture: Callable[..., np.ndarray],
    package: str,
) -> None:
    pictures = [texture(*size, seed) for seed, size in enumerate(SIZES)]
    whole = BatchedCutter(networks[package], small_cutters[package].placement).cut(pictures, BOXES)
    half = BatchedCutter(networks[package], Placement("cpu", "f16", 2)).cut(pictures, BOXES)
    for one, other in zip(whole, half, strict=True):
        assert one.predicted_iou != other.predicted_iou
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=0.05)
        assert np.mean(one.mask == other.mask) > 0.98


def test_an_encoder_that_the_package_does_not_have_is_refused(
    small_cutters: dict[str, SamSettings],
) -> None:
    with pytest.raises(
        InputError, match=r"^segment\.sam\.kind: found vit_x, wanted one of .*vit_h"
    ):
        load_cutter(replace(small_cutters["original"], kind="vit_x"))


@pytest.mark.parametrize("package", PACKAGES)
def test_weights_that_are_not_whole_are_refused(
    small_cutters: dict[str, SamSettings], package: str, tmp_path: Path
) -> None:
    """Or there would be random numbers in their place."""
    whole = Path(small_cutters[package].model)
    if package == "original":
        less = tmp_path / "less.pth"
        torch.save(dict(list(torch.load(whole, weights_only=True).items())[1:]), less)
    else:
        less = shutil.copytree(whole, tmp_path / "less")
        file = less / "model.safetensors"
        save_file(dict(list(load_file(file).items())[1:]), file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"^segment\.sam\.model: .*(do not fit|lacks)"):
        load_cutter(replace(small_cutters[package], model=str(less)))


def test_a_broken_file_is_one_line(small_cutters: dict[str, SamSettings], tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(Path(small_cutters["original"].model).read_bytes()[:1000])
    with pytest.raises(InputError, match=r"^segment\.sam\.model: .* cannot be read") as raised:
        load_cutter(replace(small_cutters["original"], model=str(broken)))
    assert "\n" not in str(raised.value)
