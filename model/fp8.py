"""A frozen base stored in eight bits a weight, and computed in the dtype of what comes in.

O outputs, I inputs of a linear layer.

Every weight is float8_e4m3fn times its output channel's scale, a power of two: multiplying by it
rounds nothing, in bf16 and in fp32, so the base is exactly one whose weights were rounded to four
significant bits, whatever it is computed in.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import (
    CogVideoXBlock,
    CogVideoXTransformer3DModel,
)
from torch import Tensor, nn
from torch.nn import functional

_LARGEST = torch.finfo(torch.float8_e4m3fn).max


class Fp8Linear(nn.Module):
    """A frozen linear layer.

    weight: (O, I) fp8; scale: (O, 1) and bias: (O,) in the base's dtype.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scale = _scale(weight)
        eighth = (weight.float() / scale).to(torch.float8_e4m3fn)
        self.weight = nn.Parameter(eighth, requires_grad=False)
        self.scale = nn.Parameter(scale.to(weight.dtype), requires_grad=False)
        self.bias = linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., I). Returns (..., O)."""
        return cast(Tensor, _Product.apply(x, self.weight, self.scale, self.bias))

    def dequantised(self) -> Tensor:
        """The weight (O, I) in the base's dtype, exactly."""
        return _dequantised(self.weight, self.scale, self.scale.dtype)


class _Product(torch.autograd.Function):
    """x W^T + bias. The backward keeps the eight bits, and widens them once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return functional.linear(x, _dequantised(weight, scale, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        weight, scale = ctx.saved_tensors
        return grad @ _dequantised(weight, scale, grad.dtype), None, None, None


def store_in_fp8(base: CogVideoXTransformer3DModel) -> None:
    """Puts `Fp8Linear` in place of the blocks' attention and feed-forward layers, one at a time.

    The modulations (a seventh of the 5B's weights) stay: their errors are the same for all tokens,
    so that nothing averages them out. So does what is around the blocks.
    """
    for module in base.transformer_blocks:
        block = cast(CogVideoXBlock, module)
        for part in (block.attn1, block.ff):
            linears = [(n, m) for n, m in part.named_modules() if isinstance(m, nn.Linear)]
            for name, linear in linears:
                part.set_submodule(name, Fp8Linear(linear))


def _scale(weight: Tensor) -> Tensor:
    """(O, 1) fp32: the least power of two that takes the channel's largest weight into fp8."""
    largest = weight.float().abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.exp2(torch.ceil(torch.log2(largest / _LARGEST)))


def _dequantised(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype) * scale.to(dtype)
