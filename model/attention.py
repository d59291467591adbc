"""3D reference attention (Eq. 4): text and video see the reference with a bias on its keys.

B batch, L text tokens, V video tokens, M = L+V main tokens in the order [text, video],
R reference tokens of all references, N heads, D head dimension, C = N*D width.

Main and reference are two streams with their own calls; the keys meet in the softmax only. Here
the bias is a dense mask over all keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor
from torch.nn import functional

from model.lora import Attention, AttentionLora
from model.position import Rotary


@dataclass(frozen=True, slots=True)
class Plan:
    """What all layers of one forward share.

    main_rotary (M, D) and reference_rotary (R, D): None for a base with sin-cos tables; bias:
    (B, M) fp32 of main queries on reference keys, None for 0; mask: the same, (B, 1, M, M+R).
    entity: (B, L) bool, whose attention is wanted.
    """

    attention: Literal["joint", "independent"]
    num_text_tokens: int
    main_rotary: Rotary | None
    reference_rotary: Rotary | None
    bias: Tensor | None
    mask: Tensor | None
    entity: Tensor | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one layer's video queries looked at, means over the heads.

    weight: (B,) on all reference keys, 0..1, mean over the queries; activation: (B, V), A_e, on
    the entity's tokens as if there were no reference.
    """

    weight: Tensor
    activation: Tensor


def dense_mask(bias: Tensor | None, num_reference_tokens: int, dtype: torch.dtype) -> Tensor | None:
    """(B, 1, M, M+R): 0 on main keys and the bias (B, M) on the reference's.

    fp32 on a CPU for whatever the model computes in, since bf16 rounds b; the kernels of a GPU take
    the model's own dtype alone, which is off by 2.4e-4 at most where b is above 0.
    """
    if bias is None:
        return None
    if bias.device.type == "cpu":
        dtype = _at_least_fp32(dtype)
    batch, num_main = bias.shape
    mask = bias.new_zeros(batch, 1, num_main, num_main + num_reference_tokens, dtype=dtype)
    mask[..., num_main:] = bias[:, None, :, None]
    return mask


def reference_attention(
    attn: Attention, lora: AttentionLora, main: Tensor, reference: Tensor, plan: Plan, last: bool
) -> tuple[Tensor, Tensor | None, Seen | None]:
    """Eq. 4 for one layer. main: (B, M, C); reference: (B, R, C); returns both, and what was seen.

    last: nobody reads the reference any more, so it asks nothing and comes back as None.
    """
    q, k, v = (_heads(attn, layer(main)) for layer in (attn.to_q, attn.to_k, attn.to_v))
    q, k = (
        _turn(attn.norm_q(q), plan.main_rotary),
        _turn(attn.norm_k(k), plan.main_rotary),
    )
    k_ref = _heads(attn, attn.to_k(reference) + lora.to_k(reference))
    v_ref = _heads(attn, attn.to_v(reference) + lora.to_v(reference))
    k_ref = _turn(attn.norm_k(k_ref), plan.reference_rotary)

    all_k, all_v = torch.cat([k, k_ref], dim=2), torch.cat([v, v_ref], dim=2)  # (B, N, M+R, D)
    out = functional.scaled_dot_product_attention(q, all_k, all_v, attn_mask=plan.mask)
    seen = None if plan.entity is None else _look(q, k, k_ref, plan)
    out = attn.to_out[0](_merge_heads(out))
    if last:
        return out, None, seen

    q_ref = _heads(attn, attn.to_q(reference) + lora.to_q(reference))
    q_ref = _turn(attn.norm_q(q_ref), plan.reference_rotary)
    keys, values = (all_k, all_v) if plan.attention == "joint" else (k_ref, v_ref)
    out_ref = _merge_heads(functional.scaled_dot_product_attention(q_ref, keys, values))
    return out, attn.to_out[0](out_ref) + lora.to_out[0](out_ref), seen


@torch.no_grad()
def _look(q: Tensor, k: Tensor, k_ref: Tensor, plan: Plan) -> Seen:
    """Head by head, since all logits at once would be the largest tensor of the model."""
    entity, bias = cast(Tensor, plan.entity), plan.bias
    dtype, text = _at_least_fp32(q.dtype), plan.num_text_tokens
    scale = q.shape[-1] ** -0.5
    weight, activation = [], []
    for head in range(q.shape[1]):
        asked = q[:, head, text:].to(dtype) * scale  # (B, V, D)
        on_main = asked @ k[:, head].to(dtype).mT  # (B, V, M)
        lse = on_main.logsumexp(-1)  # (B, V)
        on_entity = (on_main[..., :text] - lse[..., None]).exp()  # (B, V, L)
        activation.append((on_entity * entity[:, None]).sum(-1))
        lse_ref = (asked @ k_ref[:, head].to(dtype).mT).logsumexp(-1)  # (B, V)
        if bias is not None:
            lse_ref = lse_ref + bias[:, text:]
        weight.append(torch.sigmoid(lse_ref - lse).mean(1))
    return Seen(torch.stack(weight).mean(0), torch.stack(activation).mean(0))


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


def _at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
