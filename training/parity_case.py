"""What the parity gate looks at, and what a check of it comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from model.adapted import Adapted
from model.stock import Read
from training.checkpoint import Weights
from training.course import Course, LoopSettings
from training.dataset import LatentDataset
from training.objective import NoiseSchedule
from training.step import Example, OptimizerSettings, Training


@dataclass(frozen=True, slots=True)
class Case:
    """A training that is about to begin.

    base: hub name, folder or checkpoint; from_scratch: whether there is none on disk yet. stored:
    opens its weights as they are there, or were drawn.
    schedule, snr_shift: of the noise; rounded: whether the model's blocks are compiled or gathered
    from shares, which moves last bits. folder: of the training, where files are written and removed
    again.
    """

    model: Adapted
    base: str
    from_scratch: bool
    stored: Callable[[], AbstractContextManager[Read]]
    training: Training
    trained: dict[str, nn.Parameter]
    weights: Weights
    course: Course
    loop: LoopSettings
    optimizer: OptimizerSettings
    dataset: LatentDataset
    schedule: NoiseSchedule
    snr_shift: float
    folder: Path
    rounded: bool = False

    def examples(self) -> list[Example]:
        """The first batch of the run."""
        return [self.course.example(self.loop, position) for position in range(self.loop.batch)]

    def batch(self) -> Batch:
        """The first batch of the run, as the network takes it."""
        examples, device = self.examples(), self.training.device
        clean, noise = (
            torch.stack(tensors).to(device)
            for tensors in ([e.latents for e in examples], [e.noise for e in examples])
        )
        times = torch.tensor([example.timestep for example in examples], device=device)
        references = [example.reference for example in examples if example.reference is not None]
        return Batch(
            self.schedule.noisy(clean, noise, times),
            times,
            torch.stack([example.text for example in examples]).to(device),
            torch.stack(references).to(device) if references else None,
        )

    def bound(self) -> float:
        """How far two ways to the same v may be apart, relatively: 0 where every bit is fixed."""
        dtype = self.model.transformer.dtype
        if self.training.device.type == "cpu" and not self.rounded:
            return 0.0
        return 1e-5 if dtype == torch.float32 else 2e-2


@dataclass(frozen=True, slots=True)
class Batch:
    """latents: (B, T, C, H, W), noisy; timestep: (B,); text: (B, L, D); reference: (B, n, C, H, W),
    or None.
    """

    latents: Tensor
    timestep: Tensor
    text: Tensor
    reference: Tensor | None


@dataclass(frozen=True, slots=True)
class Finding:
    """compared: what with what, in words. figure: how far apart; bound: how far they may be."""

    compared: str
    figure: float
    bound: float

    @property
    def fits(self) -> bool:
        """False for a figure that is no number, too."""
        return self.figure <= self.bound


def apart(one: Tensor, other: Tensor) -> float:
    """The distance of two tensors as a share of the second; exactly 0 for the same bits."""
    one, other = one.double(), other.double()
    return float((one - other).norm() / other.norm().clamp(min=torch.finfo(torch.float64).tiny))


def words(numbers: Sequence[int]) -> str:
    """As 9x30x45."""
    return "x".join(map(str, numbers))
