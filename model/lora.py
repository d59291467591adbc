"""The LoRA's weights, named as PEFT names them.

B batch, R reference tokens, C width, r rank.
"""

from __future__ import annotations

import math
from typing import Protocol, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional

from model.config import AdapterConfig


class Attention(Protocol):
    """The layers of diffusers' class of this name that a CogVideoX block has."""

    heads: int
    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    to_out: nn.ModuleList
    norm_q: nn.Module
    norm_k: nn.Module


class LowRank(nn.Module):
    """scale * B(A(x)) for one linear layer; fp32 weights, computed in the dtype of x."""

    def __init__(self, target: nn.Linear, adapter: AdapterConfig, generator: torch.Generator):
        super().__init__()
        device = target.weight.device
        down = torch.empty(adapter.rank, target.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)  # as PEFT
        self.lora_A = nn.Linear(target.in_features, adapter.rank, bias=False, device="meta")
        self.lora_B = nn.Linear(adapter.rank, target.out_features, bias=False, device="meta")
        self.lora_A.weight = nn.Parameter(down.to(device))
        up = torch.zeros(target.out_features, adapter.rank, device=device)
        self.lora_B.weight = nn.Parameter(up)
        self.scale = adapter.alpha / adapter.rank

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, R, in). Returns (B, R, out)."""
        low = functional.linear(x, self.lora_A.weight.to(x.dtype))  # (B, R, r)
        return functional.linear(low, self.lora_B.weight.to(x.dtype)) * self.scale


class AttentionLora(nn.Module):
    """The four of one block's attention."""

    def __init__(self, attn: Attention, adapter: AdapterConfig, generator: torch.Generator):
        super().__init__()
        to_q, to_k, to_v, to_out = (
            LowRank(cast(nn.Linear, layer), adapter, generator)
            for layer in (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])
        )
        self.to_q, self.to_k, self.to_v = to_q, to_k, to_v
        self.to_out = nn.ModuleList([to_out])


class BlockLora(nn.Module):
    """One block's; it has this level for the sake of PEFT's names."""

    def __init__(self, attn: Attention, adapter: AdapterConfig, generator: torch.Generator):
        super().__init__()
        self.attn1 = AttentionLora(attn, adapter, generator)


class Lora(nn.Module):
    """All of a base's blocks. Its state dict has PEFT's names and shapes."""

    def __init__(self, base: CogVideoXTransformer3DModel, adapter: AdapterConfig, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.transformer_blocks = nn.ModuleList(
            BlockLora(cast(Attention, block.attn1), adapter, generator)
            for block in base.transformer_blocks
        )

    def attention(self, layer: int) -> AttentionLora:
        """The LoRA of one layer's attention."""
        return cast(BlockLora, self.transformer_blocks[layer]).attn1
