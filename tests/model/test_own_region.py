"""ERAE with the region of every layer's own attention, in the same step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from slow_transformer import slow_sample
from small_transformer import ADAPTER, FRAMES, PATCHES, Batch, calls_of_first_keys, model_of

from model.compute import ComputeSettings, prepare
from model.config import AdapterConfig, EraeConfig, SamplingConfig
from model.errors import ModelError
from model.sampling import Conditions, Step, sample

OWN = replace(ADAPTER, erae=EraeConfig(train=True, layers="own"))
ENTITY = torch.tensor([[False, True, False, True, False], [True, False, False, False, False]])


def called(batch: Batch) -> tuple[Any, ...]:
    return batch.latents, batch.timestep, batch.text, batch.reference


@pytest.mark.parametrize("form", ["add", "product"])
@pytest.mark.parametrize("backend", ["dense", "merged", "augmented"])
def test_it_equals_the_slow_implementation(backend: Any, form: Any) -> None:
    adapter = replace(OWN, backend=backend, erae=replace(OWN.erae, form=form))
    model, batch = model_of(adapter).double(), Batch(torch.float64)
    v = model(*called(batch), entity=ENTITY)
    weights = list(model.optimised_parameters().values())
    grads = torch.autograd.grad(v.square().mean(), weights)
    slow = [
        slow_sample(model, batch, i, row.nonzero().flatten().tolist())
        for i, row in enumerate(ENTITY)
    ]
    wanted = torch.stack([one.v for one in slow])
    assert torch.allclose(v, wanted, atol=1e-6)  # diffusers turns in fp32
    slow_grads = torch.autograd.grad(wanted.square().mean(), weights)
    for grad, slow_grad in zip(grads, slow_grads, strict=True):
        assert torch.allclose(grad, slow_grad, atol=1e-6 * slow_grad.abs().max().item(), rtol=1e-5)


def test_every_layer_has_another_region_and_told_again_they_do_the_same() -> None:
    model, batch = model_of(OWN), Batch()
    v = model(*called(batch), entity=ENTITY)
    seen = model.diagnostics
    assert seen is not None
    assert seen.region is not None
    assert seen.region.shape == (3, 2, 1, FRAMES * PATCHES)
    assert not torch.equal(seen.region[0], seen.region[1])
    assert torch.equal(model(*called(batch), seen.region), v)
    assert not torch.equal(model(*called(batch)), v)


def test_in_sampling_both_branches_of_text_guidance_have_the_region_of_the_same_step() -> None:
    model, batch, at = model_of(OWN), Batch(), torch.tensor([999, 999])
    rest = (0 * batch.text, batch.reference)
    conditions = Conditions(batch.text, *rest, ENTITY)
    told: list[Step] = []
    found = sample(model, conditions, batch.latents, SamplingConfig(steps=1), progress=told.append)
    with torch.no_grad():
        both = model(*called(batch)[:1], at, *called(batch)[2:], entity=ENTITY, sampling=True)
        seen = model.diagnostics
        assert seen is not None
        assert seen.region is not None
        without = model(batch.latents, at, *rest, seen.region, sampling=True)
        bare = model(batch.latents, at, *rest, sampling=True)
    assert torch.allclose(found, -(without + 6 * (both - without)), atol=1e-4)
    assert not torch.allclose(without, bare, atol=1e-4)
    assert told[0].saw is not None
    assert told[0].saw.covered == seen.region.float().mean()


def test_a_dropped_text_has_no_entity_and_no_region() -> None:
    model, batch = model_of(OWN), Batch()
    nobody = torch.zeros_like(ENTITY)
    assert torch.equal(model(*called(batch), entity=nobody), model(*called(batch)))


def test_checkpointing_computes_a_block_again_and_changes_no_gradient() -> None:
    model, batch = model_of(OWN), Batch()
    calls = calls_of_first_keys(model)

    def gradients() -> tuple[torch.Tensor, ...]:
        loss = model(*called(batch), entity=ENTITY).square().mean()
        return torch.autograd.grad(loss, list(model.optimised_parameters().values()))

    wanted, without = gradients(), len(calls)
    prepare(model, ComputeSettings(checkpoint=1.0))
    assert all(torch.equal(a, b) for a, b in zip(gradients(), wanted, strict=True))
    assert (without, len(calls) - without) == (2, 4)


def test_a_hidden_reference_stays_hidden_whatever_the_region() -> None:
    absent = torch.tensor([False, False])
    for form in ("add", "product"):
        model, batch = model_of(replace(OWN, erae=replace(OWN.erae, form=form))), Batch()
        v = model(*called(batch), None, absent, entity=ENTITY)
        assert (v - model(*called(batch)[:3])).abs().max() < 1e-5


def test_a_region_of_all_layers_is_refused_for_layers_of_their_own_and_the_other_way() -> None:
    batch = Batch()
    with pytest.raises(ModelError, match="wanted one for every layer"):
        model_of(OWN)(*called(batch), batch.region)
    with pytest.raises(ModelError, match="wanted one for all layers"):
        model_of()(*called(batch), batch.region[None, :, None].expand(3, -1, -1, -1))
    off = model_of(AdapterConfig(rank=3, erae=EraeConfig(layers="own")))
    with pytest.raises(ModelError, match=r"while erae\.train is off"):
        off(*called(batch), batch.region[None, :, None].expand(3, -1, -1, -1))
