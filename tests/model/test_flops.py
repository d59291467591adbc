"""Counted by hand, and by what PyTorch was seen to call."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.compute import ComputeSettings, prepare, recomputed
from model.config import COGVIDEOX_5B, TINY, AdapterConfig
from model.extra_frame import open_model
from model.flops import SampleSize, sizes, step_flops, tokens
from model.weights import init_tiny_base

SAMPLE = SampleSize(frames=2, height=16, width=24)
ADAPTERS = {
    "reference": AdapterConfig(rank=16, alpha=16, backend="dense"),
    "independent": AdapterConfig(rank=16, alpha=16, attention="independent", backend="dense"),
    "merged": AdapterConfig(rank=16, alpha=16, backend="merged"),
    "extra frame": AdapterConfig(kind="extra_frame", rank=16, alpha=16),
    "base": None,
}


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("checkpoint", [0.0, 0.5])
def test_a_step_is_counted_as_torch_sees_it(name: str, checkpoint: float) -> None:
    base, adapter = init_tiny_base(0), ADAPTERS[name]
    model = open_model(base, adapter)
    prepare(model, ComputeSettings(checkpoint=checkpoint))
    latents = torch.zeros(1, SAMPLE.frames, 16, SAMPLE.height, SAMPLE.width)
    text = torch.zeros(1, TINY.max_text_seq_length, TINY.text_embed_dim)
    call: tuple[Any, ...] = (latents, torch.tensor([500]), text)
    if adapter is not None:
        call += (torch.zeros(1, 1, *latents.shape[2:]),)
    seen = FlopCounterMode(display=False)
    with seen:
        model(*call).square().mean().backward()
    counted = step_flops(sizes(base), adapter, SAMPLE, recomputed(checkpoint, TINY.num_layers))
    assert counted.executed == pytest.approx(seen.get_total_flops(), rel=0.01)
    assert (counted.again > 0) == (checkpoint > 0)


def test_the_paper_s_sample_is_of_11026_tokens() -> None:
    assert tokens(COGVIDEOX_5B, AdapterConfig(), SampleSize()) == 11_026
    assert tokens(COGVIDEOX_5B, None, SampleSize()) == 9676


def test_a_second_reference_costs_about_its_share_of_the_tokens() -> None:
    adapter = AdapterConfig()
    one, two = (
        step_flops(COGVIDEOX_5B, adapter, replace(SampleSize(), references=n)).model for n in (1, 2)
    )
    assert 1.1 < two / one < 1.2
