"""What training on references is without our code: diffusers' transformer, PEFT's LoRA, a mask.

The reference is one more latent frame whose tokens everybody sees through a bias, written out as a
mask; the LoRA is on all tokens, every block is computed again in the backward, and the LoRA's fp32
weights meet bf16 by autocast, as in diffusers' own training scripts.

B batch, T latent frames, S all tokens, L text tokens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional

from model.position import Grid, video_rotary


class Baseline(nn.Module):
    """Called like our models; changes the base where it stands."""

    def __init__(self, base: CogVideoXTransformer3DModel, rank: int, bias: float) -> None:
        super().__init__()
        base.requires_grad_(False)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        base.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
        cast_training_params(base, torch.float32)
        base.enable_gradient_checkpointing()
        self.processor = _Masked()
        base.set_attn_processor(cast(Any, self.processor))
        self.transformer, self._bias = base, bias

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor, reference: Tensor) -> Tensor:
        """latents: (B, T, C, H, W); reference: (B, 1, C, H, W). Returns (B, T, C, H, W)."""
        base, frames = self.transformer, latents.shape[1] + 1
        config, (height, width) = base.config, (side // 2 for side in latents.shape[-2:])
        grid = Grid(height, width, config["sample_height"] // 2, config["sample_width"] // 2)
        head_dim = config["attention_head_dim"]
        size = text.shape[1] + frames * height * width
        dtype = torch.bfloat16 if latents.device.type == "cuda" else torch.float32
        mask = torch.zeros(1, 1, size, size, dtype=dtype, device=latents.device)
        mask[..., : -height * width, -height * width :] = self._bias
        self.processor.mask = mask
        with torch.autocast(latents.device.type, dtype, enabled=dtype == torch.bfloat16):
            (v,) = base(
                hidden_states=torch.cat([latents, reference], dim=1).to(dtype),
                encoder_hidden_states=text.to(dtype),
                timestep=timestep,
                image_rotary_emb=video_rotary(grid, frames, head_dim, latents.device),
                return_dict=False,
            )
        return v[:, :-1]


class _Masked:
    """diffusers' processor with a mask that all heads share: its own writes one for each."""

    mask: Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        num_text = encoder_hidden_states.shape[1]
        both = torch.cat([encoder_hidden_states, hidden_states], dim=1)  # (B, S, C)
        q, k, v = (
            layer(both).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k = attn.norm_q(q), attn.norm_k(k)
        q[:, :, num_text:] = apply_rotary_emb(q[:, :, num_text:], cast(Any, image_rotary_emb))
        k[:, :, num_text:] = apply_rotary_emb(k[:, :, num_text:], cast(Any, image_rotary_emb))
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast leaves norms in fp32
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        out = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return out[:, num_text:], out[:, :num_text]
