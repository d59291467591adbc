"""Attention to groups of keys, merged by log-sum-exp: a bias on a whole group needs no mask.

B batch, M queries, N heads, D head dimension, S keys of a group, G groups.

A bias b_g(q) on all keys of group g only shifts that group's log-sum-exp over its logits:

    lse = log sum_g exp(lse_g + b_g),    out = sum_g exp(lse_g + b_g - lse) * out_g

So every group is a plain flash attention. PyTorch's kernels give lse_g but no gradient through it:
autograd through the second line has a right forward and wrong gradients of q and k. The backward
is therefore our own. A flash backward builds its probabilities anew, as exp(scale*q.k - LSE) with
the LSE that it is told, and subtracts rowsum(grad_out * out) with the out that it is told: told the
merged out and lse - b_g, it computes with exactly the joint softmax, on the keys of its group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from model.errors import ModelError

_aten = torch.ops.aten
_HALF = (torch.bfloat16, torch.float16)  # all that the flash kernel of a GPU takes
_AMPERE = 8  # and the first GPUs that it runs on: compute capability 8.0


@dataclass(frozen=True, slots=True)
class Group:
    """Keys of one bias, and attention to them alone.

    k, v: (B, N, S, D). out: (B, N, M, D) and lse: (B, N, M), fp32 or fp64, have no gradient.
    seeds: what the GPU's backward wants back from its forward, though nothing is dropped.
    """

    k: Tensor
    v: Tensor
    out: Tensor
    lse: Tensor
    seeds: tuple[Tensor, ...] = ()


def flash_takes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a flash kernel that says its log-sum-exp."""
    if device.type != "cuda":
        return device.type == "cpu"
    return dtype in _HALF and torch.cuda.get_device_properties(device).major >= _AMPERE


def check_autocast(device: torch.device) -> None:
    """Raises ModelError where autocast is on: dtypes are explicit in all of the model."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        raise ModelError(
            "found autocast on; wanted it off: the weights' dtype is what is computed in"
        )


def check_dtypes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ModelError unless the kernel is to compute in the one dtype that these have."""
    check_autocast(q.device)
    if not q.dtype == k.dtype == v.dtype:
        raise ModelError(
            f"attention: found q, k, v of {q.dtype}, {k.dtype}, {v.dtype}; wanted one dtype: "
            "cast them before"
        )


def attend(q: Tensor, k: Tensor, v: Tensor) -> Group:
    """Flash attention of q (B, N, M, D) to one group, as yet without a gradient."""
    check_dtypes(q, k, v)
    if not flash_takes(q.device, q.dtype):
        raise ModelError(
            f'adapter.backend "merged": found {q.dtype} on {q.device.type}; wanted bf16 or fp16 '
            'on a GPU of compute capability 8.0: set base_dtype = "bf16" or backend = "dense"'
        )
    alone = q.detach(), k.detach(), v.detach()
    if q.device.type == "cpu":
        out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(*alone)
        return Group(k, v, out, lse)
    out, lse, _, _, _, _, seed, offset, _ = _aten._scaled_dot_product_flash_attention(*alone)
    return Group(k, v, out, lse, (seed, offset))


def log_sum_exp(q: Tensor, k: Tensor) -> Tensor:
    """Of the logits of q (B, N, M, D) on k (B, N, S, D): (B, N, M) fp32 or fp64, no gradient."""
    if flash_takes(q.device, q.dtype):
        return attend(q, k, k).lse
    dtype, scale = torch.promote_types(q.dtype, torch.float32), q.shape[-1] ** -0.5
    heads = zip(q.detach().to(dtype).unbind(1), k.detach().to(dtype).unbind(1), strict=True)
    return torch.stack([(one * scale @ keys.mT).logsumexp(-1) for one, keys in heads], dim=1)


def merge(q: Tensor, groups: Sequence[Group], bias: Tensor) -> Tensor:
    """One softmax over all groups; differentiable in q and in every k and v.

    bias: (B, G-1, M) fp32, on the keys of each group but the first; -inf hides one. Not learned: it
    gets no gradient. Returns (B, N, M, D).
    """
    shifts = bias.detach()[:, :, None].unbind(1)  # (B, 1, M) each
    eager = q.device.type == "cpu" or torch.compiler.is_compiling()
    merged, lse = (_merge if eager else _fused())(
        [group.out for group in groups], [group.lse for group in groups], shifts
    )
    out = merged.detach()  # a name of its own: torch.compile wants each argument once
    for group, told in zip(groups, [lse, *(lse - shift for shift in shifts)], strict=True):
        out = _Backward.apply(out, q, group.k, group.v, merged, told.contiguous(), *group.seeds)
    return out


def _merge(
    outs: Sequence[Tensor], lses: Sequence[Tensor], shifts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The merged out (B, N, M, D) in the dtype of outs, and lse (B, N, M)."""
    shifted = [lses[0], *(lse + shift for lse, shift in zip(lses[1:], shifts, strict=True))]
    lse = torch.stack(shifted).logsumexp(0)
    merged = outs[0] * (shifted[0] - lse).exp()[..., None]  # keeps the kernel's order in memory
    for one, out in zip(shifted[1:], outs[1:], strict=True):
        merged = merged + out * (one - lse).exp()[..., None]
    return merged.to(outs[0].dtype), lse


@cache
def _fused() -> Any:
    """One kernel in place of several that each carry (B, N, M, D) through memory."""
    return torch.compile(_merge)


class _Backward(torch.autograd.Function):
    """Hands `out` on, and in the backward gives q and one group their share of its gradient."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, *saved: Tensor) -> Tensor:
        """saved: q, k, v, the merged out, lse - b_g, and the group's seeds."""
        ctx.save_for_backward(*saved)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        q, k, v, merged, lse, *seeds = ctx.saved_tensors
        if q.device.type == "cpu":
            kernel = _aten._scaled_dot_product_flash_attention_for_cpu_backward
            told = kernel(grad, q, k, v, merged, lse, 0.0, False)
        else:
            kernel = _aten._scaled_dot_product_flash_attention_backward
            sizes = (None, None, q.shape[2], k.shape[2])  # no packed sequences
            told = kernel(grad, q, k, v, merged, lse, *sizes, 0.0, False, *seeds)
        return grad, *told, None, None, *(None for _ in seeds)
