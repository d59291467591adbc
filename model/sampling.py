"""Sampling: DDIM over trailing timesteps with v-prediction, guided by text and reference.

Shapes: B videos, T latent frames, C = 16 channels, H x W latents, L text tokens of width D,
n references, S = T * h * w video tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from model.adapted import Adapted
from model.bias import NUM_TRAIN_TIMESTEPS, coverage_warning, entity_region
from model.config import OWN, SamplingConfig
from model.memory import ReferenceMemory, can_remember
from model.sharded import is_sharded
from model.transformer import CustomVideoX

VERSION = 2
"""Raised when other latents come of the same noise and conditions; videos record it."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the videos are to show.

    text, null_text: (B, L, D), of the prompts and of what stands for none, or of negative prompts.
    reference: (B, n, C, H, W), clean latents; None leaves the reference's tokens out. entity: (B,
    L) or (B, n, L) bool, the tokens that name the subject, or that of each reference, for ERAE;
    None goes without.
    """

    text: Tensor
    null_text: Tensor
    reference: Tensor | None = None
    entity: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Saw:
    """What the branch with text and reference saw in one step.

    weight: (layers, B), the share of the video's attention that is on the reference; activation:
    (B, e, V), A_e, None without an entity; region: R, (B, e, V) bool, or (layers, B, e, V) where
    every layer has its own; None without an entity or ERAE.
    """

    weight: Tensor
    activation: Tensor | None
    region: Tensor | None

    @property
    def covered(self) -> float | None:
        """The share of the video that is R."""
        return None if self.region is None else float(self.region.float().mean())

    @property
    def warning(self) -> str | None:
        """Why R cannot be a subject, in one line."""
        return None if self.region is None else coverage_warning(self.region)


@dataclass(frozen=True, slots=True)
class Step:
    """One step that is done, counted from 0.

    saw: None without a reference, or where nobody asked and it would cost something to know.
    """

    number: int
    timestep: int
    saw: Saw | None


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
    model: Adapted,
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
    latents, reference = noise.float(), conditions.reference
    region = _first_region(model, conditions, noise)
    if reference is not None and isinstance(model, CustomVideoX) and can_remember(model.adapter):
        reference = reference if is_sharded(model) else model.remember(reference)
    guided = _Guided(model, conditions, reference, settings)
    for number, (now, then) in enumerate(pairwise(timesteps)):
        v, saw, region = guided.v(latents, now, region)
        latents = ddim_step(latents, v, bars[now], bars[then])
        progress(Step(number, now, saw))
    return latents


@dataclass(frozen=True, slots=True)
class _Guided:
    """The v of all branches. reference: the conditions' own, or remembered."""

    model: Adapted
    conditions: Conditions
    reference: Tensor | ReferenceMemory | None
    settings: SamplingConfig

    def v(
        self, latents: Tensor, now: int, region: Tensor | None
    ) -> tuple[Tensor, Saw | None, Tensor | None]:
        """The v (B, T, C, H, W), what was seen, and the region that the next step is to use.

        region: of the step before; it acts wherever the reference is present, and comes from the
        branch with text and reference alone.
        """
        model, c = self.model, self.conditions
        at = torch.full((len(latents),), now, device=latents.device)
        g_text, g_ref = self.settings.text_guidance, self.settings.reference_guidance
        if self.reference is None:
            return self._without_reference(latents, at), None, None
        given = (latents, at, c.text, self.reference, region)
        both = model(*given, entity=c.entity, sampling=True)
        saw = _seen(model, latents.shape[1])
        region_next = None if saw is None else saw.region
        if model.diagnostics is not None and model.diagnostics.region is not None:
            region, region_next = region_next, None  # every layer's own acts in its own step
        if g_text == g_ref == 1:
            return both, saw, region_next
        without_text = model(latents, at, c.null_text, self.reference, region, sampling=True)
        v = without_text + g_text * (both - without_text)
        if g_ref != 1:
            v = v + (g_ref - 1) * (without_text - model(latents, at, c.null_text))
        return v, saw, region_next

    def _without_reference(self, latents: Tensor, at: Tensor) -> Tensor:
        """Both branches as one batch, the empty one first: diffusers' own call, to the bit."""
        model, c, g_text = self.model, self.conditions, self.settings.text_guidance
        if g_text == 1:
            return model(latents, at, c.text)
        given = torch.cat([latents, latents]), torch.cat([at, at]), torch.cat([c.null_text, c.text])
        empty, full = model(*given).chunk(2)
        return empty + g_text * (full - empty)


def _first_region(model: Adapted, conditions: Conditions, noise: Tensor) -> Tensor | None:
    """R = 0, (B, e, V), where R is to be of the step before and there is none; else None."""
    entity, adapter = conditions.entity, model.adapter
    if entity is None or conditions.reference is None or not isinstance(model, CustomVideoX):
        return None
    if adapter is None or not adapter.erae.sample or adapter.erae.layers == OWN:
        return None
    num_video_tokens = noise[0, :, 0].numel() // model.transformer.config["patch_size"] ** 2
    num_entities = entity.shape[1] if entity.dim() == 3 else 1
    return entity.new_zeros(len(noise), num_entities, num_video_tokens, dtype=torch.bool)


def _seen(model: Adapted, num_frames: int) -> Saw | None:
    """What the last forward tells; with the region where ERAE is on."""
    told, adapter = model.diagnostics, model.adapter
    if told is None or adapter is None:
        return None
    region = told.region
    if region is None and told.activation is not None and adapter.erae.sample:
        region = entity_region(told.activation, num_frames, adapter.erae)
    return Saw(told.weight, told.activation, region)
