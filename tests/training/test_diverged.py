"""What is left of a step that went wrong, and where it begins to."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from small_training import SmallNetwork, SmallSamples, quiet, small_trainer
from small_transformer import Batch, model_of
from torch import Tensor, nn

from pipeline.errors import InputError
from training.course import LoopSettings
from training.diverged import read
from training.objective import noise_schedule
from training.step import DivergedError, Example, OptimizerSettings, Training
from training.trace import first_not_finite

LOOP = LoopSettings(steps=9, global_batch=4, batch=2, checkpoint_every=2, text_drop=0.5)


class _Overflowing(SmallNetwork):
    """Its gradients overflow from the third step on, while its loss stays a number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, reference: Tensor | None
    ) -> Tensor:
        said = super().forward(latents, timestep, text, reference)
        self.calls += torch.is_grad_enabled()
        if self.calls > 4:
            said.register_hook(lambda grad: grad * math.inf)
        return said


def _diverge(folder: Path) -> tuple[DivergedError, _Overflowing]:
    network = _Overflowing()
    trainer = small_trainer(folder, LOOP, network=network)
    with pytest.raises(DivergedError) as raised:
        trainer.run(lambda: 0, quiet)
    return raised.value, network


def test_a_step_that_diverged_is_kept_with_all_that_it_was_made_of(tmp_path: Path):
    error, network = _diverge(tmp_path)
    place = tmp_path / "diverged" / "step-00000003"
    assert f"python -m jobs.repro {place} does it again" in str(error)
    (given,) = read(place)
    assert (given.step, given.rank, given.position) == (3, 0, 8)
    assert [len(batch) for batch in given.batches] == [2, 2]
    course = small_trainer(tmp_path / "other", LOOP)._course
    kept = [example for batch in given.batches for example in batch]
    for number, example in enumerate(kept):
        wanted = course.example(LOOP, 8 + number)
        for field in fields(Example):
            one, other = getattr(example, field.name), getattr(wanted, field.name)
            assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
        assert example.key in str(error)
    weights = torch.nn.utils.parameters_to_vector(network.adapter.parameters())
    fresh = SmallNetwork()
    small_trainer(tmp_path / "fresh", LOOP, network=fresh)._weights.load(place)
    assert torch.equal(torch.nn.utils.parameters_to_vector(fresh.adapter.parameters()), weights)


def test_the_report_has_a_norm_for_every_weight(tmp_path: Path):
    _diverge(tmp_path)
    report = json.loads((tmp_path / "diverged" / "step-00000003" / "report.json").read_text())
    assert report["gradient_norms"].keys() == {"adapter.weight"}
    assert report["gradient_norms"]["adapter.weight"] in ("nan", "inf")
    assert math.isfinite(report["loss"])


def test_what_is_no_such_folder_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="found no step that can be done again"):
        read(tmp_path)


class _Part(nn.Module):
    """Divides by how far its weight is from 1: not finite at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 - self.weight)


class _Parts(SmallNetwork):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Sequential(_Part()), nn.Sequential(_Part())])

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, reference: Tensor | None
    ) -> Tensor:
        said = super().forward(latents, timestep, text, reference)
        for part in self.parts:
            said = part(said)
        return said


def _first(network: nn.Module, examples: list[Example]) -> str | None:
    training = Training(
        network, dict(network.named_parameters()), noise_schedule(), OptimizerSettings()
    )
    return first_not_finite(network, training.losses, examples)


def _examples() -> list[Example]:
    samples = [SmallSamples()[number] for number in range(2)]
    return [
        Example(one.key, one.video, torch.ones_like(one.video), 500, one.text, one.reference)
        for one in samples
    ]


def test_the_innermost_module_that_says_it_first_is_named():
    network = _Parts()
    assert _first(network, _examples()) is None
    with torch.no_grad():
        network.get_parameter("parts.1.0.weight").fill_(1.0)
    assert _first(network, _examples()) == "what parts.1.0 says (_Part)"


def test_data_that_is_not_finite_is_named_before_all():
    one, other = _examples()
    assert other.reference is not None
    broken = other.reference.clone()
    broken[0, 0, 0, 0] = math.nan
    found = _first(_Parts(), [one, replace(other, reference=broken)])
    assert found == "the reference of sample sample 1"


def test_a_weight_that_was_not_finite_before_is_named():
    network = _Parts()
    with torch.no_grad():
        network.adapter.weight[0, 0] = math.inf
    assert _first(network, _examples()) == "the weight adapter.weight, before the step"


class _Steep(torch.autograd.Function):
    """Hands on what it is given; its gradient is not finite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * math.inf


class _SteepPart(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Steep.apply(x))


def test_a_gradient_that_overflows_on_its_way_back_is_named():
    network = _Parts()
    network.parts[1] = _SteepPart()
    assert _first(network, _examples()) == "the gradient of what parts.0.0 says (_Part)"


def test_the_real_network_is_watched_forth_and_back():
    network, batch = model_of(), Batch()
    examples = [
        Example(str(number), latents, torch.ones_like(latents), 500, text, reference)
        for number, (latents, text, reference) in enumerate(
            zip(batch.latents, batch.text, batch.reference, strict=True)
        )
    ]
    losses = Training(
        network, network.optimised_parameters(), noise_schedule(), OptimizerSettings()
    ).losses
    assert first_not_finite(network, losses, examples) is None
    with torch.no_grad():
        network.get_parameter("lora.transformer_blocks.1.attn1.to_v.lora_B.weight").fill_(1e38)
    name = "lora.transformer_blocks.1.attn1.to_v (LowRank)"
    found = first_not_finite(network, losses, examples)
    assert found is not None
    assert found.startswith("what ")
    assert name in found or "transformer_blocks.1" in found
