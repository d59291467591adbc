"""The baseline: the reference as one more frame, and a LoRA on all tokens."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from peft import LoraConfig
from small_transformer import (
    FRAMES,
    HEIGHT,
    SINCOS,
    SMALL,
    WIDTH,
    Batch,
    base_of,
    calls_of_first_keys,
)
from torch import Tensor

from model.adapter_file import load_adapter, read_header, save_adapter
from model.compute import ComputeSettings, prepare
from model.config import COGVIDEOX_5B, AdapterConfig, EraeConfig, SamplingConfig
from model.errors import ModelError
from model.extra_frame import ExtraFrame, open_model
from model.position import Grid, video_rotary
from model.sampling import Conditions, sample
from model.transformer import CustomVideoX
from model.weights import Base
from training.objective import noise_schedule
from training.step import Example, OptimizerSettings, Training

EXTRA = AdapterConfig(kind="extra_frame", rank=3, alpha=6)


def model_of(config: Any = SMALL, learnt: bool = True) -> ExtraFrame:
    model = ExtraFrame(base_of(config), EXTRA)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.adapter_parameters().values() if learnt else ():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def stock(base: CogVideoXTransformer3DModel, frames: Tensor, batch: Batch) -> Tensor:
    """Diffusers' own on all these frames."""
    rotary = base.config["use_rotary_positional_embeddings"]
    turn = video_rotary(Grid(HEIGHT, WIDTH, 4, 6), frames.shape[1], 16, torch.device("cpu"))
    return base(
        frames, batch.text, batch.timestep, image_rotary_emb=turn if rotary else None
    ).sample


@pytest.mark.parametrize("config", [SMALL, SINCOS])
@pytest.mark.parametrize("num_references", [1, 2])
def test_a_fresh_one_is_the_stock_transformer_on_the_frames_and_the_reference_after_them(
    config: Any, num_references: int
) -> None:
    batch = Batch(num_references=num_references)
    frames = torch.cat([batch.latents, batch.reference], dim=1)
    wanted = stock(base_of(config), frames, batch)[:, :FRAMES]
    model = model_of(config, learnt=False)
    assert torch.equal(model(batch.latents, batch.timestep, batch.text, batch.reference), wanted)


def test_a_trained_one_computes_what_peft_computes() -> None:
    model, batch, theirs = model_of(), Batch(), base_of()
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    theirs.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=targets))
    named = dict(theirs.named_parameters())
    for name, weight in model.adapter_parameters().items():
        path = name.removeprefix("lora.").replace("lora_A", "lora_A.default")
        named[path.replace("lora_B", "lora_B.default")].data.copy_(weight)
    frames = torch.cat([batch.latents, batch.reference], dim=1)
    v = model(batch.latents, batch.timestep, batch.text, batch.reference)
    assert torch.allclose(v, stock(theirs, frames, batch)[:, :FRAMES], atol=1e-5)


def test_without_a_reference_it_is_the_base() -> None:
    batch = Batch()
    v = model_of()(batch.latents, batch.timestep, batch.text)
    assert torch.equal(v, stock(base_of(), batch.latents, batch))


def test_the_loss_is_of_the_video_s_frames_alone() -> None:
    model, batch, schedule = model_of(), Batch(), noise_schedule()
    training = Training(model, model.optimised_parameters(), schedule, OptimizerSettings())
    noise = torch.randn(batch.latents[0].shape, generator=torch.Generator().manual_seed(5))
    example = Example("k", batch.latents[0], noise, 400, batch.text[0], batch.reference[0])
    (found,) = training.losses([example])
    time = torch.tensor([400])
    latents, noise = batch.latents[:1], noise[None]
    noisy = torch.cat([schedule.noisy(latents, noise, time), batch.reference[:1]], dim=1)
    carried = copy.deepcopy(model).transformer  # with the LoRA in it
    turn = video_rotary(Grid(HEIGHT, WIDTH, 4, 6), FRAMES + 1, 16, torch.device("cpu"))
    said = carried(noisy, batch.text[:1], time, image_rotary_emb=turn).sample
    wanted = (said[:, :FRAMES] - schedule.velocity(latents, noise, time)).square().mean()
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_gradient_reaches_all_of_the_adapter_and_nothing_else(checkpointed: bool) -> None:
    def gradients(model: ExtraFrame) -> dict[str, Tensor]:
        batch = Batch()
        v = model(batch.latents, batch.timestep, batch.text, batch.reference)
        with torch.no_grad():
            model(batch.latents, batch.timestep, batch.text)  # the LoRA is off only in this call
        v.square().mean().backward()
        return {name: w.grad for name, w in model.named_parameters() if w.grad is not None}

    model = model_of()
    calls = calls_of_first_keys(model)
    if checkpointed:
        prepare(model, ComputeSettings(checkpoint=1.0))
    found, wanted = gradients(model), gradients(model_of())
    assert len(calls) == (3 if checkpointed else 2)
    assert set(found) == set(model.adapter_parameters()) == set(model.optimised_parameters())
    assert all(grad.any() and torch.equal(grad, wanted[name]) for name, grad in found.items())


def test_it_has_as_many_weights_as_the_paper_s_adapter_and_trains_all_of_them() -> None:
    with torch.device("meta"):
        base = CogVideoXTransformer3DModel(**COGVIDEOX_5B.keywords())
    model = ExtraFrame(base, AdapterConfig(kind="extra_frame"))
    assert sum(w.numel() for w in model.optimised_parameters().values()) == 132_120_576


def test_it_is_sampled_like_the_other_kind() -> None:
    model, batch = model_of(), Batch()
    entity = torch.tensor([[False, True, False, True, False]] * 2)
    given = Conditions(batch.text, 0 * batch.text, batch.reference, entity)
    found = sample(model, given, batch.latents, SamplingConfig(steps=1, text_guidance=3.0))
    at = torch.tensor([999, 999])
    with torch.no_grad():
        empty, full = (
            model(batch.latents, at, text, batch.reference) for text in (0 * batch.text, batch.text)
        )
    assert torch.allclose(found, -(empty + 3 * (full - empty)), atol=1e-4)


def test_a_file_of_one_kind_is_refused_by_the_other(tmp_path: Path) -> None:
    file, base = tmp_path / "a.safetensors", Base("here", "", "0123")
    model, ours = model_of(), replace(EXTRA, kind="reference")
    save_adapter(model, file, base)
    assert read_header(file).config == EXTRA
    with pytest.raises(ModelError, match=r"kind 'extra_frame', the model's is 'reference'"):
        load_adapter(CustomVideoX(base_of(), ours), file, base)
    again = model_of(learnt=False)
    load_adapter(again, file, base)
    wanted = model.adapter_parameters()
    assert all(torch.equal(w, wanted[name]) for name, w in again.adapter_parameters().items())
    save_adapter(CustomVideoX(base_of(), ours), file, base)
    with pytest.raises(ModelError, match=r"kind 'reference', the model's is 'extra_frame'"):
        load_adapter(again, file, base)


def test_the_settings_name_the_kind() -> None:
    assert isinstance(open_model(base_of(), EXTRA), ExtraFrame)
    assert isinstance(open_model(base_of(), replace(EXTRA, kind="reference")), CustomVideoX)
    assert isinstance(open_model(base_of()), CustomVideoX)
    with pytest.raises(ModelError, match=r"adapter\.kind: found 'extra_frame'"):
        CustomVideoX(base_of(), EXTRA)
    with pytest.raises(ModelError, match="which has no bias"):
        AdapterConfig(kind="extra_frame", erae=EraeConfig(train=True, layers="own"))
    batch = Batch()
    with pytest.raises(ModelError, match="found a region for an extra frame"):
        model_of()(batch.latents, batch.timestep, batch.text, batch.reference, batch.region)
