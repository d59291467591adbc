"""The adapter's weights are PEFT's: names, shapes, beginnings, arithmetic."""

import copy
import math
from dataclasses import replace
from typing import Any, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from peft import LoraConfig
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import nn

from model.config import COGVIDEOX_5B, TINY, AdapterConfig
from model.lora import Lora
from model.transformer import CustomVideoX
from model.weights import init_tiny_base

ADAPTER = AdapterConfig(rank=4, alpha=8)
SMALL = replace(TINY, num_layers=2, attention_head_dim=16)


def with_peft(base: CogVideoXTransformer3DModel) -> CogVideoXTransformer3DModel:
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    base = copy.deepcopy(base)
    base.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    return base


def to_out(base: CogVideoXTransformer3DModel) -> Any:
    return cast(Any, base.transformer_blocks[1]).attn1.to_out[0]


def test_names_and_shapes_are_those_of_peft() -> None:
    base = init_tiny_base(0, SMALL)
    ours = Lora(base, ADAPTER, seed=0).state_dict()
    wanted = get_peft_model_state_dict(with_peft(base))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in wanted.items()}


def test_it_computes_what_peft_computes() -> None:
    base = init_tiny_base(0, SMALL)
    lora: Any = Lora(base, ADAPTER, seed=0).attention(1).to_out[0]
    nn.init.normal_(lora.lora_B.weight)
    peft = to_out(with_peft(base))
    peft.lora_A["default"].weight.data.copy_(lora.lora_A.weight)
    peft.lora_B["default"].weight.data.copy_(lora.lora_B.weight)
    x = torch.randn(2, 3, 64)
    assert torch.allclose(to_out(base)(x) + lora(x), peft(x))


def test_a_fresh_adapter_adds_nothing_and_follows_from_its_seed() -> None:
    base = init_tiny_base(0, SMALL)
    first, again, other = (Lora(base, ADAPTER, seed).state_dict() for seed in (3, 3, 4))
    up = [weight for name, weight in first.items() if "lora_B" in name]
    down = [weight for name, weight in first.items() if "lora_A" in name]
    assert not any(weight.any() for weight in up)
    bound = 1 / math.sqrt(64)  # of Kaiming's uniform with a = sqrt(5)
    assert 0.95 * bound < max(weight.abs().max().item() for weight in down) <= bound
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not torch.equal(down[0], next(v for k, v in other.items() if "lora_A" in k))


def test_the_paper_counts_132_million_weights() -> None:
    with torch.device("meta"):
        base = CogVideoXTransformer3DModel(**COGVIDEOX_5B.keywords())
    model = CustomVideoX(base, AdapterConfig())
    kept = sum(weight.numel() for weight in model.adapter_parameters().values())
    assert kept == 132_120_576
    assert sum(w.numel() for w in model.optimised_parameters().values()) == 130_547_712
    assert round(100 * kept / sum(w.numel() for w in model.parameters()), 1) == 2.3
    assert not any(weight.requires_grad for weight in base.parameters())
