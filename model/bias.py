"""The bias on reference keys: time-aware (TAB, Eq. 6, 7) and by the entity's region (ERAE, Eq. 8).

B batch, L text tokens, T latent frames, P patches of one frame, V = T*P video tokens,
n references.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import AdapterConfig, EraeConfig, TabConfig
from model.errors import ModelError

NUM_TRAIN_TIMESTEPS = 1000
_FLAT, _SPARSE = 0.6, 0.005  # of mean(R): ours; a map at random init selects 0.9


def time_bias(timestep: Tensor, tab: TabConfig) -> Tensor:
    """tanh(M(t)), in fp32. timestep: (B,) in 0..999. Returns (B,), between -1 and tanh(epsilon)."""
    centred = 2 * timestep.to(torch.float32) / NUM_TRAIN_TIMESTEPS - 1
    return torch.tanh(tab.epsilon - tab.gamma * centred.square())


def reference_bias(
    adapter: AdapterConfig,
    timestep: Tensor,
    num_text_tokens: int,
    num_video_tokens: int,
    region: Tensor | None = None,
    present: Tensor | None = None,
    sampling: bool = False,
) -> Tensor | None:
    """b(q), what every text and video query adds to its logits on reference keys.

    timestep: (B,); region: (B, V) bool, R of the video's tokens; present: (B,) bool, False puts
    -inf on all text and video queries of that sample. Returns (B, L+V) fp32, or None for b = 0.
    """
    on = adapter.tab.sample if sampling else adapter.tab.train
    if not on and region is None and present is None:
        return None
    shape = (len(timestep), num_text_tokens + num_video_tokens)
    tab = time_bias(timestep, adapter.tab) if on else torch.zeros(shape[0], device=timestep.device)
    bias = tab[:, None].repeat(1, shape[1])
    if region is not None:
        mask = region.to(torch.float32)
        if adapter.erae.form == "add":
            bias[:, num_text_tokens:] += adapter.erae.b1 * mask
        else:
            bias[:, num_text_tokens:] *= mask
    if adapter.bias_queries == "video":
        bias[:, :num_text_tokens] = 0.0
    if present is not None:
        bias.masked_fill_(~present[:, None], -torch.inf)
    return bias


def entity_mask(token_numbers: Sequence[Sequence[int]], num_text_tokens: int) -> Tensor:
    """Which text tokens name the entity, all occurrences. Returns (B, L) bool."""
    mask = torch.zeros(len(token_numbers), num_text_tokens, dtype=torch.bool)
    for row, numbers in zip(mask, token_numbers, strict=True):
        row[list(numbers)] = True
    return mask


def entity_region(activation: Tensor, num_frames: int, erae: EraeConfig) -> Tensor:
    """R: where the entity's tokens act. A flat frame has no region.

    activation: (B, V), A_e as the model's diagnostics hold it. Returns (B, V) bool.
    """
    if activation.shape[1] % num_frames:
        raise ModelError(
            f"found A_e of {activation.shape[1]} tokens; wanted a multiple of {num_frames} frames"
        )
    frames = activation.to(torch.float32).unflatten(1, (num_frames, -1))  # (B, T, P)
    if erae.normalise == "median":
        return (frames > 2 * frames.quantile(0.5, dim=-1, keepdim=True)).flatten(1)
    percentiles = frames.new_tensor([erae.low_percentile, erae.high_percentile]) / 100
    # "nearest", or a single peak would raise the 99th of a hundred patches.
    low, high = frames.quantile(percentiles, dim=-1, keepdim=True, interpolation="nearest")
    return ((frames.clamp(low, high) - low) > erae.threshold * (high - low)).flatten(1)


def coverage_warning(region: Tensor) -> str | None:
    """One line when R, (B, V) bool, holds so much or so little that it cannot be a subject."""
    share = region.to(torch.float32).mean().item()
    if share > _FLAT:
        return f"the entity's region covers {share:.1%} of the video: its attention is nearly flat"
    if share < _SPARSE:
        return f"the entity's region covers {share:.2%} of the video: the entity may be absent"
    return None
