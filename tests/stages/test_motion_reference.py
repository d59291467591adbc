"""Motion by RAFT, on random weights of torchvision's smaller network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import optical_flow

from pipeline.clip import Clip, Failed, Measurement
from pipeline.errors import InputError
from pipeline.frames import Frames
from pipeline.stage import fingerprints
from stages.motion import Motion, MotionSettings
from stages.networks.placement import Placement

Texture = Callable[..., np.ndarray]
CLIP = Clip("id", "a.mp4", "", "", "")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> MotionSettings:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "raft_small.pth"
    torch.save(optical_flow.raft_small(weights=None).state_dict(), file)
    placement = Placement("cpu", batch=3)
    return MotionSettings(
        "reference", network="raft_small", model=str(file), updates=2, placement=placement
    )


@pytest.fixture(scope="module")
def stage(settings: MotionSettings) -> Motion:
    stage = Motion(settings)
    stage.setup()
    return stage


def sliding(texture: Texture, height: int, width: int, numbers: tuple[int, ...]) -> Frames:
    """A texture that slides 4 px from one frame that is asked for to the next."""
    wide = texture(height, width + 4 * len(numbers), seed=height)
    images = np.stack([wide[:, 4 * n : 4 * n + width] for n in range(len(numbers))])
    return Frames(images, numbers, 24.0, numbers[-1] + 1, width, height)


def values(stage: Motion, frames: Frames) -> dict[str, float]:
    (outcome,) = stage.measure([CLIP], [frames], [{}])
    assert isinstance(outcome, Measurement)
    assert set(outcome.values) == set(Motion.columns.names)
    return dict(outcome.values)


def test_the_measures_are_torchvisions_flow_in_diagonals_per_second(
    stage: Motion, settings: MotionSettings, texture: Texture
) -> None:
    frames = sliding(texture, 128, 160, (0, 1, 12, 13, 24))
    model = optical_flow.raft_small(weights=None).eval()
    model.load_state_dict(torch.load(settings.model, weights_only=True))
    seen = torch.from_numpy(frames.images[[0, 2, 4]]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        flow = model(seen[:-1], seen[1:], num_flow_updates=2)[-1].double().numpy()
    lengths = np.hypot(flow[:, 0], flow[:, 1]).reshape(2, -1) / np.hypot(128, 160) / 0.5
    top5 = np.sort(lengths)[:, -round(128 * 160 * 0.05) :]
    found = values(stage, frames)
    assert found["pairs"] == 2
    assert found["mean"] == pytest.approx(lengths.mean(), rel=1e-4)
    assert found["top5"] == pytest.approx(top5.mean(), rel=1e-4)
    assert found["moving_share"] == pytest.approx((lengths >= 0.01).mean(), abs=1e-3)


def test_the_pairs_and_the_speed_are_those_of_the_cpu_backend(
    stage: Motion, texture: Texture
) -> None:
    cpu = Motion()
    cpu.setup()
    frames = sliding(texture, 128, 160, (0, 1, 12, 13, 24))
    for column in ("speed", "pairs"):
        assert values(stage, frames)[column] == values(cpu, frames)[column]


def test_clips_of_all_sizes_are_measured_together_as_one_by_one(
    stage: Motion, texture: Texture
) -> None:
    wide = sliding(texture, 128, 168, (0, 12, 24))
    tall = sliding(texture, 170, 130, (0, 12))
    other = sliding(texture, 128, 168, (0, 12, 24, 36, 40))
    short, small = sliding(texture, 128, 168, (0,)), sliding(texture, 126, 168, (0, 12))
    order = [wide, short, tall, small, other]
    outcomes = stage.measure([CLIP] * 5, order, [{}] * 5)
    codes = [each.code if isinstance(each, Failed) else None for each in outcomes]
    assert codes == [None, "too_short", None, "too_small", None]
    for outcome, frames in zip(outcomes, order, strict=True):
        if isinstance(outcome, Measurement):
            assert outcome.values == pytest.approx(values(stage, frames), rel=1e-4)


def test_the_fingerprint_names_what_changes_the_numbers(settings: MotionSettings) -> None:
    def of(settings: MotionSettings) -> str:
        return fingerprints([Motion(settings)])["motion"]

    assert of(settings) == of(replace(settings, placement=Placement("cuda", "f32", 64)))
    others = [
        replace(settings, placement=Placement(dtype="f16")),
        replace(settings, updates=12),
        replace(settings, network="raft_large"),
        MotionSettings(),
    ]
    assert len({of(settings), *map(of, others)}) == 5
    # What only the other backend reads changes nothing.
    assert of(MotionSettings(updates=3, model="another")) == of(MotionSettings())


def test_missing_weights_name_their_setting(settings: MotionSettings) -> None:
    stage = Motion(replace(settings, model="/nowhere/raft.pth"))
    with pytest.raises(InputError, match=r"motion\.model: found nothing at"):
        stage.setup()


def test_without_a_name_the_weights_are_the_ones_that_torchvision_publishes() -> None:
    (large,) = Motion(MotionSettings("reference")).weights()
    (small,) = Motion(MotionSettings("reference", network="raft_small")).weights()
    assert large.name == optical_flow.Raft_Large_Weights.C_T_V1.url
    assert small.name == optical_flow.Raft_Small_Weights.C_T_V1.url


def test_a_flow_that_is_no_number_has_failed_and_is_not_still(
    settings: MotionSettings, texture: Texture, tmp_path: Path
) -> None:
    state = torch.load(settings.model, weights_only=True)
    state = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    torch.save(state, tmp_path / "nan.pth")
    stage = Motion(replace(settings, model=str(tmp_path / "nan.pth")))
    stage.setup()
    (outcome,) = stage.measure([CLIP], [sliding(texture, 128, 160, (0, 12))], [{}])
    assert isinstance(outcome, Failed)
    assert outcome.code == "not_finite"
