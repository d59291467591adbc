"""One training step of the adapter, without its optimizer: forward and backward, at batch 1.

On a GPU the 5B at the paper's size in bf16, with every block checkpointed, and its share of the
bf16 matmul peak that this same GPU shows in this same run. On one core TINY, and one block of the
5B's width on few tokens, in fp32 beside the fp32 peak. Random weights: only time is measured.

The work counted is the model's: what a checkpoint computes again, and the logits that a flash
backward does, is not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks import meter, provenance
from model.compute import ComputeSettings, prepare
from model.config import COGVIDEOX_5B, TINY, AdapterConfig, Backend, TransformerConfig
from model.flops import SampleSize, step_flops
from model.transformer import CustomVideoX
from model.weights import random_base

PACKAGES = ("torch", "diffusers", "transformers")
ROUNDS = 3
BAR_OF_PEAK = 0.5  # wanted on a GPU


@dataclass(frozen=True, slots=True)
class Case:
    """A base and the latent frames, height and width of its video."""

    base: TransformerConfig
    latents: tuple[int, int, int]


PAPER = Case(COGVIDEOX_5B, (7, 60, 90))
ON_A_CPU = {
    "TINY": Case(TINY, (7, 16, 24)),
    "one block of the 5B": Case(replace(COGVIDEOX_5B, num_layers=1), (2, 16, 24)),
}


def main() -> int:
    """Measures, prints, writes benchmarks/results/transformer.json; 1 when a GPU misses the bar."""
    device = meter.device()
    figures: dict[str, Any] = {}
    if device.type == "cuda":
        figures["peak_tflops"] = peak = meter.matmul_tflops(torch.bfloat16)
        figures["5B"] = _measured(PAPER, torch.bfloat16, device, peak, ("merged", "dense"))
        figures["bar_of_peak"] = BAR_OF_PEAK
        figures["passed"] = passed = figures["5B"]["merged"]["of_peak"] >= BAR_OF_PEAK
    else:
        figures["threads"], passed = 1, True
        figures["peak_tflops"] = peak = meter.matmul_tflops(torch.float32)
        for name, case in ON_A_CPU.items():
            figures[name] = _measured(case, torch.float32, device, peak, ("dense", "merged"))
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(provenance.write("transformer", PACKAGES, figures))
    return 0 if passed else 1


def tflop(case: Case, adapter: AdapterConfig) -> dict[str, float]:
    """Of the model's matrix products at batch 1 with one reference: forward, and backward."""
    flops = step_flops(case.base, adapter, SampleSize(*case.latents))
    return {"forward": flops.forward / 1e12, "backward": flops.backward / 1e12}


def _measured(
    case: Case, dtype: torch.dtype, device: torch.device, peak: float, backends: tuple[Backend, ...]
) -> dict[str, Any]:
    base = random_base(case.base, dtype, device)
    rank = 128 if case.base.num_attention_heads > 4 else 32
    work = tflop(case, AdapterConfig(rank=rank, alpha=rank))
    figures: dict[str, Any] = {"case": repr(case), "tflop": work}
    for backend in backends:
        adapter = AdapterConfig(rank=rank, alpha=rank, backend=backend)
        model = CustomVideoX(base, adapter)
        prepare(model, ComputeSettings(checkpoint=float(device.type == "cuda")))
        figures[backend] = _timed(model, case, device, sum(work.values()), peak)
    return figures


def _timed(
    model: CustomVideoX, case: Case, device: torch.device, work: float, peak: float
) -> dict[str, float]:
    frames, height, width = case.latents
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latents, reference = normal(1, frames, 16, height, width), normal(1, 1, 16, height, width)
    text = normal(1, case.base.max_text_seq_length, case.base.text_embed_dim)
    timestep = torch.tensor([300], device=device)
    weights = list(model.optimised_parameters().values())

    @torch.no_grad()
    def forward() -> Tensor:
        return model(latents, timestep, text, reference)

    def step() -> None:
        loss = model(latents, timestep, text, reference).square().mean()
        torch.autograd.grad(loss, weights)

    step()  # warms up
    memory = meter.peak_bytes(step)
    taken = min(meter.seconds(step) for _ in range(ROUNDS))
    return {
        "forward_s": round(min(meter.seconds(forward) for _ in range(ROUNDS)), 4),
        "forward_backward_s": round(taken, 4),
        "peak_gb_beyond_weights": round(memory / 1e9, 3),
        "tflops": round(work / taken, 4),
        "of_peak": round(work / taken / peak, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
