"""What a device can do at most: operations per second of its matrix products, and its memory.

Dense bf16 with fp32 sums, as the makers' data sheets say: NVIDIA's for the A100, H100, H200, B200,
L4, L40S, A10 and A40 (a figure with sparsity is halved), and the whitepapers of the architectures
Ampere GA102, Ada and Blackwell for the RTX cards.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch

_TERA = 1e12
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Gpu:
    """peak: bf16 FLOP/s, 0 where it is not known; memory: bytes, as its maker counts them."""

    name: str
    peak: float
    memory: float


_KNOWN = {  # words of its name: TFLOP/s, GB; of several that fit the one of most words
    "a10": (125.0, 24),
    "a10g": (70.0, 24),
    "a40": (150.0, 48),
    "a100": (312.0, 40),
    "a100 80gb": (312.0, 80),
    "b200": (2250.0, 180),
    "gh200": (989.0, 96),
    "h100": (989.0, 80),
    "h100 nvl": (835.0, 94),
    "h100 pcie": (756.0, 80),
    "h200": (989.0, 141),
    "l4": (121.0, 24),
    "l40s": (362.0, 48),
    "rtx 3090": (71.0, 24),
    "rtx 4090": (165.0, 24),
    "rtx 5090": (210.0, 32),
    "rtx 6000 ada": (364.0, 48),
    "rtx a6000": (155.0, 48),
}


def gpu(name: str) -> Gpu | None:
    """By the name that its driver gives it or a person writes: "NVIDIA A100-SXM4-80GB", "h100".

    A size in it ("24 GB") is its memory, also of one that is not known; None without both.
    """
    told = re.search(r"(\d+) ?GB", name, re.IGNORECASE)
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(\d+) gb", r"\1gb", name.lower())))
    fitting = [known for known in _KNOWN if words.issuperset(known.split())]
    if not fitting:
        return Gpu(name, 0.0, 1e9 * int(told[1])) if told else None
    tera, gigabytes = _KNOWN[max(fitting, key=lambda known: len(known.split()))]
    return Gpu(name, tera * _TERA, 1e9 * (int(told[1]) if told else gigabytes))


def here(device: torch.device) -> Gpu | None:
    """A device's own: its name, its peak if it is known, the memory that it says it has."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    known = gpu(properties.name)
    return Gpu(properties.name, known.peak if known else 0.0, properties.total_memory)


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s: of the table for bf16 on a GPU that is in it, else as measured (a second)."""
    known = here(device)
    if dtype == torch.bfloat16 and known is not None and known.peak:
        return known.peak
    return measured_peak(device, dtype)


@lru_cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products here and now, with as many threads as torch has."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def seconds() -> float:
        began = time.perf_counter()
        torch.mm(a, b)
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    seconds()  # warms up
    return 2.0 * size**3 / min(seconds() for _ in range(_ROUNDS))
