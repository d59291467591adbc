"""What sampling records, and what the product of Algorithm 1 does before there is a region."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_transformer import ADAPTER, FRAMES, PATCHES, Batch, model_of

from model.config import Backend, EraeConfig, SamplingConfig
from model.sampling import Conditions, Step, sample

ENTITY = torch.tensor([[False, True, False, True, False]] * 2)
PRODUCT = replace(ADAPTER, erae=EraeConfig(train=True, form="product"))
NOTHING = torch.zeros(2, FRAMES * PATCHES, dtype=torch.bool)


def steps_of(backend: Backend, entity: torch.Tensor | None) -> list[Step]:
    batch, told = Batch(), []
    given = Conditions(batch.text, 0 * batch.text, batch.reference, entity)
    model = model_of(replace(ADAPTER, backend=backend))
    sample(model, given, batch.latents, SamplingConfig(steps=1), progress=told.append)
    return told


def test_the_weight_is_recorded_without_an_entity_where_it_costs_nothing() -> None:
    (alone,), (asked,) = steps_of("merged", None), steps_of("merged", ENTITY)
    assert alone.saw is not None
    assert asked.saw is not None
    assert torch.equal(alone.saw.weight, asked.saw.weight)
    assert alone.saw.activation is alone.saw.region is alone.saw.warning is None
    assert steps_of("dense", None)[0].saw is None


@torch.no_grad()
def test_the_first_step_of_the_product_has_an_empty_region_and_so_no_bias_on_the_video() -> None:
    model, batch, at = model_of(PRODUCT), Batch(), torch.tensor([999, 999])
    empty = 0 * batch.text
    rest = (batch.reference, NOTHING)
    full, none = (model(batch.latents, at, text, *rest) for text in (batch.text, empty))
    given = Conditions(batch.text, empty, batch.reference, ENTITY)
    found = sample(model, given, batch.latents, SamplingConfig(steps=1))
    assert torch.allclose(found, -(none + 6 * (full - none)), atol=1e-4)
    unaware = sample(model, replace(given, entity=None), batch.latents, SamplingConfig(steps=1))
    added = model_of(replace(PRODUCT, erae=EraeConfig()))
    bias_of_time = sample(
        added, replace(given, entity=None), batch.latents, SamplingConfig(steps=1)
    )
    assert torch.equal(unaware, bias_of_time)
    assert not torch.allclose(found, unaware, atol=1e-3)


@pytest.mark.parametrize("form", ["add", "product"])
def test_a_dropped_text_is_an_empty_region_in_every_layer(form: Any) -> None:
    model = model_of(replace(ADAPTER, erae=EraeConfig(train=True, layers="own", form=form)))
    batch = Batch()
    call = (batch.latents, batch.timestep, batch.text, batch.reference)
    region = NOTHING[None, :, None].expand(3, -1, -1, -1)
    assert torch.equal(model(*call, entity=ENTITY & False), model(*call, region))
