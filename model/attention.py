"""3D reference attention (Eq. 4): text and video see the reference with a bias on its keys.

B batch, L text tokens, V video tokens, M = L+V main tokens in the order [text, video],
n references, R reference tokens of all of them, N heads, D head dimension, C = N*D width.

Main and reference are two streams with their own calls; the keys meet in the softmax only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from model.bias import entity_region, with_region
from model.config import Backend, EraeConfig
from model.lora import Attention, AttentionLora
from model.merge import attend, log_sum_exp, merge
from model.position import Rotary
from model.softmax import attention, augmented, dense_mask

Pair = tuple[Tensor, Tensor]
"""Keys and values of some tokens, (B, N, S, D) each."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What all layers of one forward share.

    main_rotary (M, D) and reference_rotary (R, D): None for a base with sin-cos tables; bias:
    (B, n, M) fp32 of main queries on each reference's keys; mask: the same, (B, 1, M, M+R), for the
    dense backend, None for 0. reference_mask: (B, 1, R, R or M+R) of reference queries, None where
    they see all. entity: (B, e, L) bool, whose attention is wanted, of the subject of all
    references (e = 1) or of each (e = n). own: makes R of each layer's own A_e; None where R is in
    the bias already, or nowhere.
    """

    attention: Literal["joint", "independent"]
    backend: Backend
    num_frames: int
    num_text_tokens: int
    main_rotary: Rotary | None
    reference_rotary: Rotary | None
    bias: Tensor
    mask: Tensor | None
    reference_mask: Tensor | None
    entity: Tensor | None
    own: EraeConfig | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one layer saw.

    weight: (B,), the mean share of the video's attention that is on the reference; activation:
    (B, e, V), A_e, attention to the entity's tokens over text and video keys, mean over heads, or
    None without an entity; region: (B, e, V) bool, R of this layer alone, or None.
    """

    weight: Tensor
    activation: Tensor | None
    region: Tensor | None


def reference_pair(
    attn: Attention, lora: AttentionLora, reference: Tensor, rotary: Rotary | None
) -> Pair:
    """Keys and values (B, N, R, D) of modulated reference tokens (B, R, C)."""
    k = _heads(attn, attn.to_k(reference) + lora.to_k(reference))
    v = _heads(attn, attn.to_v(reference) + lora.to_v(reference))
    return _turn(attn.norm_k(k), rotary), v


def reference_attention(
    attn: Attention,
    lora: AttentionLora,
    reference: Tensor,
    seen: Pair,
    rotary: Rotary | None,
    mask: Tensor | None,
) -> Tensor:
    """Of modulated reference tokens (B, R, C) to all that they see. Returns (B, R, C)."""
    q = _heads(attn, attn.to_q(reference) + lora.to_q(reference))
    out = _merge_heads(attention(_turn(attn.norm_q(q), rotary), *seen, mask))
    return attn.to_out[0](out) + lora.to_out[0](out)


def main_attention(
    attn: Attention, main: Tensor, reference: Pair, plan: Plan, region: Tensor | None
) -> tuple[Tensor, Pair, Seen | None]:
    """Of modulated text and video tokens (B, M, C) to one another and to the reference's keys.

    region: (B, e, V) bool, R of this layer, where the bias lacks it and it is known already.
    Returns the output (B, M, C) and the keys and values of main, (B, N, M, D) each.
    """
    q, k, v = (_heads(attn, layer(main)) for layer in (attn.to_q, attn.to_k, attn.to_v))
    q = _turn(attn.norm_q(q), plan.main_rotary)
    k = _turn(attn.norm_k(k), plan.main_rotary)
    out, seen = _biased(q, (k, v), reference, plan, region)
    return attn.to_out[0](_merge_heads(out)), (k, v), seen


def _biased(
    q: Tensor, main: Pair, reference: Pair, plan: Plan, region: Tensor | None
) -> tuple[Tensor, Seen | None]:
    """The biased softmax for q (B, N, M, D) over the keys and values of main and reference."""
    num_references, num_reference_tokens = plan.bias.shape[1], reference[0].shape[2]
    each = zip(*(x.chunk(num_references, dim=2) for x in reference), strict=True)
    pairs = [main, *each]
    groups = [attend(q, *pair) for pair in pairs] if plan.backend == "merged" else []
    lses = [group.lse for group in groups]
    if plan.entity is not None and not groups:
        lses = [log_sum_exp(q, keys) for keys, _ in pairs]

    bias, mask, seen, activation = plan.bias, plan.mask, None, None
    if plan.entity is not None:
        activation = _activation(q, main[0], lses[0], plan.entity, plan.num_text_tokens)
    if plan.own is not None and region is None and activation is not None:
        region = entity_region(activation, plan.num_frames, plan.own)
    if plan.own is not None and region is not None:
        bias = with_region(bias, region, plan.own)
        if plan.backend == "dense":
            mask = dense_mask(bias, num_reference_tokens, q.dtype)
    if lses:
        seen = Seen(_weight(lses, bias, plan.num_text_tokens), activation, region)

    if groups:
        return merge(q, groups, bias), seen
    keys, values = together(main, reference)
    if plan.backend == "augmented":
        return augmented(q, keys, values, bias, num_reference_tokens), seen
    return attention(q, keys, values, mask), seen


@torch.no_grad()
def _activation(q: Tensor, k: Tensor, lse: Tensor, entity: Tensor, num_text_tokens: int) -> Tensor:
    """A_e (B, e, V). lse: (B, N, M), of the main keys k alone: with the reference's it would be
    circular, since R moves them. entity: (B, e, L).
    """
    text, scale = num_text_tokens, q.shape[-1] ** -0.5
    total = lse.new_zeros(len(q), entity.shape[1], q.shape[2] - text)
    for head in range(q.shape[1]):  # the logits of all heads would be the model's largest tensor
        asked = q[:, head, text:].to(lse.dtype) * scale  # (B, V, D)
        on_text = asked @ k[:, head, :text].to(lse.dtype).mT  # (B, V, L)
        share = (on_text - lse[:, head, text:, None]).exp()
        total += (share[:, None] * entity[:, :, None]).sum(-1)
    return total / q.shape[1]


@torch.no_grad()
def _weight(lses: Sequence[Tensor], bias: Tensor, num_text_tokens: int) -> Tensor:
    """(B,). lses: (B, N, M), of the main keys and of each reference's, all without the bias."""
    biases = bias[:, None, :, num_text_tokens:].unbind(2)  # (B, 1, V) each
    lse, *lses_ref = (one[:, :, num_text_tokens:] for one in lses)  # (B, N, V)
    shifted = [one + own for one, own in zip(lses_ref, biases, strict=True)]
    return torch.sigmoid(torch.stack(shifted).logsumexp(0) - lse).mean((1, 2))


def together(main: Pair, reference: Pair) -> Pair:
    """Keys and values (B, N, M+R, D) each."""
    k, v = (torch.cat(both, dim=2) for both in zip(main, reference, strict=True))
    return k, v


def _heads(attn: Attention, x: Tensor) -> Tensor:
    """(B, S, C) -> (B, N, S, D)."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def _merge_heads(x: Tensor) -> Tensor:
    """(B, N, S, D) -> (B, S, C)."""
    return x.transpose(1, 2).flatten(2)


def _turn(x: Tensor, rotary: Rotary | None) -> Tensor:
    """x: (B, N, S, D), turned by the places of its tokens."""
    if rotary is None:
        return x
    return cast(Tensor, apply_rotary_emb(x, cast(Any, rotary)))
