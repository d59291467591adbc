"""Two processes that hold one base between them: what each finds, in a file of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_transformer import ADAPTER, Batch, base_of
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from model.adapted import Adapted
from model.compute import ComputeSettings, prepare
from model.config import AdapterConfig
from model.extra_frame import open_model
from model.fp8 import store_in_fp8

CASES: dict[str, tuple[AdapterConfig, ComputeSettings, bool]] = {
    "kept": (ADAPTER, ComputeSettings(checkpoint=0.0), False),
    "checkpointed": (ADAPTER, ComputeSettings(checkpoint=0.7), False),
    "fp8": (ADAPTER, ComputeSettings(checkpoint=0.7), True),
    "extra frame": (
        AdapterConfig(kind="extra_frame", rank=3, alpha=6),
        ComputeSettings(checkpoint=0.7),
        False,
    ),
}


def work(rank: int, folder: str) -> None:
    """One of two: every case, sharded."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    for name, (adapter, settings, eighth) in CASES.items():
        model = model_of(adapter, dataclasses.replace(settings, shard_base=True), eighth)
        save_file(outcome(model), Path(folder) / f"{name}.{rank}.safetensors")
    distributed.destroy_process_group()


def model_of(adapter: AdapterConfig, settings: ComputeSettings, eighth: bool) -> Adapted:
    """The same weights in every process."""
    base = base_of()
    if eighth:
        store_in_fp8(base)
    model = open_model(base, adapter)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.adapter_parameters().values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    prepare(model, settings)
    return model


def outcome(model: Adapted) -> dict[str, Tensor]:
    """With and without the reference: v, the adapter's gradients; the blocks' bytes here."""
    batch, found = Batch(), {}
    for turn in ("first", "second"):
        with torch.no_grad():
            found[f"{turn}/none"] = model(batch.latents, batch.timestep, batch.text)
        v = model(batch.latents, batch.timestep, batch.text, batch.reference)
        v.square().mean().backward()
        found[f"{turn}/v"] = v.detach()
        for name, weight in model.optimised_parameters().items():
            assert weight.grad is not None
            found[f"{turn}/{name}"] = weight.grad.clone()
            weight.grad = None
    found["bytes"] = torch.tensor([sum(map(_bytes, _weights(model)))])
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _weights(model: Adapted) -> list[Any]:
    return [w for w in model.transformer.transformer_blocks.parameters() if not w.requires_grad]


def _bytes(weight: Tensor) -> int:
    return (weight.to_local() if isinstance(weight, DTensor) else weight).nbytes
