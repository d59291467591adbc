"""Eight bits a weight: exactly a base of rounded weights, in half of the memory."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import (
    CogVideoXTransformer3DModel as Base,
)
from small_transformer import ADAPTER, PATCHES, SMALL, Batch, base_of
from torch import Tensor, nn

from model.adapter_file import load_adapter, save_adapter
from model.config import AdapterConfig
from model.extra_frame import open_model
from model.fp8 import Fp8Linear, store_in_fp8
from model.weights import Base as Known

EXTRA = AdapterConfig(kind="extra_frame", rank=3, alpha=6)


def linears(base: nn.Module, kind: type[nn.Module]) -> dict[str, nn.Module]:
    return {name: module for name, module in base.named_modules() if isinstance(module, kind)}


def rounded(base: Base, stored: Base) -> Base:
    """The base with the very weights that the stored one stands for."""
    plain = copy.deepcopy(base)
    for name, layer in linears(stored, Fp8Linear).items():
        assert isinstance(layer, Fp8Linear)
        with torch.no_grad():
            plain.get_parameter(f"{name}.weight").copy_(layer.dequantised())
    return plain


def outcome(base: Base, adapter: AdapterConfig) -> tuple[Tensor, ...]:
    """v, and the gradients of the latents and of the adapter."""
    model = open_model(base, adapter)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.adapter_parameters().values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    batch = Batch()
    latents = batch.latents.requires_grad_()
    v = model(latents, batch.timestep, batch.text, batch.reference)
    wanted = [latents, *model.optimised_parameters().values()]
    return v, *torch.autograd.grad(v.square().mean(), wanted)


def in_dtype(dtype: torch.dtype) -> Base:
    base = base_of()
    nn.Module.to(base, dtype)
    return base


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter", [ADAPTER, EXTRA], ids=["reference", "extra frame"])
def test_output_and_gradients_are_those_of_the_rounded_base(
    adapter: AdapterConfig, dtype: torch.dtype
) -> None:
    base, stored = in_dtype(dtype), in_dtype(dtype)
    store_in_fp8(stored)
    wanted = outcome(rounded(base, stored), adapter)
    assert all(torch.equal(a, b) for a, b in zip(outcome(stored, adapter), wanted, strict=True))


def test_the_weights_are_within_a_sixteenth_of_what_they_were_and_half_as_large() -> None:
    base = in_dtype(torch.bfloat16)
    stored = copy.deepcopy(base)
    store_in_fp8(stored)
    layers = linears(stored, Fp8Linear)
    assert len(layers) == SMALL.num_layers * 6
    for name, layer in layers.items():
        assert isinstance(layer, Fp8Linear)
        exact = base.get_parameter(f"{name}.weight").float()
        off = (layer.dequantised().float() - exact).abs()
        tiny = exact.abs().amax(1, keepdim=True) * 2.0**-15  # below fp8's smallest normal
        assert (off <= exact.abs() / 16 + tiny).all()
        assert layer.weight.nbytes * 2 == exact.numel() * 2
    assert stored.dtype == torch.bfloat16


def test_no_widened_weight_waits_for_the_backward() -> None:
    base = base_of()
    store_in_fp8(base)
    model, batch = open_model(base, ADAPTER), Batch()
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(batch.latents, batch.timestep, batch.text, batch.reference)
    width = SMALL.num_attention_heads * SMALL.attention_head_dim
    assert (2 * PATCHES, width) in kept  # what the LoRA wants
    assert not {(width, width), (4 * width, width), (width, 4 * width)} & set(kept)


def test_a_channel_of_zeros_and_one_of_huge_weights_are_kept() -> None:
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[0] = 0.0
        layer.weight[1] = 1e6
    stored = Fp8Linear(layer)
    assert torch.equal(stored.dequantised()[0], torch.zeros(4))
    assert torch.allclose(stored.dequantised()[1], torch.full((4,), 1e6), rtol=1 / 16)


def test_an_adapter_of_a_base_in_eight_bits_loads_on_any(tmp_path: Path) -> None:
    known, stored = Known("the base", "", "its files"), base_of()
    store_in_fp8(stored)
    trained, other = open_model(stored, ADAPTER, 1), open_model(base_of(), ADAPTER, 2)
    save_adapter(trained, tmp_path / "adapter.safetensors", known)
    load_adapter(other, tmp_path / "adapter.safetensors", known)
    found, wanted = other.adapter_parameters(), trained.adapter_parameters()
    assert all(torch.equal(found[name], weight) for name, weight in wanted.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")
def test_on_a_gpu_too_a_layer_is_that_of_its_rounded_weights() -> None:
    plain = nn.Linear(256, 512).to("cuda", torch.bfloat16)
    stored = Fp8Linear(plain)
    with torch.no_grad():
        plain.weight.copy_(stored.dequantised())
    x = torch.randn(64, 256, device="cuda", dtype=torch.bfloat16)
    x.requires_grad_()
    assert torch.equal(stored(x), plain(x))
    (ours,), (theirs,) = (
        torch.autograd.grad(layer(x).square().sum(), x) for layer in (stored, plain)
    )
    assert torch.allclose(ours, theirs, rtol=1e-2)
