"""One layer of both streams, as a CogVideoX block computes it.

B batch, L text tokens, V video tokens, M = L+V main tokens, R reference tokens, E width. The
reference goes through the visual expert, with a time embedding of its own.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers.models.normalization import CogVideoXLayerNormZero
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor

from model.attention import (
    Pair,
    Plan,
    Seen,
    main_attention,
    reference_attention,
    reference_pair,
    together,
)
from model.lora import Attention, AttentionLora
from model.position import Rotary


def both_streams(
    block: CogVideoXBlock,
    lora: AttentionLora,
    main: Tensor,
    reference: Tensor,
    time: Tensor,
    reference_time: Tensor,
    plan: Plan,
    region: Tensor | None,
    last: bool,
) -> tuple[Tensor, Tensor, Seen | None]:
    """In the last layer the reference only answers, and stays as it was.

    main: (B, M, E); reference: (B, R, E); time, reference_time: (B, time_embed_dim); region: see
    `main_attention`.
    """
    rotary, mask = plan.reference_rotary, plan.reference_mask
    attn = cast(Attention, block.attn1)
    n_reference, gate = _modulate(block.norm1, reference, reference_time)
    own = reference_pair(attn, lora, n_reference, rotary)
    main, main_pair, seen = main_stream(block, main, own, time, plan, region)
    if not last:
        pair = together(main_pair, own) if plan.attention == "joint" else own
        out = reference_attention(attn, lora, n_reference, pair, rotary, mask)
        reference = _finished(block, reference + gate * out, reference_time)
    return main, reference, seen


def main_stream(
    block: CogVideoXBlock,
    main: Tensor,
    reference: Pair,
    time: Tensor,
    plan: Plan,
    region: Tensor | None,
) -> tuple[Tensor, Pair, Seen | None]:
    """Text and video (B, M, E) read the reference's keys and values. Also returns their own."""
    num_text = plan.num_text_tokens
    text, video = main.split([num_text, main.shape[1] - num_text], dim=1)
    n_video, n_text, gate, text_gate = block.norm1(video, text, time)
    normed = torch.cat([n_text, n_video], dim=1)
    attn = cast(Attention, block.attn1)
    out, pair, seen = main_attention(attn, normed, reference, plan, region)
    text = text + text_gate * out[:, :num_text]
    video = video + gate * out[:, num_text:]

    n_video, n_text, gate, text_gate = block.norm2(video, text, time)
    out = block.ff(torch.cat([n_text, n_video], dim=1))
    text = text + text_gate * out[:, :num_text]
    video = video + gate * out[:, num_text:]
    return torch.cat([text, video], dim=1), pair, seen


def reference_stream(
    block: CogVideoXBlock,
    lora: AttentionLora,
    reference: Tensor,
    reference_time: Tensor,
    rotary: Rotary | None,
    mask: Tensor | None,
    last: bool,
) -> tuple[Tensor, Pair]:
    """The reference that sees itself alone: the same numbers as in `both_streams`.

    reference: (B, R, E). Returns it, and its keys and values.
    """
    attn = cast(Attention, block.attn1)
    n_reference, gate = _modulate(block.norm1, reference, reference_time)
    own = reference_pair(attn, lora, n_reference, rotary)
    if not last:
        out = reference_attention(attn, lora, n_reference, own, rotary, mask)
        reference = _finished(block, reference + gate * out, reference_time)
    return reference, own


def _finished(block: CogVideoXBlock, reference: Tensor, time: Tensor) -> Tensor:
    """The feed-forward half of a layer, of reference tokens (B, R, E)."""
    n_reference, gate = _modulate(block.norm2, reference, time)
    return reference + gate * block.ff(n_reference)


def _modulate(norm: CogVideoXLayerNormZero, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """The visual expert's three of six: x (B, R, E) shifted and scaled, and its gate (B, 1, E)."""
    shift, scale, gate, _, _, _ = norm.linear(norm.silu(time))[:, None].chunk(6, dim=2)
    return norm.norm(x) * (1 + scale) + shift, gate
