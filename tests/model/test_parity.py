"""The model against a slow implementation of the whole, and against the stock transformer."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from slow_transformer import slow_sample
from small_transformer import ADAPTER, FRAMES, HEIGHT, SINCOS, SMALL, WIDTH, Batch, model_of

from model.config import COGVIDEOX_5B, AdapterConfig
from model.position import Grid, video_rotary
from model.transformer import CustomVideoX

FULL_WIDTH = replace(COGVIDEOX_5B, num_layers=1, text_embed_dim=10, max_text_seq_length=5)

VARIANTS = {
    "the paper's": (ADAPTER, SMALL, 1),
    "independent": (replace(ADAPTER, attention="independent"), SMALL, 1),
    "two references": (ADAPTER, SMALL, 2),
    "two references, independent": (replace(ADAPTER, attention="independent"), SMALL, 2),
    "shared time, unbiased text": (
        replace(ADAPTER, reference_timestep="shared", bias_queries="video"),
        SMALL,
        1,
    ),
    "sin-cos": (ADAPTER, SINCOS, 2),
    "regions of two layers": (
        replace(ADAPTER, erae=replace(ADAPTER.erae, layers="1-2")),
        SMALL,
        1,
    ),
    "two references, merged": (replace(ADAPTER, backend="merged"), SMALL, 2),
    "two references, augmented": (replace(ADAPTER, backend="augmented"), SMALL, 2),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_equals_the_slow_implementation(name: str) -> None:
    adapter, config, num_references = VARIANTS[name]
    model, batch = model_of(adapter, config).double(), Batch(torch.float64, num_references)
    entity = torch.tensor([[False, True, False, True, False], [True, False, False, False, False]])
    v = model(
        batch.latents, batch.timestep, batch.text, batch.reference, batch.region, entity=entity
    )
    seen, weights = model.diagnostics, list(model.optimised_parameters().values())
    grads = torch.autograd.grad(v.square().mean(), weights)

    slow = [
        slow_sample(model, batch, i, row.nonzero().flatten().tolist())
        for i, row in enumerate(entity)
    ]
    wanted = torch.stack([one.v for one in slow])
    slow_grads = torch.autograd.grad(wanted.square().mean(), weights)
    # Measured: 1.5e-8 of v, 1.6e-8 of A_e; diffusers turns in fp32.
    assert torch.allclose(v, wanted, rtol=0, atol=5e-8)
    for grad, slow_grad in zip(grads, slow_grads, strict=True):
        assert torch.allclose(grad, slow_grad, atol=1e-6 * slow_grad.abs().max().item(), rtol=1e-5)
    assert seen is not None
    assert seen.activation is not None
    weight = torch.stack([torch.stack(one.weight) for one in slow], dim=1)
    assert torch.allclose(seen.weight, weight, rtol=0, atol=5e-8)
    layers = slice(1, 3) if adapter.erae.layers == "1-2" else slice(1, 2)  # or the middle third
    mean = torch.stack([torch.stack(one.activation[layers]).mean(0) for one in slow])
    assert torch.allclose(seen.activation[:, 0], mean, rtol=0, atol=5e-8)


@pytest.mark.parametrize("config", [SMALL, SINCOS, replace(SMALL, sample_width=8, sample_height=6)])
def test_without_a_reference_it_is_the_stock_transformer(config: Any) -> None:
    batch, model = Batch(), model_of(config=config)
    stock = copy.deepcopy(model.transformer)
    grid = Grid(HEIGHT, WIDTH, config.sample_height // 2, config.sample_width // 2)
    turn = video_rotary(grid, FRAMES, 16, torch.device("cpu"))  # diffusers', see test_position.py
    wanted = stock(
        batch.latents,
        batch.text,
        batch.timestep,
        image_rotary_emb=turn if config.use_rotary_positional_embeddings else None,
    ).sample
    assert torch.equal(model(batch.latents, batch.timestep, batch.text), wanted)
    alone = CustomVideoX(stock)(batch.latents, batch.timestep, batch.text)
    assert torch.equal(alone, wanted)


@pytest.mark.parametrize("backend", ["dense", "merged"])
@pytest.mark.parametrize("bias_queries", ["video+text", "video"])
@pytest.mark.parametrize("attention", ["joint", "independent"])
@pytest.mark.parametrize(
    ("config", "dtype", "tolerance"),
    [
        (SMALL, torch.float32, 1e-5),
        (SINCOS, torch.float64, 1e-12),  # rotary places are turned in fp32 by diffusers itself
    ],
)
def test_a_hidden_reference_leaves_the_base(
    attention: Any,
    bias_queries: Any,
    backend: Any,
    config: Any,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    adapter = replace(ADAPTER, attention=attention, bias_queries=bias_queries, backend=backend)
    model, batch = model_of(adapter, config).to(dtype), Batch(dtype)
    present = torch.tensor([True, False])
    v = model(batch.latents, batch.timestep, batch.text, batch.reference, None, present)
    removed = model(batch.latents, batch.timestep, batch.text)
    shown = model(batch.latents, batch.timestep, batch.text, batch.reference)
    assert (v[1] - removed[1]).abs().max() < tolerance
    assert (v[0] - shown[0]).abs().max() < tolerance
    assert (shown - removed).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-2


def test_a_block_of_the_5b_reads_past_a_hidden_reference() -> None:
    adapter = AdapterConfig(rank=4)
    base = CogVideoXTransformer3DModel(**FULL_WIDTH.keywords())
    model, batch = CustomVideoX(base, adapter), Batch()
    turn = video_rotary(Grid(HEIGHT, WIDTH, 30, 45), FRAMES, 64, torch.device("cpu"))
    wanted = base(batch.latents, batch.text, batch.timestep, image_rotary_emb=turn).sample
    absent = torch.tensor([False, False])
    call = (batch.latents, batch.timestep, batch.text)
    assert torch.equal(model(*call), wanted)
    for backend in ("dense", "merged"):
        model.adapter = replace(adapter, backend=backend)
        assert (model(*call, batch.reference, None, absent) - wanted).abs().max() < 1e-5
