"""A run in memory: latents drawn from names, and a network that trains in a blink."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.course import Course, LoopSettings
from training.dataset import Latents
from training.held_out import HeldOutSettings, hold_out, split
from training.metrics import TrainingProgress
from training.objective import noise_schedule
from training.order import normal
from training.step import OptimizerSettings, Training
from training.trainer import Told, Trainer
from training.world import World

SOURCES = [f"source {number // 2}" for number in range(40)]
"""Of the 40 samples: two of each source video."""


class SmallNetwork(nn.Module):
    """Says v from all that it is given; the reference speaks through the adapter alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(4 + 8 + 1, 4)
        self.adapter = nn.Linear(4, 4, bias=False)

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, reference: Tensor | None
    ) -> Tensor:
        pixels = latents.movedim(2, -1)
        time = (timestep / 1000).view(-1, 1, 1, 1, 1).expand(*pixels.shape[:-1], 1)
        words = text.mean(1)[:, None, None, None].expand(*pixels.shape[:-1], 8)
        said = self.base(torch.cat([pixels, time, words], -1))
        if reference is not None:
            said = said + self.adapter(reference.mean(1, keepdim=True).movedim(2, -1))
        return said.movedim(-1, 2)


class SmallSamples:
    """Sample k: a still video of its subject's picture, which is also its reference."""

    def __getitem__(self, number: int) -> Latents:
        picture = torch.from_numpy(normal(SOURCES[number], (1, 4, 2, 3)))
        return Latents(
            key=f"sample {number}",
            source_id=SOURCES[number],
            video=picture.repeat(2, 1, 1, 1),
            reference=picture,
            text=torch.from_numpy(normal(f"text {number}", (5, 8))),
            caption="a ball",
            entity="ball",
            entity_tokens=(1,),
            made_with={"codec": "none", "text": "none"},
        )


class SmallWeights:
    """The trained parameters in one file."""

    def __init__(self, trained: dict[str, nn.Parameter]) -> None:
        self._trained = trained

    def save(self, folder: Path) -> None:
        save_file({k: v.detach() for k, v in self._trained.items()}, folder / "w.safetensors")

    def load(self, folder: Path) -> None:
        with torch.no_grad():
            for name, tensor in load_file(folder / "w.safetensors").items():
                self._trained[name].copy_(tensor)


def small_trainer(
    folder: Path,
    loop: LoopSettings,
    adapter: bool = True,
    rate: float = 1e-2,
    network: nn.Module | None = None,
    told: Told | None = None,
    world: World = World(),
    samples: SmallSamples | None = None,
) -> Trainer:
    """A trainer in this folder: of the adapter, or of everything."""
    network, samples = network or SmallNetwork(), samples or SmallSamples()
    trained = {k: v for k, v in network.named_parameters() if not adapter or "adapter" in k}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    held = HeldOutSettings(share=0.3, samples=6, draws=2, every=4)
    numbers, aside = split(loop.seed, SOURCES, held.share)
    course = Course(
        samples,
        numbers,
        hold_out(loop.seed, aside, SOURCES, SmallSamples().__getitem__, held),
        torch.zeros(5, 8),
        with_reference=adapter,
    )
    optimizer = OptimizerSettings(learning_rate=rate)
    training = Training(network, trained, noise_schedule(), optimizer, world)
    identity = {"loop.seed": loop.seed, "loop.steps": loop.steps, "optimizer.learning_rate": rate}
    return Trainer(folder, training, SmallWeights(trained), course, loop, identity, told)


def quiet(total: int) -> TrainingProgress:
    """Progress that says nothing."""
    return TrainingProgress("training", total, None, stream=io.StringIO())
