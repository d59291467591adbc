"""The biased softmax of one layer: every backend beside plain flash, which has no bias, in one run.

On a GPU at the paper's shape in bf16; on one core of a CPU at TINY's and at a tenth of the paper's
video with four of its heads. What is timed starts at the queries, the keys and the values of text
and video and those of the reference, and ends at the output, or at the gradients of all of them.
The mask is there before, since all layers share it. Plain flash finds its keys already joined.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import meter, provenance
from model.merge import attend, merge
from model.softmax import attention, augmented, dense_mask

ROUNDS = 9
BAR_OVER_PLAIN, BAR_DENSE_OVER = 1.10, 1.5  # on a GPU


@dataclass(frozen=True, slots=True)
class Shape:
    """Tokens, heads and their dimension."""

    text: int
    video: int
    reference: int
    heads: int
    head_dim: int


PAPER = Shape(226, 9450, 1350, 48, 64)
ON_A_CPU = {"TINY": Shape(64, 672, 96, 4, 32), "4 heads": Shape(226, 945, 135, 4, 64)}


class Layer:
    """The inputs of one layer, and its output by each backend."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(tokens: int) -> Tensor:
            made = torch.randn(1, tokens, shape.heads, shape.head_dim, generator=generator)
            return made.to(device, dtype).transpose(1, 2).requires_grad_()

        main, self.num_reference = shape.text + shape.video, shape.reference
        self.q, self.k, self.v = normal(main), normal(main), normal(main)
        self.k_ref, self.v_ref = normal(shape.reference), normal(shape.reference)
        self.grad = normal(main).detach()
        # TAB halfway to its lowest, and ERAE on every third query.
        self.bias = torch.full((1, 1, main), -0.5, device=device)
        self.bias[..., ::3] += 0.1
        self.mask = dense_mask(self.bias, shape.reference, dtype)
        with torch.no_grad():
            self.joined = self._joined()
        for one in self.joined:
            one.requires_grad_()

    def _joined(self) -> tuple[Tensor, Tensor]:
        return torch.cat([self.k, self.k_ref], dim=2), torch.cat([self.v, self.v_ref], dim=2)

    def plain(self) -> Tensor:
        """The wrong answer, as quickly as it can be had."""
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return functional.scaled_dot_product_attention(self.q, *self.joined)

    def dense(self) -> Tensor:
        """With the mask."""
        return attention(self.q, *self._joined(), self.mask)

    def merged(self) -> Tensor:
        """By log-sum-exp."""
        pairs = ((self.k, self.v), (self.k_ref, self.v_ref))
        return merge(self.q, [attend(self.q, *pair) for pair in pairs], self.bias)

    def augmented(self) -> Tensor:
        """With further head dimensions."""
        return augmented(self.q, *self._joined(), self.bias, self.num_reference)

    def gradients(self, backend: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        """Of the queries, and of the keys and values that the backend takes."""
        pairs = self.joined if backend == self.plain else (self.k, self.v, self.k_ref, self.v_ref)
        return torch.autograd.grad(backend(), (self.q, *pairs), self.grad)


def main() -> int:
    """Measures, prints, writes benchmarks/results/attention.json; 1 when a GPU misses a bar."""
    device = meter.device()
    if device.type == "cuda":
        shapes = {"paper": _measured(PAPER, torch.bfloat16, device)}
        passed = (
            shapes["paper"]["over_plain"]["merged"] <= BAR_OVER_PLAIN
            and shapes["paper"]["dense_over"]["merged"] >= BAR_DENSE_OVER
        )
        figures: dict[str, Any] = {
            "bars": {"over_plain": BAR_OVER_PLAIN, "dense_over": BAR_DENSE_OVER},
            "passed": passed,
        }
    else:
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
        shapes = {
            f"{name}, {kind}": _measured(shape, dtype, device)
            for name, shape in ON_A_CPU.items()
            for kind, dtype in dtypes.items()
        }
        passed, figures = True, {"threads": 1}
    print(provenance.write("attention", ["torch"], {**figures, **shapes}))
    return 0 if passed else 1


def _measured(shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Rounds in which all take turns, since the machine may be shared and noisy.

    Times are the best of them, ratios the median of those within a round.
    """
    layer = Layer(shape, dtype, device)
    backends: Mapping[str, Callable[[], Tensor]] = {
        "plain": layer.plain,
        "dense": layer.dense,
        "merged": layer.merged,
        "augmented": layer.augmented,
    }
    peaks = {name: _peak_mb(layer, backend) for name, backend in backends.items()}  # warms up too
    rounds = [
        {
            name: (_forward_ms(backend), _both_ms(layer, backend))
            for name, backend in backends.items()
        }
        for _ in range(ROUNDS)
    ]

    def best(name: str, which: int) -> float:
        return round(min(one[name][which] for one in rounds), 3)

    def ratio(over: str, under: str) -> float:
        return round(statistics.median(one[over][1] / one[under][1] for one in rounds), 3)

    biased = [name for name in backends if name != "plain"]
    figures = {
        "shape": repr(shape),
        "forward_ms": {name: best(name, 0) for name in backends},
        "forward_backward_ms": {name: best(name, 1) for name in backends},
        "mask_mb": round(layer.mask.nbytes / 1e6, 1),
        "peak_mb": peaks,
        "over_plain": {name: ratio(name, "plain") for name in biased},
        "dense_over": {name: ratio("dense", name) for name in biased},
        "error": _errors(shape, dtype, device, biased),
    }
    print(shape, dtype)
    for name, value in figures.items():
        print(f"  {name}: {value}")
    return figures


def _forward_ms(backend: Callable[[], Tensor]) -> float:
    with torch.no_grad():
        return 1e3 * meter.seconds(backend)


def _both_ms(layer: Layer, backend: Callable[[], Tensor]) -> float:
    return 1e3 * meter.seconds(lambda: layer.gradients(backend))


def _peak_mb(layer: Layer, backend: Callable[[], Tensor]) -> float:
    layer.gradients(backend)
    return round(meter.peak_bytes(lambda: layer.gradients(backend)) / 1e6, 1)


def _errors(
    shape: Shape, dtype: torch.dtype, device: torch.device, names: list[str]
) -> dict[str, list[float]]:
    """Relative norm of what each is off the fp32 mask: output, then dq, dk, dv, dk_ref, dv_ref."""
    layer, exact = Layer(shape, dtype, device), Layer(shape, torch.float32, device)
    for name in ("q", "k", "v", "k_ref", "v_ref"):
        setattr(exact, name, getattr(layer, name).detach().float().requires_grad_())
    exact.grad = layer.grad.float()
    wanted = [exact.dense().detach(), *exact.gradients(exact.dense)]

    def off(name: str) -> list[float]:
        backend = getattr(layer, name)
        found = [backend().detach(), *layer.gradients(backend)]
        return [
            float(f"{(a.float() - b).norm() / b.norm():.2g}")
            for a, b in zip(found, wanted, strict=True)
        ]

    return {name: off(name) for name in names}


if __name__ == "__main__":
    sys.exit(main())
