"""References computed once: exact where they see themselves alone, refused elsewhere."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from slow_sampling import slow_guided
from small_transformer import ADAPTER, PATCHES, SINCOS, SMALL, Batch, model_of
from torch import Tensor, nn

from model.config import EraeConfig, SamplingConfig
from model.errors import ModelError
from model.sampling import Conditions, sample
from model.transformer import CustomVideoX

ALONE = replace(ADAPTER, attention="independent", erae=EraeConfig())


@pytest.mark.parametrize("backend", ["dense", "merged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("config", "num_references"), [(SMALL, 1), (SMALL, 2), (SINCOS, 2)])
@torch.no_grad()
def test_remembered_is_the_same_to_the_bit_at_every_step(
    config: Any, num_references: int, dtype: torch.dtype, backend: Any
) -> None:
    model = model_of(replace(ALONE, backend=backend), config)
    nn.Module.to(model.transformer, dtype)
    batch = Batch(num_references=num_references)
    memory = model.remember(batch.reference)
    for timestep, text in ((batch.timestep, batch.text), (torch.tensor([3, 999]), 0 * batch.text)):
        call = (batch.latents, timestep, text)
        wanted = model(*call, batch.reference, batch.region, sampling=True)
        assert torch.equal(model(*call, memory, batch.region, sampling=True), wanted)


@torch.no_grad()
def test_what_is_absent_is_remembered_too() -> None:
    model, batch = model_of(ALONE), Batch(num_references=2)
    call, present = (batch.latents, batch.timestep, batch.text), torch.tensor([[True, False]] * 2)
    memory = model.remember(batch.reference, present)
    assert torch.equal(model(*call, memory), model(*call, batch.reference, None, present))
    with pytest.raises(ModelError, match="found present beside remembered"):
        model(*call, memory, None, present)


@torch.no_grad()
def keys_of_the_last_layer(attention: Any, latents: Tensor) -> Tensor:
    """The reference's, before its LoRA."""
    model, batch = model_of(replace(ALONE, attention=attention)), Batch()
    seen: list[Tensor] = []

    def look(layer: nn.Module, given: Any, out: Tensor) -> None:
        if out.shape[1] == PATCHES:
            seen.append(out)

    last: Any = model.transformer.transformer_blocks[-1]
    last.attn1.to_k.register_forward_hook(look)
    model(latents, batch.timestep, batch.text, batch.reference)
    (keys,) = seen
    return keys


def test_in_joint_mode_another_video_makes_other_keys_so_that_none_can_be_kept() -> None:
    latents = Batch().latents
    alone = [keys_of_the_last_layer("independent", x) for x in (latents, -latents)]
    joint = [keys_of_the_last_layer("joint", x) for x in (latents, -latents)]
    assert torch.equal(alone[0], alone[1])
    assert not torch.allclose(joint[0], joint[1], atol=1e-2)


def test_what_cannot_be_remembered_is_refused_in_one_line() -> None:
    batch = Batch()
    memory = model_of(ALONE).remember(batch.reference)
    call = (batch.latents, batch.timestep, batch.text)
    for change, message in (
        ({"attention": "joint"}, 'found "joint", in which the reference reads the video'),
        ({"reference_timestep": "shared"}, 'found "shared", by which the reference is another'),
    ):
        model = model_of(replace(ALONE, **change))
        with pytest.raises(ModelError, match=message) as caught:
            model.remember(batch.reference)
        assert "\n" not in str(caught.value)
        with pytest.raises(ModelError, match=message):
            model(*call, memory)
    with pytest.raises(ModelError, match="encode both alike"):
        model_of(ALONE)(batch.latents[:1], batch.timestep[:1], batch.text[:1], memory)
    with pytest.raises(ModelError, match="no adapter"):
        CustomVideoX(model_of(None).transformer).remember(batch.reference)


def test_sampling_computes_the_reference_once() -> None:
    model, batch = model_of(ALONE), Batch()
    entity = torch.tensor([[False, True, False, True, False]] * 2)
    conditions = Conditions(batch.text, 0 * batch.text, batch.reference, entity)
    calls: list[int] = []
    first: Any = model.transformer.transformer_blocks[0]

    def count(layer: nn.Module, given: Any, out: Tensor) -> None:
        calls.append(out.shape[1] == PATCHES)

    first.attn1.to_v.register_forward_hook(count)
    kept = sample(model, conditions, batch.latents, SamplingConfig(steps=2))
    assert sum(calls) == 1
    assert torch.equal(slow_guided(model, conditions, batch.latents, 2), kept)
    assert sum(calls) == 5
