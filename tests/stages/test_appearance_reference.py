"""Appearance by CLIP and LAION's head, on small ones of the same classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel

from jobs.rehearsal.clip import WIDTH, save_clip, save_head
from pipeline.clip import Clip, Failed, Measurement
from pipeline.decode import read_frames
from pipeline.errors import InputError
from pipeline.frames import Frames
from pipeline.ledger import Ledger
from pipeline.stage import fingerprints
from stages.appearance import Appearance, AppearanceSettings
from stages.networks.placement import Placement

Texture = Callable[..., np.ndarray]
STEP = 12


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> AppearanceSettings:
    folder = tmp_path_factory.mktemp("weights")
    return AppearanceSettings(
        "reference",
        model=str(save_clip(folder / "clip")),
        head=str(save_head(folder / "head.pth")),
        placement=Placement("cpu"),
    )


@pytest.fixture(scope="module")
def stage(settings: AppearanceSettings) -> Appearance:
    stage = Appearance(settings)
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory, render: Callable[..., Path], texture: Texture
) -> list[Frames]:
    """Three clips of 24 fps, as the decoder serves them: wide, tall, and one of a single frame."""
    folder, request = tmp_path_factory.mktemp("clips"), Appearance(AppearanceSettings("reference"))
    clips = []
    for number, (height, width, count) in enumerate(
        ((240, 320, 30), (320, 240, 41), (240, 320, 1))
    ):
        ground = texture(height, width + 4 * count, seed=number)
        images = [ground[:, 4 * n : 4 * n + width] for n in range(count)]
        path = render(folder / f"{number}.mp4", images)
        assert request.frames is not None
        clips.append(served(read_frames(str(path), request.frames.each())))
    return clips


def served(both: list[Frames]) -> Frames:
    return replace(both[0], also=both[1])


def clip(**published: float) -> Clip:
    return Clip("id", "a.mp4", "a.mp4", "", "", published)


def values(stage: Appearance, frames: Frames, **published: float) -> dict[str, Any]:
    (outcome,) = stage.measure([clip(**published)], [frames], [{}])
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Appearance.columns.names)
    return dict(outcome.values)


def by_transformers(settings: AppearanceSettings, images: np.ndarray) -> np.ndarray:
    """(N, WIDTH) float64 of length 1, from PIL pictures one by one."""
    model: Any = CLIPModel.from_pretrained(settings.model).eval()
    cut = CLIPImageProcessorPil.from_pretrained(settings.model)
    rows = []
    for image in images:
        with torch.inference_mode():
            seen = model.get_image_features(**cut(Image.fromarray(image), return_tensors="pt"))
        rows.append(seen.pooler_output[0].double().numpy())
    return np.stack([row / np.linalg.norm(row) for row in rows])


def test_the_measures_are_those_of_transformers_and_the_layers_in_float64(
    stage: Appearance, settings: AppearanceSettings, seen: list[Frames]
) -> None:
    frames = seen[1].also
    assert frames is not None
    assert frames.numbers == (0, 12, 20, 24, 36, 40)  # half a second apart, the middle, the last
    found, rows = values(stage, seen[1]), by_transformers(settings, frames.images)
    apart = rows[[0, 1, 3, 4, 5]]
    cosines = (apart[:-1] * apart[1:]).sum(1)
    assert found["consistency_mean"] == pytest.approx(cosines.mean(), abs=1e-4)
    assert found["consistency_min"] == pytest.approx(cosines.min(), abs=1e-4)
    scores = rows[[0, 2, 5]]
    for layer in (0, 2, 4):
        state = torch.load(settings.head, weights_only=True)
        weight, bias = (state[f"layers.{layer}.{n}"].double().numpy() for n in ("weight", "bias"))
        scores = scores @ weight.T + bias
    np.testing.assert_allclose(found["aesthetic_frames"], scores[:, 0], atol=1e-3)
    assert found["aesthetic"] == pytest.approx(np.mean(found["aesthetic_frames"]))
    assert found["aesthetic_source"] == "clip"
    middle = apart.mean(0) / np.linalg.norm(apart.mean(0))
    assert len(found["embedding"]) == WIDTH
    assert float(np.dot(found["embedding"], middle)) > 0.999


def test_cuts_are_found_as_the_cpu_backend_finds_them(
    stage: Appearance, seen: list[Frames]
) -> None:
    cpu = Appearance()
    cpu.setup()
    for column in ("min_intersection", "cut_frame", "max_content_change"):
        assert values(stage, seen[0])[column] == values(cpu, seen[0])[column]


def test_clips_of_all_sizes_are_measured_together_as_one_by_one(
    stage: Appearance, seen: list[Frames]
) -> None:
    order = [seen[0], seen[2], seen[1], seen[0]]
    first, short, second, again = stage.measure([clip()] * 4, order, [{}] * 4)
    assert isinstance(short, Failed)
    assert short.code == "too_short"
    for outcome, frames in ((first, seen[0]), (second, seen[1]), (again, seen[0])):
        assert isinstance(outcome, Measurement)
        for column, alone in values(stage, frames).items():
            together = outcome.values[column]
            if isinstance(alone, str):
                assert together == alone
            else:
                np.testing.assert_allclose(
                    together, alone, atol=1e-3 if column == "embedding" else 1e-5
                )


def test_the_published_score_is_taken_unless_the_run_asks_for_its_own(
    stage: Appearance, settings: AppearanceSettings, seen: list[Frames]
) -> None:
    own = Appearance(replace(settings, published=False))
    own.setup()
    score = {"aesthetic score": 7.5}
    taken, measured = values(stage, seen[0], **score), values(own, seen[0], **score)
    assert (taken["aesthetic"], taken["aesthetic_source"]) == (7.5, "published")
    assert measured["aesthetic_source"] == "clip"
    assert taken["aesthetic_frames"] == measured["aesthetic_frames"]


def test_facts_come_out_of_the_ledger_as_they_went_in(
    stage: Appearance, seen: list[Frames], tmp_path: Path
) -> None:
    found = values(stage, seen[0])
    ledger = Ledger(str(tmp_path), [stage])
    ledger.append({"appearance": [("id", Measurement(found))]})
    (row,) = Ledger(str(tmp_path), [stage]).facts("appearance").to_pylist()
    assert {name: row[name] for name in found} == found


def test_the_fingerprint_names_what_changes_the_numbers(settings: AppearanceSettings) -> None:
    def of(settings: AppearanceSettings) -> str:
        return fingerprints([Appearance(settings)])["appearance"]

    assert of(settings) == of(replace(settings, placement=Placement("cuda", "f32", 8)))
    others = [
        replace(settings, placement=Placement(dtype="bf16")),
        replace(settings, revision="main"),
        replace(settings, published=False),
        AppearanceSettings(),
    ]
    assert len({of(settings), *map(of, others)}) == 5
    # What only the other backend reads changes nothing.
    assert of(AppearanceSettings(model="another", published=False)) == of(AppearanceSettings())


@pytest.mark.parametrize("setting", ["model", "head"])
def test_missing_weights_name_their_setting(settings: AppearanceSettings, setting: str) -> None:
    stage = Appearance(replace(settings, **{setting: "/nowhere/at/all"}))
    with pytest.raises(InputError, match=rf"appearance\.{setting}: found nothing at"):
        stage.setup()


def test_a_head_of_another_model_is_refused(settings: AppearanceSettings, tmp_path: Path) -> None:
    head = str(save_head(tmp_path / "wide.pth", width=WIDTH + 1))
    with pytest.raises(InputError, match=r"appearance\.head: .* takes 25 numbers and .* gives 24"):
        Appearance(replace(settings, head=head)).setup()


def test_what_overflows_in_half_precision_has_failed_and_is_not_ugly(
    settings: AppearanceSettings, seen: list[Frames], tmp_path: Path
) -> None:
    head = torch.load(settings.head, weights_only=True)
    torch.save({**head, "layers.4.bias": torch.tensor([torch.inf])}, tmp_path / "head.pth")
    stage = Appearance(replace(settings, head=str(tmp_path / "head.pth")))
    stage.setup()
    (outcome,) = stage.measure([clip()], [seen[0]], [{}])
    assert isinstance(outcome, Failed)
    assert outcome.code == "not_finite"
