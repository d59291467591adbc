"""Sampling: the steps are diffusers', the guidance is the formula, the seed is the video."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from slow_sampling import slow_guided

from model.config import TINY, AdapterConfig, EraeConfig, SamplingConfig
from model.errors import ModelError
from model.sampling import (
    Conditions,
    Step,
    alpha_bars,
    ddim_step,
    initial_noise,
    sample,
    trailing_timesteps,
)
from model.transformer import CustomVideoX

SMALL = replace(TINY, num_layers=2, num_attention_heads=2, max_text_seq_length=8)
SHAPE = (3, 16, 4, 6)
FEW = SamplingConfig(steps=4)


def scheduler(snr_shift: float = 1.0) -> CogVideoXDDIMScheduler:
    """As the hub's CogVideoX-5b configures it."""
    return CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift,
        clip_sample=False,
    )


def network(adapter: AdapterConfig | None = None) -> CustomVideoX:
    torch.manual_seed(0)
    base = CogVideoXTransformer3DModel(**SMALL.keywords())
    torch.nn.init.normal_(base.proj_out.weight, std=0.1)
    model = CustomVideoX(base, adapter).eval()
    for weight in model.adapter_parameters().values():  # a trained one: B is not zero any more
        torch.nn.init.normal_(weight, std=0.2)
    return model


@pytest.fixture(scope="module")
def base() -> CustomVideoX:
    return network()


@pytest.fixture(scope="module")
def adapted() -> CustomVideoX:
    return network(AdapterConfig(rank=4, alpha=4))


def conditions(reference: bool = True, batch: int = 1) -> Conditions:
    made = torch.Generator().manual_seed(7)
    text = torch.randn(batch, 8, 64, generator=made)
    clean = torch.randn(batch, 1, *SHAPE[1:], generator=made)
    entity = torch.zeros(batch, 8, dtype=torch.bool)
    entity[:, 2:4] = True
    return Conditions(text, torch.zeros_like(text), clean if reference else None, entity)


@pytest.mark.parametrize("snr_shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 8, 50])
def test_every_step_is_that_of_diffusers(snr_shift: float, steps: int) -> None:
    oracle = scheduler(snr_shift)
    oracle.set_timesteps(steps)
    timesteps = trailing_timesteps(steps)
    assert timesteps == oracle.timesteps.tolist()
    bars = alpha_bars(snr_shift)
    torch.testing.assert_close(bars, oracle.alphas_cumprod, rtol=0, atol=1e-12)
    assert bars[-1] == 0
    latents = torch.randn(2, 4, dtype=torch.float64)
    for now, then in zip(timesteps, [*timesteps[1:], -1], strict=True):
        v = torch.randn(2, 4, dtype=torch.float64)
        wanted = oracle.step(v, now, latents, return_dict=False)[0]
        found = ddim_step(latents, v, float(bars[now]), float(bars[then]) if then >= 0 else 1.0)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
        latents = found


def test_fifty_steps_begin_at_999_and_end_at_19() -> None:
    timesteps = trailing_timesteps(50)
    assert (timesteps[:2], timesteps[-1], len(timesteps)) == ([999, 979], 19, 50)


def test_without_a_reference_it_is_the_stock_transformer_stepped_by_diffusers(
    adapted: CustomVideoX,
) -> None:
    """Independent of our forward and of our guidance: diffusers alone."""
    given, noise = conditions(reference=False), initial_noise([3], SHAPE)
    oracle = scheduler()
    oracle.set_timesteps(4)
    latents = noise
    stock = network().transformer
    rotary = _stock_rotary()
    for now in oracle.timesteps.tolist():
        with torch.no_grad():
            empty, full = (
                stock(latents, text, torch.tensor([now]), image_rotary_emb=rotary).sample
                for text in (given.null_text, given.text)
            )
        latents = oracle.step(empty + 6.0 * (full - empty), now, latents, return_dict=False)[0]
    found = sample(adapted, given, noise, FEW)
    torch.testing.assert_close(found, latents.float(), rtol=1e-4, atol=1e-4)


def _stock_rotary() -> tuple[torch.Tensor, torch.Tensor]:
    """As diffusers' pipeline makes it for these latents."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    base_width, base_height = SMALL.sample_width // 2, SMALL.sample_height // 2
    height, width = SHAPE[2] // 2, SHAPE[3] // 2
    crops = get_resize_crop_region_for_grid((height, width), base_width, base_height)
    made = get_3d_rotary_pos_embed(32, crops, (height, width), SHAPE[0])
    assert isinstance(made[0], torch.Tensor)
    return made[0], made[1]


def test_a_seed_makes_the_same_video_whoever_shares_its_batch(adapted: CustomVideoX) -> None:
    alone = sample(adapted, conditions(), initial_noise([5], SHAPE), FEW)
    again = sample(adapted, conditions(), initial_noise([5], SHAPE), FEW)
    other = sample(adapted, conditions(), initial_noise([6], SHAPE), FEW)
    assert torch.equal(alone, again)
    assert not torch.allclose(alone, other, atol=1e-2)
    assert torch.equal(initial_noise([5, 6], SHAPE)[1], initial_noise([6], SHAPE)[0])


@pytest.mark.parametrize(("g_text", "g_ref"), [(6.0, 1.0), (1.0, 1.0), (3.0, 2.5), (4.0, 0.0)])
def test_guidance_is_its_formula(adapted: CustomVideoX, g_text: float, g_ref: float) -> None:
    """At t = 999 the signal is 0, so one step ends at -v, whatever the noise."""
    given, noise = conditions(), initial_noise([0], SHAPE)
    at = torch.tensor([999])
    with torch.no_grad():
        nothing = adapted(noise, at, given.null_text)
        picture = adapted(noise, at, given.null_text, given.reference, sampling=True)
        both = adapted(noise, at, given.text, given.reference, sampling=True)
    v = nothing + g_ref * (picture - nothing) + g_text * (both - picture)
    settings = SamplingConfig(1, text_guidance=g_text, reference_guidance=g_ref)
    torch.testing.assert_close(sample(adapted, given, noise, settings), -v, rtol=1e-4, atol=1e-4)


def test_the_region_of_a_step_acts_in_the_next_one(adapted: CustomVideoX) -> None:
    """One step has no region yet; from the second on ERAE changes the video."""
    erased = replace(conditions(), entity=None)
    noise = initial_noise([1], SHAPE)
    told: list[Step] = []
    one = SamplingConfig(steps=1)
    assert torch.equal(
        sample(adapted, conditions(), noise, one, progress=told.append),
        sample(adapted, erased, noise, one),
    )
    saw = told[0].saw
    assert saw is not None
    assert saw.covered is not None
    assert 0 < saw.covered < 1
    two = SamplingConfig(steps=2)
    assert not torch.equal(
        sample(adapted, conditions(), noise, two), sample(adapted, erased, noise, two)
    )


def test_both_branches_are_told_the_region_of_the_step_before_and_only_that() -> None:
    """Three steps, a region that moves and is strong enough to see where it acts."""
    model = network(AdapterConfig(rank=4, alpha=4, erae=EraeConfig(threshold=0.5, b1=2.0)))
    noise, told = initial_noise([1], SHAPE), list[Step]()
    found = sample(model, conditions(), noise, SamplingConfig(3), progress=told.append)
    wanted = slow_guided(model, conditions(), noise, 3)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    regions = [step.saw.region for step in told if step.saw and step.saw.region is not None]
    assert len(regions) == 3
    assert (regions[0] & ~regions[1]).any()  # so that their union is another


def test_erae_switched_off_leaves_the_entity_alone() -> None:
    plain = network(AdapterConfig(rank=4, alpha=4, erae=EraeConfig(sample=False)))
    noise, two = initial_noise([1], SHAPE), SamplingConfig(steps=2)
    without = sample(plain, replace(conditions(), entity=None), noise, two)
    torch.testing.assert_close(sample(plain, conditions(), noise, two), without)


def test_a_reference_without_an_adapter_is_refused(base: CustomVideoX) -> None:
    with pytest.raises(ModelError, match="no adapter"):
        sample(base, conditions(), initial_noise([0], SHAPE), FEW)


def test_impossible_settings_are_named() -> None:
    with pytest.raises(ModelError, match="found steps 0"):
        SamplingConfig(steps=0)
