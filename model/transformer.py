"""CustomVideoX: a CogVideoX base with reference tokens.

B batch, T latent frames, H x W latent pixels, C channels (16), n references; p patch (2),
h = H/p, w = W/p; L text tokens of size D, V = T*h*w video tokens, M = L+V main tokens,
R = n*h*w reference tokens, E width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from diffusers.models.normalization import CogVideoXLayerNormZero
from diffusers.models.transformers.cogvideox_transformer_3d import (
    CogVideoXBlock,
    CogVideoXTransformer3DModel,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.attention import Plan, Seen, dense_mask, reference_attention
from model.bias import reference_bias
from model.config import AdapterConfig
from model.errors import ModelError
from model.lora import Attention, AttentionLora, ReferenceLora
from model.position import Grid, main_rotary, reference_rotary, reference_table, video_rotary


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a forward saw that was told the entity.

    weight: (layers, B), the share of the video's attention that is on the reference, per layer;
    activation: (B, V), A_e, the mean over ERAE's layers.
    """

    weight: Tensor
    activation: Tensor


class CustomVideoX(nn.Module):
    """The base alone, or frozen and with an adapter that reads reference pictures.

    seed: of the fresh adapter, whose B is zero. It is not the base even so: clean tokens that it
    was never trained with disturb the video.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        adapter: AdapterConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.adapter = adapter
        self.diagnostics: Diagnostics | None = None
        self.lora: ReferenceLora | None = None
        if adapter is not None:
            adapter.erae.chosen_layers(len(transformer.transformer_blocks))
            transformer.requires_grad_(False)
            self.lora = ReferenceLora(transformer, adapter, seed)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """All weights of the adapter by name: what its file holds."""
        return {} if self.lora is None else dict(self.lora.named_parameters(prefix="lora"))

    def optimised_parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's weights that take a gradient, or all of the base's without an adapter."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        reference: Tensor | None = None,
        region: Tensor | None = None,
        present: Tensor | None = None,
        *,
        entity: Tensor | None = None,
        sampling: bool = False,
    ) -> Tensor:
        """The v of noisy latents. Without references this is the stock transformer, bit for bit.

        latents: (B, T, C, H, W), scaled and noised; timestep: (B,); text: (B, L, D), padded;
        reference: (B, n, C, H, W), clean and scaled; region: (B, V) bool, ERAE's R; present: (B,)
        bool, False hides the references of one sample. entity: (B, L) bool, its text tokens: fills
        `diagnostics`. sampling: whether the adapter's switches for sampling hold, or those for
        training. Returns (B, T, C, H, W) in the dtype of latents.
        """
        self.diagnostics = None
        dtype = self.transformer.dtype
        noisy, prompt = latents.to(dtype), text.to(dtype)
        grid = self._grid(noisy)
        if reference is None:
            v = self._base(noisy, timestep, prompt, grid)
        else:
            adapter = self._checked(latents, text, reference, region, sampling)
            bias = reference_bias(
                adapter,
                timestep,
                text.shape[1],
                latents.shape[1] * grid.height * grid.width,
                region,
                present,
                sampling,
            )
            clean = reference.to(dtype)
            plan = self._plan(adapter, grid, noisy, prompt, clean, bias, entity)
            v = self._with_reference(adapter, grid, plan, noisy, timestep, prompt, clean)
        return v.to(latents.dtype)

    def _base(self, latents: Tensor, timestep: Tensor, text: Tensor, grid: Grid) -> Tensor:
        rotary = None
        if self.transformer.config["use_rotary_positional_embeddings"]:
            head_dim = self.transformer.config["attention_head_dim"]
            rotary = video_rotary(grid, latents.shape[1], head_dim, latents.device)
        (v,) = self.transformer(
            hidden_states=latents,
            encoder_hidden_states=text,
            timestep=timestep,
            image_rotary_emb=rotary,
            return_dict=False,
        )
        return v

    def _plan(
        self,
        adapter: AdapterConfig,
        grid: Grid,
        latents: Tensor,
        text: Tensor,
        reference: Tensor,
        bias: Tensor | None,
        entity: Tensor | None,
    ) -> Plan:
        config, device = self.transformer.config, latents.device
        num_references = reference.shape[1]
        rotary, shifted = None, None
        if config["use_rotary_positional_embeddings"]:
            head_dim = config["attention_head_dim"]
            rotary = main_rotary(grid, latents.shape[1], text.shape[1], head_dim, device)
            shifted = reference_rotary(grid, num_references, adapter.delta, head_dim, device)
        mask = dense_mask(bias, num_references * grid.height * grid.width, latents.dtype)
        return Plan(adapter.attention, text.shape[1], rotary, shifted, bias, mask, entity)

    def _with_reference(
        self,
        adapter: AdapterConfig,
        grid: Grid,
        plan: Plan,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        reference: Tensor,
    ) -> Tensor:
        base, lora = self.transformer, cast(ReferenceLora, self.lora)
        clean = torch.zeros_like(timestep) if adapter.reference_timestep == "zero" else timestep
        time, reference_time = self._time(timestep), self._time(clean)
        main = base.embedding_dropout(base.patch_embed(text, latents))  # (B, M, E)
        tokens = self._reference_tokens(reference, adapter, grid)  # (B, R, E)

        seen: list[Seen] = []
        last = len(base.transformer_blocks) - 1
        for layer, module in enumerate(base.transformer_blocks):
            block = cast(CogVideoXBlock, module)
            step = (block, lora.attention(layer), main, tokens, time, reference_time, plan)
            if base.gradient_checkpointing and torch.is_grad_enabled():
                done = checkpoint(_block, *step, layer == last, use_reentrant=False)
                main, tokens, saw = cast(tuple[Tensor, Tensor, Seen | None], done)
            else:
                main, tokens, saw = _block(*step, layer == last)
            if saw is not None:
                seen.append(saw)
        if seen:
            chosen = adapter.erae.chosen_layers(len(seen))
            self.diagnostics = Diagnostics(
                torch.stack([one.weight for one in seen]),
                torch.stack([seen[layer].activation for layer in chosen]).mean(0),
            )
        video = base.norm_final(main[:, plan.num_text_tokens :])
        video = base.proj_out(base.norm_out(video, temb=time))  # (B, V, p*p*C)
        return self._pictures(video, latents.shape[1], grid)

    def _time(self, timestep: Tensor) -> Tensor:
        """(B,) -> (B, time_embed_dim)."""
        base = self.transformer
        return base.time_embedding(base.time_proj(timestep).to(base.dtype))

    def _reference_tokens(self, reference: Tensor, adapter: AdapterConfig, grid: Grid) -> Tensor:
        """(B, n, C, H, W) -> (B, R, E): the base's own patches, at shifted places."""
        embed, batch = self.transformer.patch_embed, len(reference)
        patches = embed.proj(reference.flatten(0, 1))  # (B*n, E, h, w)
        tokens = patches.flatten(2).transpose(1, 2).unflatten(0, (batch, -1)).flatten(1, 2)
        if self.transformer.config["use_rotary_positional_embeddings"]:
            return tokens
        scales = (embed.spatial_interpolation_scale, embed.temporal_interpolation_scale)
        table = reference_table(
            grid, reference.shape[1], adapter.delta, tokens.shape[2], scales, tokens.device
        )
        return tokens + table.to(tokens.dtype)

    def _pictures(self, tokens: Tensor, num_frames: int, grid: Grid) -> Tensor:
        """(B, V, C*p*p) -> (B, T, C, H, W)."""
        p = self.transformer.config["patch_size"]
        patches = tokens.unflatten(2, (-1, p, p)).unflatten(
            1, (num_frames, grid.height, grid.width)
        )
        return patches.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)

    def _grid(self, latents: Tensor) -> Grid:
        config = self.transformer.config
        p, (height, width) = config["patch_size"], latents.shape[-2:]
        if height % p or width % p:
            raise ModelError(
                f"found latents of {height}x{width}; wanted multiples of the patch, {p}: "
                f"use videos whose sides are multiples of {8 * p}"
            )
        return Grid(
            height // p, width // p, config["sample_height"] // p, config["sample_width"] // p
        )

    def _checked(
        self,
        latents: Tensor,
        text: Tensor,
        reference: Tensor,
        region: Tensor | None,
        sampling: bool,
    ) -> AdapterConfig:
        """The adapter's config, once the call fits it."""
        if self.adapter is None:
            raise ModelError(
                "found a reference and no adapter; the base reads none: give the model an adapter"
            )
        if reference.shape[2:] != latents.shape[2:] or len(reference) != len(latents):
            raise ModelError(
                f"found references {tuple(reference.shape)} for latents {tuple(latents.shape)}; "
                "wanted the same batch, channels and size: encode both alike"
            )
        acts = self.adapter.erae.sample if sampling else self.adapter.erae.train
        if region is not None and not acts:
            word = "sample" if sampling else "train"
            raise ModelError(
                f"found a region, while erae.{word} is off; leave the region out or switch it on"
            )
        return self.adapter


def _block(
    block: CogVideoXBlock,
    lora: AttentionLora,
    main: Tensor,
    reference: Tensor,
    time: Tensor,
    reference_time: Tensor,
    plan: Plan,
    last: bool,
) -> tuple[Tensor, Tensor, Seen | None]:
    """One layer of both streams; in the last one the reference only answers, and stays as it was.

    main: (B, M, E); reference: (B, R, E); time, reference_time: (B, time_embed_dim).
    """
    text, video = main.split([plan.num_text_tokens, main.shape[1] - plan.num_text_tokens], dim=1)
    n_video, n_text, gate, text_gate = block.norm1(video, text, time)
    n_reference, reference_gate = _modulate(block.norm1, reference, reference_time)
    out, out_reference, seen = reference_attention(
        cast(Attention, block.attn1),
        lora,
        torch.cat([n_text, n_video], dim=1),
        n_reference,
        plan,
        last,
    )
    text = text + text_gate * out[:, : plan.num_text_tokens]
    video = video + gate * out[:, plan.num_text_tokens :]

    n_video, n_text, gate, text_gate = block.norm2(video, text, time)
    out = block.ff(torch.cat([n_text, n_video], dim=1))
    text = text + text_gate * out[:, : plan.num_text_tokens]
    video = video + gate * out[:, plan.num_text_tokens :]

    if out_reference is not None:
        reference = reference + reference_gate * out_reference
        n_reference, reference_gate = _modulate(block.norm2, reference, reference_time)
        reference = reference + reference_gate * block.ff(n_reference)
    return torch.cat([text, video], dim=1), reference, seen


def _modulate(norm: CogVideoXLayerNormZero, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """The visual expert's three of six: x (B, R, E) shifted and scaled, and its gate (B, 1, E)."""
    shift, scale, gate, _, _, _ = norm.linear(norm.silu(time))[:, None].chunk(6, dim=2)
    return norm.norm(x) * (1 + scale) + shift, gate
