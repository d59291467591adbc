"""Sampling: DDIM over trailing timesteps with v-prediction, guided by text and reference.

Shapes: B videos, T latent frames, C = 16 channels, H x W latents, L text tokens of width D,
n references, S = T * h * w video tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from model.bias import NUM_TRAIN_TIMESTEPS, coverage_warning, entity_region
from model.config import SamplingConfig
from model.transformer import CustomVideoX


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the videos are to show.

    text, null_text: (B, L, D), of the prompts and of what stands for none. reference: (B, n, C, H,
    W), clean latents; None leaves the reference's tokens out. entity: (B, L) bool, the tokens that
    name the subject, for ERAE; None goes without.
    """

    text: Tensor
    null_text: Tensor
    reference: Tensor | None = None
    entity: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step saw. weight: the share of the video's attention on the reference; covered: of
    the video by the entity's region; each None where nothing told.
    """

    number: int
    timestep: int
    weight: float | None = None
    covered: float | None = None
    warning: str | None = None


def alpha_bars(snr_shift: float) -> Tensor:
    """(1000,) fp64 share of the signal's power at each timestep; exactly 0 at the last.

    CogVideoX: betas linear in their root from 0.00085 to 0.012, shifted in SNR, then rescaled so
    that the last step is noise alone.
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, NUM_TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    bars = torch.cumprod(1 - betas, 0)
    roots = (bars / (snr_shift + (1 - snr_shift) * bars)).sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


def trailing_timesteps(steps: int) -> list[int]:
    """999 first; 50 steps: 999, 979, ..., 19."""
    return [round(NUM_TRAIN_TIMESTEPS * (steps - i) / steps) - 1 for i in range(steps)]


def ddim_step(latents: Tensor, v: Tensor, bar: float, bar_next: float) -> Tensor:
    """From the noise level of alpha-bar `bar` to `bar_next`, without new noise. fp32 in and out."""
    clean = bar**0.5 * latents - (1 - bar) ** 0.5 * v
    kept = ((1 - bar_next) / (1 - bar)) ** 0.5
    return kept * latents + (bar_next**0.5 - bar**0.5 * kept) * clean


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """(B, *shape) fp32, drawn on the CPU: each video's noise follows from its own seed alone."""
    return torch.stack(
        [torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def sample(
    model: CustomVideoX,
    conditions: Conditions,
    noise: Tensor,
    settings: SamplingConfig,
    snr_shift: float = 1.0,
    progress: Callable[[Step], None] = lambda step: None,
) -> Tensor:
    """Latents (B, T, C, H, W) fp32 of finished videos; noise: the same, where the model is.

    Latents stay fp32 between the steps, whatever the model computes in. snr_shift: 1.0 for
    CogVideoX-5B, 3.0 for the 2B.
    """
    bars = [*alpha_bars(snr_shift).tolist(), 1.0]
    timesteps = [*trailing_timesteps(settings.steps), -1]  # after the last step all is signal
    latents, region = noise.float(), None
    for number, (now, then) in enumerate(pairwise(timesteps)):
        v, seen, region = _guided(model, conditions, settings, latents, now, region)
        latents = ddim_step(latents, v, bars[now], bars[then])
        progress(replace(seen, number=number))
    return latents


def _guided(
    model: CustomVideoX,
    conditions: Conditions,
    settings: SamplingConfig,
    latents: Tensor,
    now: int,
    region: Tensor | None,
) -> tuple[Tensor, Step, Tensor | None]:
    """The v (B, T, C, H, W), what was seen, and the region (B, S) that the next step is to use.

    region: of the step before; it acts wherever the reference is present, and comes from the
    branch with text and reference alone.
    """
    c, at = conditions, torch.full((len(latents),), now, device=latents.device)
    g_text, g_ref = settings.text_guidance, settings.reference_guidance
    if c.reference is None:
        empty = model(latents, at, c.null_text)
        return empty + g_text * (model(latents, at, c.text) - empty), Step(0, now), None
    both = model(latents, at, c.text, c.reference, region=region, entity=c.entity, sampling=True)
    seen, region_next = _seen(model, latents.shape[1], now)
    without_text = model(latents, at, c.null_text, c.reference, region=region, sampling=True)
    v = without_text + g_text * (both - without_text)
    if g_ref != 1:
        v = v + (g_ref - 1) * (without_text - model(latents, at, c.null_text))
    return v, seen, region_next


def _seen(model: CustomVideoX, num_frames: int, now: int) -> tuple[Step, Tensor | None]:
    """What the last forward tells, and the region in it where ERAE is on."""
    if model.diagnostics is None or model.adapter is None:
        return Step(0, now), None
    weight = float(model.diagnostics.weight.mean())
    if not model.adapter.erae.sample:
        return Step(0, now, weight), None
    region = entity_region(model.diagnostics.activation, num_frames, model.adapter.erae)
    covered = float(region.float().mean())
    return Step(0, now, weight, covered, coverage_warning(region)), region
