"""The check of the parity gate on positions, by diffusers' tables and the sum of two angles.

T latent frames, V video tokens, P of one frame, D head dimension, E width, K waves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_sincos_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor

from model.position import Delta, Grid, reference_rotary, reference_table, video_rotary
from model.stock import pipeline_rotary
from training.parity_case import Case, Finding

_BOUND = 1e-4
"""Of a cosine: fp32 has angles up to 100 to 4e-6, and they are turned twice (ours)."""


def positions(case: Case) -> Finding:
    """The video's places are those of diffusers' pipeline; the reference's are its first frame's,
    shifted by delta.
    """
    base, adapter, latents = case.model.transformer, case.model.adapter, case.batch().latents
    patch, (height, width) = base.config["patch_size"], latents.shape[-2:]
    sample = base.config["sample_height"] // patch, base.config["sample_width"] // patch
    grid = Grid(height // patch, width // patch, *sample)
    delta = None if adapter is None or adapter.kind != "reference" else adapter.delta
    rotary = base.config["use_rotary_positional_embeddings"]
    found = (_rotary if rotary else _sincos)(base, latents, grid, delta)
    kind, frames = "rotary" if rotary else "sin-cos", latents.shape[1]
    what = f"{kind} places of {frames}x{grid.height}x{grid.width} patches, with diffusers' pipeline"
    if delta is not None:
        what += f"; a reference's, with the first frame's moved by {delta}"
    return Finding(what, found, _BOUND)


def _rotary(base: Any, latents: Tensor, grid: Grid, delta: Delta | None) -> float:
    head_dim = base.config["attention_head_dim"]
    theirs = _waves(pipeline_rotary(base, latents))
    ours = _waves(video_rotary(grid, latents.shape[1], head_dim, latents.device))
    if delta is None:
        return _apart(ours, theirs)
    (_, left), (_, right) = get_resize_crop_region_for_grid(
        (grid.height, grid.width), grid.base_width, grid.base_height
    )
    shift = (0, 0, left - right) if delta == "-width" else delta
    parts = (head_dim // 4, head_dim // 8 * 3, head_dim // 8 * 3)
    angles = _angles(parts, shift).repeat_interleave(2).to(latents.device)
    first = theirs[: grid.height * grid.width] * torch.polar(torch.ones_like(angles), angles)
    reference = _waves(reference_rotary(grid, 1, delta, head_dim, latents.device))
    return max(_apart(ours, theirs), _apart(reference, first))


def _sincos(base: Any, latents: Tensor, grid: Grid, delta: Delta | None) -> float:
    embed, config = base.patch_embed, base.config
    width = embed.embed_dim
    in_space, in_time = embed.spatial_interpolation_scale, embed.temporal_interpolation_scale
    patch, frames = config["patch_size"], (config["sample_frames"] - 1) // 4 + 1
    sample = config["sample_width"] // patch, config["sample_height"] // patch
    fresh = get_3d_sincos_pos_embed(width, sample, frames, in_space, in_time, output_type="pt")
    held = embed.pos_embedding[0, config["max_text_seq_length"] :].cpu()
    video = float((held.double() - fresh.flatten(0, 1).double()).abs().max())
    if delta is None:
        return video
    size = grid.width, grid.height
    theirs = get_3d_sincos_pos_embed(width, size, 1, in_space, in_time, output_type="pt")
    t, h, w = (0, 0, -grid.width) if delta == "-width" else delta
    shift = (t / in_time, w / in_space, h / in_space)  # in diffusers' order
    parts = (width // 4, width // 8 * 3, width // 8 * 3)
    angles = _angles(parts, shift)
    first = _halves(theirs[0], parts) * torch.polar(torch.ones_like(angles), angles)
    table = reference_table(grid, 1, delta, width, (in_space, in_time), latents.device)
    return max(video, _apart(_halves(table.cpu(), parts), first))


def _waves(table: Any) -> Tensor:
    """(V, D) complex of cosines and sines (V, D) each."""
    cos, sin = table
    return torch.complex(cos.double(), sin.double())


def _halves(table: Tensor, parts: Sequence[int]) -> Tensor:
    """(P, E/2) complex of (P, E), which has the sines of every part before its cosines."""
    pairs = [part.double().chunk(2, dim=1) for part in table.split(list(parts), dim=1)]
    return torch.cat([torch.complex(cos, sin) for sin, cos in pairs], dim=1)


def _angles(parts: Sequence[int], shift: Sequence[float]) -> Tensor:
    """(K,) by which each wave turns: places move by `shift` along the axis of their part."""
    return torch.cat(
        [
            moved * 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
            for size, moved in zip(parts, shift, strict=True)
        ]
    )


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
