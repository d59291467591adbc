"""Several references: each has its own bias, and each may be missing for itself."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_transformer import ADAPTER, SINCOS, Batch, model_of

from model.bias import reference_bias
from model.config import AdapterConfig
from model.errors import ModelError


@pytest.mark.parametrize("backend", ["dense", "merged", "augmented"])
@pytest.mark.parametrize("attention", ["joint", "independent"])
def test_a_reference_that_is_missing_for_itself_leaves_the_others(
    attention: Any, backend: Any
) -> None:
    """The second of two: what is left is a model that was given the first alone."""
    adapter = replace(ADAPTER, attention=attention, backend=backend)
    model, batch = model_of(adapter, SINCOS).double(), Batch(torch.float64, num_references=2)
    call = (batch.latents, batch.timestep, batch.text)
    present = torch.tensor([[True, False], [True, True]])
    v = model(*call, batch.reference, None, present)
    first, both = model(*call, batch.reference[:, :1]), model(*call, batch.reference)
    # "augmented" hides by a number that bf16 and fp16 can hold, and not by -inf
    assert (v[0] - first[0]).abs().max() < 1e-12
    assert (v[1] - both[1]).abs().max() < 1e-12
    assert (v[0] - both[0]).abs().max() > 1e-3


def test_every_reference_has_its_own_region() -> None:
    region = torch.tensor([[[True, False], [False, True]]])
    bias = reference_bias(AdapterConfig(), torch.tensor([500]), 1, 2, region, num_references=2)
    middle = torch.tensor(0.1).tanh()
    assert bias is not None
    assert torch.equal(bias[0, 0], middle + torch.tensor([0, 0.1, 0]))
    assert torch.equal(bias[0, 1], middle + torch.tensor([0, 0, 0.1]))


def test_an_entity_for_each_reference_gives_each_its_map() -> None:
    model, batch = model_of(), Batch(num_references=2)
    call = (batch.latents, batch.timestep, batch.text, batch.reference)
    of_first = torch.tensor([[True, False, False, False, False]] * 2)
    of_second = torch.tensor([[False, False, True, True, False]] * 2)
    maps = []
    for entity in (of_first, of_second, torch.stack([of_first, of_second], dim=1)):
        model(*call, entity=entity)
        assert model.diagnostics is not None
        maps.append(model.diagnostics.activation)
    assert torch.equal(torch.cat(maps[:2], dim=1), maps[2])
    with pytest.raises(ModelError, match=r"found entity of \(2, 3, 5\); wanted \(2, 5\) or"):
        model(*call, entity=of_first[:, None].expand(-1, 3, -1))


def test_one_region_for_all_is_the_same_region_for_each() -> None:
    model, batch = model_of(), Batch(num_references=2)
    call = (batch.latents, batch.timestep, batch.text, batch.reference)
    each = batch.region[:, None].expand(-1, 2, -1)
    assert torch.equal(model(*call, batch.region), model(*call, each))
