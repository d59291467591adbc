"""Guidance by text, written out call by call."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from model.bias import entity_region
from model.sampling import Conditions, alpha_bars, ddim_step, trailing_timesteps
from model.transformer import CustomVideoX


@torch.no_grad()
def slow_guided(model: CustomVideoX, given: Conditions, noise: Tensor, steps: int) -> Tensor:
    """Six times the text, with a reference; R of a step acts on both branches of the next one."""
    patches = noise[0, :, 0].numel() // 4
    region = torch.zeros(len(noise), 1, patches, dtype=torch.bool)
    latents, bars = noise, [*alpha_bars(1.0).tolist(), 1.0]
    for now, then in pairwise([*trailing_timesteps(steps), -1]):
        call, at = (given.reference, region), torch.full((len(noise),), now)
        both = model(latents, at, given.text, *call, entity=given.entity, sampling=True)
        seen = model.diagnostics
        without = model(latents, at, given.null_text, *call, sampling=True)
        latents = ddim_step(latents, without + 6 * (both - without), bars[now], bars[then])
        assert seen is not None
        assert seen.activation is not None
        assert model.adapter is not None
        region = entity_region(seen.activation, noise.shape[1], model.adapter.erae)
    return latents
