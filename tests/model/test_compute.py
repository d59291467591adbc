"""Settings of compute change how numbers are made, and not the numbers."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from small_transformer import ADAPTER, SMALL, Batch, model_of
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from model.adapted import Adapted
from model.compute import ComputeSettings, prepare, recomputed
from model.config import AdapterConfig
from model.errors import ModelError
from model.extra_frame import open_model

DEEP = replace(SMALL, num_layers=5)
EXTRA = AdapterConfig(kind="extra_frame", rank=3, alpha=6)


def gradients(model: Adapted, device: str = "cpu") -> tuple[Tensor, ...]:
    batch = Batch()
    for name, tensor in vars(batch).items():
        setattr(batch, name, tensor.to(device))
    v = model(batch.latents, batch.timestep, batch.text, batch.reference)
    return torch.autograd.grad(v.square().mean(), list(model.optimised_parameters().values()))


def fresh(adapter: AdapterConfig) -> Adapted:
    model = open_model(model_of(None, DEEP).transformer, adapter)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.adapter_parameters().values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def calls_of_blocks(model: Adapted) -> list[int]:
    """The blocks whose text feed-forward ran, in order."""
    calls: list[int] = []
    for number, block in enumerate(model.transformer.transformer_blocks):
        cast(nn.Module, block.norm2).register_forward_hook(
            lambda *_, number=number: calls.append(number)
        )
    return calls


@pytest.mark.parametrize(
    ("share", "blocks", "chosen"),
    [
        (0.0, 4, set()),
        (1.0, 4, {0, 1, 2, 3}),
        (0.5, 4, {1, 3}),
        (0.25, 8, {2, 6}),
        (0.1, 4, set()),
        (1.0, 42, set(range(42))),
    ],
)
def test_blocks_are_chosen_evenly(share: float, blocks: int, chosen: set[int]) -> None:
    assert recomputed(share, blocks) == chosen


@pytest.mark.parametrize("adapter", [ADAPTER, EXTRA], ids=["reference", "extra frame"])
def test_as_many_blocks_are_computed_again_as_asked_for_and_no_gradient_changes(
    adapter: AdapterConfig,
) -> None:
    wanted, model = gradients(fresh(adapter)), fresh(adapter)
    calls = calls_of_blocks(model)
    prepare(model, ComputeSettings(checkpoint=0.4))
    found = gradients(model)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert calls == [0, 1, 2, 3, 4, *sorted(recomputed(0.4, 5), reverse=True)]


@pytest.mark.parametrize(
    ("adapter", "checkpoint"),
    [(replace(ADAPTER, backend="merged"), 0.4), (EXTRA, 0.0)],
    ids=["reference", "extra frame"],
)
def test_blocks_share_their_graphs_without_breaks_and_equal_eager(
    adapter: AdapterConfig, checkpoint: float
) -> None:
    """Merged, whose backward is our own."""
    wanted, model = gradients(fresh(adapter)), fresh(adapter)
    torch.compiler.reset()
    counter: Any = CompileCounterWithBackend("aot_eager")
    prepare(model, ComputeSettings(checkpoint=checkpoint, compile=True), counter)
    found = gradients(model)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))
    assert 1 <= counter.frame_count <= 3  # first, last, and those between


@pytest.mark.slow  # a C++ compiler is at work for a minute
def test_inductor_s_code_equals_eager() -> None:
    wanted, model = gradients(fresh(ADAPTER)), fresh(ADAPTER)
    prepare(model, ComputeSettings(checkpoint=0.4, compile=True))
    assert all(
        torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))
        for a, b in zip(gradients(model), wanted, strict=True)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")
def test_on_a_gpu_compiled_and_checkpointed_blocks_are_as_near_to_fp32_as_eager_ones() -> None:
    wide = replace(SMALL, num_layers=3, attention_head_dim=64)
    wanted = gradients(model_of(ADAPTER, wide))

    def error(settings: ComputeSettings) -> float:
        model = model_of(ADAPTER, wide).cuda()
        nn.Module.to(model.transformer, torch.bfloat16)
        prepare(model, settings)
        both = zip(gradients(model, "cuda"), wanted, strict=True)
        return max(float((a.cpu() - b).norm() / b.norm()) for a, b in both)

    compiled = ComputeSettings(checkpoint=0.5, compile=True)
    assert error(compiled) < 1.5 * error(ComputeSettings(checkpoint=0.0)) < 0.15


def test_a_share_of_blocks_is_at_most_all_of_them() -> None:
    with pytest.raises(ModelError, match=r"compute.checkpoint: found 2, wanted 0 to 1"):
        ComputeSettings(checkpoint=2)
