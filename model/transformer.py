"""CustomVideoX: a CogVideoX base with reference tokens.

B batch, T latent frames, H x W latent pixels, C channels (16), n references; p patch (2),
h = H/p, w = W/p; L text tokens of size D, V = T*h*w video tokens, M = L+V main tokens,
R = n*h*w reference tokens, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import (
    CogVideoXBlock,
    CogVideoXTransformer3DModel,
)
from torch import Tensor

from model.adapted import Adapted, Diagnostics
from model.attention import Pair, Plan, Seen
from model.bias import reference_bias
from model.block import both_streams, main_stream, reference_stream
from model.config import OWN, AdapterConfig, Kind
from model.fitting import check_entity, check_present, check_region, check_unused
from model.lora import Lora
from model.memory import ReferenceMemory, check_memory
from model.position import Grid, Rotary, main_rotary, reference_rotary, reference_table
from model.softmax import chosen, dense_mask, reference_mask

BlockCall = Callable[..., tuple[Tensor, Tensor, Seen | None]]
"""`both_streams` of one block, as it is computed here (model/compute.py)."""


class CustomVideoX(Adapted):
    """The base alone, or frozen and with an adapter that reads reference pictures.

    A fresh adapter is not the base even so: clean tokens that it was never trained with disturb
    the video.
    """

    kind: ClassVar[Kind] = "reference"

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        adapter: AdapterConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transformer, adapter, seed)
        self.block_calls: list[BlockCall] = [
            partial(both_streams, cast(CogVideoXBlock, block))
            for block in transformer.transformer_blocks
        ]
        if adapter is None or self.lora is None:
            return
        num_layers = len(transformer.transformer_blocks)
        adapter.erae.chosen_layers(num_layers)
        # The last block's reference queries feed nothing: an optimizer's decay would shrink their
        # weights, and DDP wait for gradients that never come.
        last = self.lora.attention(num_layers - 1)
        last.to_q.requires_grad_(False)
        last.to_out.requires_grad_(False)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        reference: Tensor | ReferenceMemory | None = None,
        region: Tensor | None = None,
        present: Tensor | None = None,
        *,
        entity: Tensor | None = None,
        sampling: bool = False,
    ) -> Tensor:
        """The v of noisy latents. Without references this is the stock transformer, bit for bit.

        latents: (B, T, C, H, W), scaled and noised; timestep: (B,); text: (B, L, D), padded;
        reference: (B, n, C, H, W), clean and scaled, or what `remember` made of it; region: (B, V)
        or (B, n, V) bool, ERAE's R, or with erae.layers "own" (layers, B, e, V), by default of each
        layer's A_e; present: (B,) or (B, n) bool, False hides references of one sample. entity:
        (B, L) or (B, n, L) bool, the text tokens of the subject, or of each reference's: fills
        `diagnostics`. sampling: whether the adapter's switches for sampling hold, or those for
        training. Returns (B, T, C, H, W) in the dtype of latents.
        """
        self.diagnostics = None
        dtype = self.transformer.dtype
        noisy, prompt = latents.to(dtype), text.to(dtype)
        grid = self._grid(noisy)
        if reference is None:
            check_unused(region=region, present=present, entity=entity)
            return self._base(noisy, timestep, prompt, grid).to(latents.dtype)
        size = tuple(reference.shape)
        adapter = self._fitting(size, latents)
        if isinstance(reference, ReferenceMemory):
            check_memory(adapter)
            present = reference.present_with(present)
        else:
            reference = reference.to(dtype)
        num_video = latents.shape[1] * grid.height * grid.width
        check_entity(entity, size, text.shape[1])
        check_present(present, size)
        check_region(
            region,
            adapter.erae,
            len(self.transformer.transformer_blocks),
            size,
            num_video,
            sampling,
        )
        own = adapter.erae.acts(sampling) and adapter.erae.layers == OWN
        subjects = entity[:, None] if entity is not None and entity.dim() == 2 else entity
        bias = reference_bias(
            adapter,
            timestep,
            text.shape[1],
            num_video,
            None if own else region,
            present,
            sampling,
            size[1],
        )
        plan = self._plan(adapter, grid, noisy, prompt, size[1], bias, present, subjects, own)
        regions = region if own else None
        v = self._with_reference(adapter, grid, plan, noisy, timestep, prompt, reference, regions)
        return v.to(latents.dtype)

    def remember(self, reference: Tensor, present: Tensor | None = None) -> ReferenceMemory:
        """What `forward` reads of clean references (B, n, C, H, W), for many timesteps and prompts.

        present: see `forward`, which is told no other then. The numbers are the same as without.
        Raises ModelError where the reference's tokens depend on the video or its timestep.
        """
        adapter = self._fitting(reference.shape, reference)
        check_memory(adapter)
        check_present(present, reference.shape)
        clean, num_references = reference.to(self.transformer.dtype), reference.shape[1]
        grid = self._grid(clean)
        time = self._time(torch.zeros(len(clean), dtype=torch.int64, device=clean.device))
        tokens = self._reference_tokens(clean, adapter, grid)
        rotary = self._reference_rotary(adapter, grid, num_references, clean.device)
        mask = _reference_mask(adapter, present, 0, tokens.shape[1])
        pairs: list[Pair] = []
        last = len(self.transformer.transformer_blocks) - 1
        for layer, module in enumerate(self.transformer.transformer_blocks):
            block, lora = cast(CogVideoXBlock, module), cast(Lora, self.lora).attention(layer)
            tokens, pair = reference_stream(block, lora, tokens, time, rotary, mask, layer == last)
            pairs.append(pair)
        return ReferenceMemory(tuple(pairs), tuple(reference.shape), present)

    def _plan(
        self,
        adapter: AdapterConfig,
        grid: Grid,
        latents: Tensor,
        text: Tensor,
        num_references: int,
        bias: Tensor | None,
        present: Tensor | None,
        entity: Tensor | None,
        own: bool,
    ) -> Plan:
        config, device = self.transformer.config, latents.device
        num_patches = grid.height * grid.width
        num_main = text.shape[1] + latents.shape[1] * num_patches
        num_reference_tokens = num_references * num_patches
        rotary = None
        if config["use_rotary_positional_embeddings"]:
            head_dim = config["attention_head_dim"]
            rotary = main_rotary(grid, latents.shape[1], text.shape[1], head_dim, device)
        backend, mask = chosen(adapter.backend, device, latents.dtype), None
        if bias is None:
            bias = torch.zeros(len(latents), num_references, num_main, device=device)
        elif backend == "dense":
            mask = dense_mask(bias, num_reference_tokens, latents.dtype)
        return Plan(
            attention=adapter.attention,
            backend=backend,
            num_frames=latents.shape[1],
            num_text_tokens=text.shape[1],
            main_rotary=rotary,
            reference_rotary=self._reference_rotary(adapter, grid, num_references, device),
            bias=bias,
            mask=mask,
            reference_mask=_reference_mask(adapter, present, num_main, num_reference_tokens),
            entity=entity,
            own=adapter.erae if own else None,
        )

    def _with_reference(
        self,
        adapter: AdapterConfig,
        grid: Grid,
        plan: Plan,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        reference: Tensor | ReferenceMemory,
        regions: Tensor | None,
    ) -> Tensor:
        base, lora = self.transformer, cast(Lora, self.lora)
        clean = torch.zeros_like(timestep) if adapter.reference_timestep == "zero" else timestep
        time, reference_time = self._time(timestep), self._time(clean)
        main = base.embedding_dropout(base.patch_embed(text, latents))  # (B, M, E)
        if not isinstance(reference, ReferenceMemory):
            reference = self._reference_tokens(reference, adapter, grid)  # (B, R, E)

        seen: list[Seen] = []
        last = len(base.transformer_blocks) - 1
        for layer, module in enumerate(base.transformer_blocks):
            block, region = cast(CogVideoXBlock, module), None
            if regions is not None:
                region = regions[layer]
            if isinstance(reference, ReferenceMemory):
                pair = reference.pairs[layer]
                main, _, saw = main_stream(block, main, pair, time, plan, region)
            else:
                streams = (main, reference, time, reference_time)
                main, reference, saw = self.block_calls[layer](
                    lora.attention(layer), *streams, plan, region, layer == last
                )
            if saw is not None:
                seen.append(saw)
        if seen:
            self.diagnostics = _summed_up(seen, adapter.erae.chosen_layers(len(seen)))
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

    def _reference_rotary(
        self, adapter: AdapterConfig, grid: Grid, num_references: int, device: torch.device
    ) -> Rotary | None:
        config = self.transformer.config
        if not config["use_rotary_positional_embeddings"]:
            return None
        head_dim = config["attention_head_dim"]
        return reference_rotary(grid, num_references, adapter.delta, head_dim, device)


def _summed_up(seen: Sequence[Seen], layers: range) -> Diagnostics:
    """layers: whose A_e is averaged."""
    chosen_maps = [seen[layer].activation for layer in layers]
    maps = [one for one in chosen_maps if one is not None]
    regions = [one.region for one in seen if one.region is not None]
    return Diagnostics(
        torch.stack([one.weight for one in seen]),
        torch.stack(maps).mean(0) if maps else None,
        torch.stack(regions) if regions else None,
    )


def _reference_mask(
    adapter: AdapterConfig, present: Tensor | None, num_main: int, num_reference_tokens: int
) -> Tensor | None:
    """A reference that is absent is so for the sample's other references too."""
    if present is None or present.dim() == 1 or present.shape[1] == 1:
        return None
    seen_of_main = num_main if adapter.attention == "joint" else 0
    return reference_mask(present, seen_of_main, num_reference_tokens)
