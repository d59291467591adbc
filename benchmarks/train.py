"""One whole step of the adapter's training beside plain diffusers and PEFT, in one run.

A step is forward, loss, backward, clipping and AdamW. On a GPU the 5B at the paper's size, rank
128, batch 1, in bf16, and once with the settings for a card of 24 GB; elsewhere TINY in fp32 on one
core, four samples, and nothing compiled. Random weights: only time and memory are measured. The
baseline is benchmarks/peft_baseline.py.

What a step does is counted once, however often checkpoints do it: by model/flops.py.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import meter, provenance
from benchmarks.peft_baseline import Baseline
from model.compute import ComputeSettings, prepare
from model.config import COGVIDEOX_5B, TINY, AdapterConfig, TransformerConfig
from model.extra_frame import open_model
from model.flops import SampleSize, step_flops, tokens
from model.fp8 import store_in_fp8
from model.hardware import peak
from model.weights import random_base

PACKAGES = ("torch", "diffusers", "peft")
ROUNDS = 3
BAR_OF_PEAK, BAR_OVER_BASELINE, BAR_GB = 0.5, 1.5, 24.0  # wanted on a GPU
_RUNTIME_GB = 1.2  # of a GPU, that no tensor is in


@dataclass(frozen=True, slots=True)
class Case:
    """A base, a video's latents, a LoRA and a batch."""

    base: TransformerConfig
    sample: SampleSize
    rank: int
    batch: int


@dataclass(frozen=True, slots=True)
class Way:
    """How our model computes: see `[compute]` and `base_dtype` of a run file."""

    compute: ComputeSettings
    fp8: bool = False


PAPER = Case(COGVIDEOX_5B, SampleSize(), rank=128, batch=1)
SMALL = Case(TINY, SampleSize(7, 16, 24), rank=32, batch=4)
WAYS = {
    "kept": Way(ComputeSettings(checkpoint=0.0)),
    "kept, compiled": Way(ComputeSettings(checkpoint=0.0, compile=True)),
    "again": Way(ComputeSettings(checkpoint=1.0)),
    "again, compiled": Way(ComputeSettings(checkpoint=1.0, compile=True)),
    "small card": Way(ComputeSettings(checkpoint=1.0), fp8=True),
}


def main() -> int:
    """Measures, prints, writes benchmarks/results/train.json; 1 when a GPU misses a bar."""
    device = meter.device()
    on_gpu = device.type == "cuda"
    case, dtype = (PAPER, torch.bfloat16) if on_gpu else (SMALL, torch.float32)
    figures: dict[str, Any] = {
        "case": repr(case),
        "measured_peak_tflops": (measured := round(meter.matmul_tflops(dtype), 4)),
        "peak_tflops": (top := peak(device, dtype) / 1e12 if on_gpu else measured),
        "tokens": tokens(case.base, _adapter(case), case.sample),
    }
    figures["baseline"] = baseline = _baseline(case, dtype, device)
    baseline["of_peak"] = round(baseline["tflops"] / top, 3)
    print("baseline", baseline, flush=True)
    ways = {name: way for name, way in WAYS.items() if on_gpu or not way.compute.compile}
    for name, way in ways.items():
        figures[name] = _ours(case, way, dtype, device)
        figures[name]["of_peak"] = round(figures[name]["tflops"] / top, 3)
        figures[name]["over_baseline"] = round(baseline["step_s"] / figures[name]["step_s"], 3)
        print(name, figures[name], flush=True)
    passed = True
    if on_gpu:
        of_peak, over = (max(figures[n][bar] for n in WAYS) for bar in ("of_peak", "over_baseline"))
        small = figures["small card"]["peak_gb"] + _RUNTIME_GB
        passed = of_peak >= BAR_OF_PEAK and over >= BAR_OVER_BASELINE and small <= BAR_GB
        figures |= {
            "bars": {"of_peak": BAR_OF_PEAK, "over_baseline": BAR_OVER_BASELINE, "gb": BAR_GB},
            "best": {"of_peak": of_peak, "over_baseline": over, "gb": small},
            "passed": passed,
        }
    else:
        figures |= {"threads": 1, "on_a_gpu": "not measured on a GPU"}
    print(provenance.write("train", PACKAGES, figures))
    return 0 if passed else 1


def _adapter(case: Case) -> AdapterConfig:
    return AdapterConfig(rank=case.rank, alpha=case.rank)


def _ours(case: Case, way: Way, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    torch.compiler.reset()
    base = random_base(case.base, dtype, device)
    if way.fp8:
        store_in_fp8(base)
    model = open_model(base, _adapter(case))
    prepare(model, way.compute)
    work = step_flops(case.base, _adapter(case), case.sample).model
    return _measured(model, model.optimised_parameters(), case, work, device)


def _baseline(case: Case, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    model = Baseline(random_base(case.base, dtype, device), case.rank, bias=-0.5)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    everywhere = AdapterConfig(kind="extra_frame", rank=case.rank, alpha=case.rank)
    work = step_flops(case.base, everywhere, case.sample).model
    return _measured(model, trained, case, work, device)


def _measured(
    model: nn.Module,
    trained: dict[str, nn.Parameter],
    case: Case,
    work: int,
    device: torch.device,
) -> dict[str, Any]:
    weights = list(trained.values())
    step = _step(model, weights, _batch(case, device))
    step()  # kernels are chosen, code is compiled, moments are made
    memory = _peak_gb(step, device)
    taken = min(meter.seconds(step) for _ in range(ROUNDS))
    flops = work * case.batch / taken
    figures = {
        "step_s": round(taken, 4),
        "tokens_per_s": round(
            case.batch * tokens(case.base, _adapter(case), case.sample) / taken, 1
        ),
        "tflops": round(flops / 1e12, 4),
        "peak_gb": memory,
        "learns": sum(weight.numel() for weight in weights),
    }
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return figures


def _step(
    model: nn.Module, weights: list[nn.Parameter], batch: tuple[Tensor, ...]
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(weights, lr=1e-5, weight_decay=1e-2)
    *given, wanted = batch

    def step() -> None:
        loss = (model(*given).float() - wanted).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _batch(case: Case, device: torch.device) -> tuple[Tensor, ...]:
    """Noisy latents, timesteps, text, references, and the v that is wanted."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(case.batch, *shape, generator=generator).to(device)

    size = case.sample
    video = (size.frames, 16, size.height, size.width)
    text = normal(case.base.max_text_seq_length, case.base.text_embed_dim)
    timestep = torch.full((case.batch,), 300, device=device)
    return normal(*video), timestep, text, normal(size.references, *video[1:]), normal(*video)


def _peak_gb(step: Callable[[], None], device: torch.device) -> float:
    """On a GPU all that is reserved, weights too; on a CPU what a step takes beyond them."""
    if device.type != "cuda":
        return round(meter.peak_bytes(step) / 1e9, 4)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_reserved() / 1e9, 2)


if __name__ == "__main__":
    sys.exit(main())
