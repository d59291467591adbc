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
    num_references: int = 1,
) -> Tensor | None:
    """b(q), what every text and video query adds to its logits on the keys of each reference.

    timestep: (B,); region: (B, V) or (B, n, V) bool, R of the video's tokens; present: (B,) or
    (B, n) bool, False puts -inf on all text and video queries. Returns (B, n, L+V) fp32, or None
    for b = 0.
    """
    on = adapter.tab.sample if sampling else adapter.tab.train
    if not on and region is None and present is None:
        return None
    shape = (len(timestep), num_references, num_text_tokens + num_video_tokens)
    tab = time_bias(timestep, adapter.tab) if on else torch.zeros(shape[0], device=timestep.device)
    bias = tab[:, None, None].repeat(1, *shape[1:])
    if adapter.bias_queries == "video":
        bias[..., :num_text_tokens] = 0.0
    if region is not None:
        bias = with_region(bias, region, adapter.erae)
    if present is not None:
        each = present if present.dim() == 2 else present[:, None]
        bias.masked_fill_(~each[..., None], -torch.inf)
    return bias


def with_region(bias: Tensor, region: Tensor, erae: EraeConfig) -> Tensor:
    """The bias (B, n, L+V) as R, (B, V) or (B, n, V), changes it; what is hidden stays hidden."""
    inside = (region if region.dim() == 3 else region[:, None]).to(torch.bool)
    text, video = bias.split([bias.shape[2] - inside.shape[2], inside.shape[2]], dim=2)
    if erae.form == "add":
        video = video + erae.b1 * inside.to(torch.float32)
    else:
        video = video.masked_fill(~inside & ~video.isneginf(), 0.0)
    return torch.cat([text, video], dim=2)


def entity_mask(token_numbers: Sequence[Sequence[int]], num_text_tokens: int) -> Tensor:
    """Which text tokens name the entity, all occurrences. Returns (B, L) bool."""
    mask = torch.zeros(len(token_numbers), num_text_tokens, dtype=torch.bool)
    for row, numbers in zip(mask, token_numbers, strict=True):
        row[list(numbers)] = True
    return mask


def entity_region(activation: Tensor, num_frames: int, erae: EraeConfig) -> Tensor:
    """R: where the entity's tokens act. A flat frame has no region.

    activation: (..., V), A_e as the model's diagnostics hold it. Returns (..., V) bool.
    """
    if activation.shape[-1] % num_frames:
        raise ModelError(
            f"found A_e of {activation.shape[-1]} tokens; wanted a multiple of {num_frames} frames"
        )
    frames = activation.to(torch.float32).unflatten(-1, (num_frames, -1))  # (..., T, P)
    if erae.normalise == "median":
        return (frames > 2 * frames.quantile(0.5, dim=-1, keepdim=True)).flatten(-2)
    percentiles = frames.new_tensor([erae.low_percentile, erae.high_percentile]) / 100
    # "nearest", or a single peak would raise the 99th of a hundred patches.
    low, high = frames.quantile(percentiles, dim=-1, keepdim=True, interpolation="nearest")
    return ((frames.clamp(low, high) - low) > erae.threshold * (high - low)).flatten(-2)


def coverage_warning(region: Tensor) -> str | None:
    """One line when R, (..., V) bool, holds so much or so little that it cannot be a subject."""
    share = region.to(torch.float32).mean().item()
    if share > _FLAT:
        return f"the entity's region covers {share:.1%} of the video: its attention is nearly flat"
    if share < _SPARSE:
        return f"the entity's region covers {share:.2%} of the video: the entity may be absent"
    return None
