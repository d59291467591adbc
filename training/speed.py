"""How fast a step was, what it held in memory, what share of the device's arithmetic it used."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Work:
    """What one sample costs. tokens: text, video and reference; flops: of its forward and backward
    pass; peak: what the device can do at most in the dtype that is computed in, FLOP/s. 0: unknown.
    """

    tokens: int = 0
    flops: float = 0.0
    peak: float = 0.0

    def speed(self, samples: int, seconds: float, devices: int = 1) -> dict[str, float]:
        """Of so many samples on all devices: samples_per_s; tokens_per_s and peak_share (0..1, of
        what all can do), as far as they are known.
        """
        found = {"samples_per_s": round(samples / seconds, 3)}
        if self.tokens:
            found["tokens_per_s"] = round(samples * self.tokens / seconds, 1)
        if self.flops and self.peak:
            found["peak_share"] = round(samples * self.flops / seconds / (self.peak * devices), 4)
        return found


def memory(device: torch.device) -> dict[str, float]:
    """GiB. On a GPU the most that was allocated and reserved so far, elsewhere what is resident."""
    if device.type != "cuda":
        return {"memory_resident_gib": round(psutil.Process().memory_info().rss / _GIB, 3)}
    return {
        "memory_allocated_gib": round(torch.cuda.max_memory_allocated(device) / _GIB, 3),
        "memory_reserved_gib": round(torch.cuda.max_memory_reserved(device) / _GIB, 3),
    }
