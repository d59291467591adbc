"""Where the video's tokens are, and where the reference's: shifted by delta (Eq. 5).

T latent frames, h x w patches, V = T*h*w video tokens, n references, R = n*h*w, D head dimension,
C width. Rotary tables are (cos, sin), each (tokens, D) fp32; a base without them adds sin-cos
tables, (tokens, C), to its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Literal, ParamSpec, TypeVar, cast

import torch
from diffusers.models.embeddings import (
    get_1d_rotary_pos_embed,
    get_1d_sincos_pos_embed_from_grid,
    get_3d_rotary_pos_embed,
)
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor

Rotary = tuple[Tensor, Tensor]
Delta = Literal["-width"] | tuple[int, int, int]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Grid:
    """height x width patches of one latent frame.

    base_height x base_width: the grid that the base was trained at; other sizes are stretched or
    shrunk into it.
    """

    height: int
    width: int
    base_height: int
    base_width: int

    def crop(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Diffusers' rule: (top, left), (bottom, right) of this grid within the base's."""
        return get_resize_crop_region_for_grid(
            (self.height, self.width), self.base_width, self.base_height
        )

    def extent(self) -> int:
        """How wide the grid is in the coordinates of `lines`: at the base's own size its width."""
        (_, left), (_, right) = self.crop()
        return right - left

    def lines(self) -> tuple[Tensor, Tensor]:
        """The coordinates (h,) and (w,) of the patches, by diffusers' crop rule, fp32."""
        start, stop = self.crop()
        ends = [size * (n - 1) / n for size, n in zip(stop, (self.height, self.width), strict=True)]
        return (
            torch.linspace(start[0], ends[0], self.height, dtype=torch.float32),
            torch.linspace(start[1], ends[1], self.width, dtype=torch.float32),
        )


def _cached(make: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Tables are made once per size, as plain tensors even when sampling asks for them first."""
    kept = lru_cache(maxsize=16)(make)

    @wraps(make)
    def table(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with torch.inference_mode(False):
            return kept(*args, **kwargs)

    return table


@_cached
def video_rotary(grid: Grid, num_frames: int, head_dim: int, device: torch.device) -> Rotary:
    """(V, D): what diffusers' pipeline gives the transformer."""
    cos, sin = get_3d_rotary_pos_embed(
        embed_dim=head_dim,
        crops_coords=grid.crop(),
        grid_size=(grid.height, grid.width),
        temporal_size=num_frames,
        device=device,
    )
    return cos, sin


@_cached
def main_rotary(
    grid: Grid, num_frames: int, num_text_tokens: int, head_dim: int, device: torch.device
) -> Rotary:
    """(L+V, D): the video's, after text tokens that are not turned."""
    cos, sin = video_rotary(grid, num_frames, head_dim, device)
    still = cos.new_zeros(num_text_tokens, head_dim)
    return torch.cat([still + 1, cos]), torch.cat([still, sin])


@_cached
def reference_rotary(
    grid: Grid, num_references: int, delta: Delta, head_dim: int, device: torch.device
) -> Rotary:
    """(R, D): the first latent frame's places, shifted by delta once more for every reference."""
    t, h, w = (place.to(device) for place in reference_places(grid, num_references, delta))
    tables = [
        get_1d_rotary_pos_embed(size, cast(Any, places), use_real=True)
        for size, places in (
            (head_dim // 4, t),
            (head_dim // 8 * 3, h),
            (head_dim // 8 * 3, w),
        )
    ]
    cos, sin = (torch.cat(parts, dim=1) for parts in zip(*tables, strict=True))
    return cos, sin


@_cached
def reference_table(
    grid: Grid,
    num_references: int,
    delta: Delta,
    width: int,
    scales: tuple[float, float],
    device: torch.device,
) -> Tensor:
    """(R, C): the sin-cos table of the 2B at the shifted places, in fp64 as diffusers has it.

    scales: the base's spatial and temporal interpolation scale. This base counts patches and
    knows no crop.
    """
    counted = Grid(grid.height, grid.width, grid.height, grid.width)
    t, h, w = (place.to(device) for place in reference_places(counted, num_references, delta))
    return torch.cat(
        [
            get_1d_sincos_pos_embed_from_grid(width // 4, t / scales[1]),
            get_1d_sincos_pos_embed_from_grid(width // 8 * 3, w / scales[0]),
            get_1d_sincos_pos_embed_from_grid(width // 8 * 3, h / scales[0]),
        ],
        dim=1,
    )


def reference_places(
    grid: Grid, num_references: int, delta: Delta
) -> tuple[Tensor, Tensor, Tensor]:
    """(t, h, w) of every reference token, each (R,) fp32."""
    shift = torch.tensor((0, 0, -grid.extent()) if delta == "-width" else delta)
    h, w = torch.meshgrid(*grid.lines(), indexing="ij")
    place = torch.stack([torch.zeros_like(h), h, w]).flatten(1)  # (3, h*w)
    times = torch.arange(1, num_references + 1, dtype=torch.float32)
    places = place[:, None, :] + shift[:, None, None] * times[None, :, None]  # (3, n, h*w)
    t, h, w = places.flatten(1)
    return t, h, w
