"""Where tokens are: the video's as in diffusers, the reference's shifted."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb, get_3d_sincos_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline

from model.config import COGVIDEOX_5B, TINY, TransformerConfig
from model.position import (
    Grid,
    main_rotary,
    reference_places,
    reference_rotary,
    reference_table,
    video_rotary,
)

CPU = torch.device("cpu")


def grid_of(config: TransformerConfig, height: int, width: int) -> Grid:
    return Grid(height // 16, width // 16, config.sample_height // 2, config.sample_width // 2)


def of_the_pipeline(
    config: TransformerConfig, height: int, width: int, num_frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Diffusers' own, from video pixels."""
    known = {**config.keywords(), "patch_size": 2, "patch_size_t": None}
    pipeline = SimpleNamespace(
        vae_scale_factor_spatial=8, transformer=SimpleNamespace(config=SimpleNamespace(**known))
    )
    make = CogVideoXPipeline._prepare_rotary_positional_embeddings
    return make(cast(Any, pipeline), height, width, num_frames, CPU)


@pytest.mark.parametrize(
    ("config", "height", "width", "num_frames"),
    [
        (COGVIDEOX_5B, 480, 720, 7),
        (COGVIDEOX_5B, 480, 720, 13),
        (COGVIDEOX_5B, 256, 384, 7),
        (COGVIDEOX_5B, 480, 480, 3),
        (TINY, 128, 192, 7),
    ],
)
def test_the_video_is_where_diffusers_puts_it(
    config: TransformerConfig, height: int, width: int, num_frames: int
) -> None:
    grid = grid_of(config, height, width)
    ours = video_rotary(grid, num_frames, config.attention_head_dim, CPU)
    wanted = of_the_pipeline(config, height, width, num_frames)
    assert torch.equal(ours[0], wanted[0])
    assert torch.equal(ours[1], wanted[1])


@pytest.mark.parametrize(("height", "width"), [(480, 720), (256, 384), (480, 480), (320, 720)])
def test_an_unshifted_reference_lies_on_the_first_frame(height: int, width: int) -> None:
    grid = grid_of(COGVIDEOX_5B, height, width)
    ours = reference_rotary(grid, 1, (0, 0, 0), 64, CPU)
    first = video_rotary(grid, 7, 64, CPU)
    patches = grid.height * grid.width
    assert torch.equal(ours[0], first[0][:patches])
    assert torch.equal(ours[1], first[1][:patches])


def test_references_lie_side_by_side_left_of_the_video() -> None:
    t, h, w = reference_places(grid_of(COGVIDEOX_5B, 480, 720), 2, "-width")
    w, h = w.reshape(2, 30, 45), h.reshape(2, 30, 45)
    assert torch.allclose(w[0, 3], torch.arange(-45.0, 0.0), atol=1e-4)
    assert torch.allclose(w[1, 3], torch.arange(-90.0, -45.0), atol=1e-4)
    assert torch.allclose(h[1, :, 7], torch.arange(30.0), atol=1e-4)
    assert not t.any()


@pytest.mark.parametrize(("height", "width"), [(480, 720), (256, 384), (480, 480), (320, 720)])
def test_no_reference_lies_in_the_video_or_in_another_at_any_size(height: int, width: int) -> None:
    """The step from one patch to the next is the same all the way, from picture to picture too."""
    grid = grid_of(COGVIDEOX_5B, height, width)
    _, _, w = reference_places(grid, 2, "-width")
    near, far = w.reshape(2, grid.height, grid.width)[:, 0]
    line = torch.cat([far, near, grid.lines()[1]])
    step = line.diff()
    assert (step > 0).all()
    assert step[grid.width - 1] == pytest.approx(step[2 * grid.width - 1].item(), abs=1e-4)
    assert near[-1] < grid.lines()[1][0]


def test_attention_knows_the_distance_alone() -> None:
    grid = grid_of(TINY, 128, 192)
    q = torch.randn(1, 1, 1, 32, generator=torch.Generator().manual_seed(0))
    k = torch.randn(1, 1, 96, 32, generator=torch.Generator().manual_seed(1))

    def logits(delta: tuple[int, int, int], at: int) -> torch.Tensor:
        cos, sin = reference_rotary(grid, 1, delta, 32, CPU)
        asked = apply_rotary_emb(q, cast(Any, (cos[at : at + 1], sin[at : at + 1])))
        return (
            cast(torch.Tensor, asked)
            @ cast(torch.Tensor, apply_rotary_emb(k, cast(Any, (cos, sin)))).mT
        )

    assert torch.allclose(logits((0, 0, 0), 40), logits((3, -5, -12), 40), atol=1e-4)


def test_text_is_not_turned() -> None:
    grid = grid_of(TINY, 128, 192)
    cos, sin = main_rotary(grid, 7, 5, 32, CPU)
    x = torch.randn(1, 1, 5 + 672, 32, generator=torch.Generator().manual_seed(0))
    turned = cast(torch.Tensor, apply_rotary_emb(x, cast(Any, (cos, sin))))
    assert torch.equal(turned[:, :, :5], x[:, :, :5])
    assert not torch.equal(turned[:, :, 5 + 96 :], x[:, :, 5 + 96 :])


def test_the_2b_reads_its_table_at_shifted_places() -> None:
    grid = grid_of(COGVIDEOX_5B, 480, 720)
    table = get_3d_sincos_pos_embed(1920, (45, 30), 7, 1.875, 1.0)
    still = reference_table(grid, 1, (0, 0, 0), 1920, (1.875, 1.0), CPU)
    assert torch.equal(still, table[0])
    moved = reference_table(grid, 1, (2, 3, 5), 1920, (1.875, 1.0), CPU).reshape(30, 45, 1920)
    there = table[2].reshape(30, 45, 1920)
    assert torch.allclose(moved[:27, :40], there[3:, 5:], atol=1e-6)


def test_tables_first_made_for_sampling_serve_training() -> None:
    grid = Grid(3, 5, 8, 12)
    with torch.inference_mode():
        tables = video_rotary(grid, 2, 16, CPU)
    x = torch.ones(30, 16, requires_grad=True)
    (x * tables[0]).sum().backward()
    assert x.grad is not None
