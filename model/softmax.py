"""The softmax of Eq. 6 over all keys at once, with a bias on those of each reference.

B batch, M queries, N heads, D head dimension, S keys, n references.

"dense" writes the bias out as a mask: the oracle, and the quickest on a CPU. "augmented" hides it
in more head dimensions and needs no mask: a cross-check. The third, "merged", is in merge.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.config import Backend
from model.merge import check_dtypes, flash_takes

# cuDNN's is left out: with a mask its backward gives NaN where S % 128 is 64 (torch >= 2.11).
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_HIDDEN = -7000.0  # in place of -inf, which times 0 is NaN; times 8 fp16 holds it, and its exp is 0


def chosen(backend: Backend, device: torch.device, dtype: torch.dtype) -> Backend:
    """What "auto" stands for here; docs/decisions/014 has the measurements."""
    if backend != "auto":
        return backend
    return "merged" if device.type == "cuda" and flash_takes(device, dtype) else "dense"


def dense_mask(bias: Tensor, num_reference_tokens: int, dtype: torch.dtype) -> Tensor:
    """(B, 1, M, S): 0 on main keys and the bias (B, n, M) on each reference's.

    fp32 on a CPU for whatever the model computes in, since bf16 rounds b; the kernels of a GPU take
    the model's own dtype alone, which is off by 2.4e-4 at most where b is above 0.
    """
    if bias.device.type == "cpu":
        dtype = torch.promote_types(dtype, torch.float32)
    batch, num_references, num_main = bias.shape
    mask = bias.new_zeros(batch, 1, num_main, num_main + num_reference_tokens, dtype=dtype)
    each = num_reference_tokens // num_references
    mask[:, 0, :, num_main:] = bias.mT.repeat_interleave(each, dim=2)
    return mask


def reference_mask(present: Tensor, num_main_tokens: int, num_reference_tokens: int) -> Tensor:
    """(B, 1, R, M+R) bool, what the queries of references see: all but absent ones of the others.

    present: (B, n). An absent one sees itself, since a softmax over nothing is NaN.
    """
    each = num_reference_tokens // present.shape[1]
    itself = torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    seen = (present[:, None] | itself).repeat_interleave(each, 1).repeat_interleave(each, 2)
    return functional.pad(seen, (num_main_tokens, 0), value=True)[:, None]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q: (B, N, M, D); k, v: (B, N, S, D); mask: (B, 1, M, S), added to the logits, or bool."""
    check_dtypes(q, k, v)
    with sdpa_kernel(_KERNELS):
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def augmented(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, num_reference_tokens: int) -> Tensor:
    """The bias (B, n, M) as further columns of q, met by ones in its reference's keys.

    Each is two columns, rounded and what the rounding left, so that bf16 keeps b to 16 bits; D
    grows to a multiple of 8 that holds them (64 to 72 for up to four references).
    """
    check_dtypes(q, k, v)
    size, (_, num_references, _) = q.shape[-1], bias.shape
    scale = size**-0.5
    exact = bias.clamp(min=_HIDDEN).mT / scale  # (B, M, n): the logits are scaled afterwards
    high = exact.to(q.dtype)
    low = (exact - high).to(q.dtype)
    columns = torch.cat([high, low], dim=2)[:, None].expand(-1, q.shape[1], -1, -1)
    each = num_reference_tokens // num_references
    ones = torch.eye(num_references, dtype=k.dtype, device=k.device).repeat_interleave(each, dim=0)
    ones = functional.pad(ones, (0, 0, k.shape[2] - num_reference_tokens, 0))  # (S, n)
    marks = ones.repeat(1, 2).expand(*k.shape[:2], -1, -1)
    spare = -(2 * num_references) % 8
    wide_q = functional.pad(torch.cat([q, columns], dim=3), (0, spare))
    wide_k = functional.pad(torch.cat([k, marks], dim=3), (0, spare))
    wide_v = functional.pad(v, (0, wide_q.shape[3] - size))
    with sdpa_kernel(_KERNELS):
        out = functional.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=scale)
    return out[..., :size]
