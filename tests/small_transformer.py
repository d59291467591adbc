"""A base of three narrow layers, an adapter that has learnt something, and a batch for them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import Tensor, nn

from model.config import TINY, AdapterConfig, EraeConfig
from model.transformer import CustomVideoX
from model.weights import init_tiny_base

SMALL = replace(
    TINY,
    num_layers=3,
    num_attention_heads=2,
    attention_head_dim=16,
    time_embed_dim=24,
    text_embed_dim=10,
    max_text_seq_length=5,
    sample_width=12,
    sample_height=8,
)
SINCOS = replace(SMALL, use_rotary_positional_embeddings=False)
FRAMES, HEIGHT, WIDTH = 2, 3, 4  # in patches: not the base's own grid
PATCHES = HEIGHT * WIDTH
ADAPTER = AdapterConfig(rank=3, alpha=6, erae=EraeConfig(train=True))


def base_of(config: Any = SMALL) -> CogVideoXTransformer3DModel:
    """Norms and biases are made to matter: fresh ones are ones and zeros."""
    base = init_tiny_base(0, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in base.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return base


def model_of(adapter: AdapterConfig | None = ADAPTER, config: Any = SMALL) -> CustomVideoX:
    """With an adapter that was trained, so to speak."""
    model = CustomVideoX(base_of(config), adapter)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.adapter_parameters().values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def calls_of_first_keys(model: Any) -> list[int]:
    """Grows by one with every call of the first block's to_k, in forward and in backward."""
    calls: list[int] = []

    def count(layer: nn.Module, given: Any, out: Tensor) -> None:
        calls.append(out.shape[1])

    model.transformer.transformer_blocks[0].attn1.to_k.register_forward_hook(count)
    return calls


@dataclass
class Batch:
    """Two samples at two times."""

    latents: Tensor
    timestep: Tensor
    text: Tensor
    reference: Tensor
    region: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32, num_references: int = 1) -> None:
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.latents = normal(2, FRAMES, 16, 2 * HEIGHT, 2 * WIDTH)
        self.timestep = torch.tensor([500, 80])
        self.text = normal(2, 5, 10)
        self.reference = normal(2, num_references, 16, 2 * HEIGHT, 2 * WIDTH)
        self.region = normal(2, FRAMES * PATCHES) > 0.5
