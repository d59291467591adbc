"""What a call is told of references fits them, or is refused in one line."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_transformer import ADAPTER, FRAMES, PATCHES, Batch, model_of

from model.config import EraeConfig
from model.errors import ModelError

V = FRAMES * PATCHES
OWN = replace(ADAPTER, erae=EraeConfig(train=True, layers="own"))


def no(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.bool)


@pytest.mark.parametrize(
    "told",
    [
        {"region": no(2, V - 1)},
        {"region": no(1, V)},
        {"region": no(2, 3, V)},
        {"entity": no(2, 4)},
        {"entity": no(1, 5)},
        {"entity": no(2, 3, 5)},
        {"entity": no(5)},
        {"present": no(3)},
        {"present": no(2, 3)},
    ],
)
def test_a_wrong_size_is_one_line_that_says_the_right_one(told: dict[str, Any]) -> None:
    model, batch = model_of(), Batch(num_references=2)
    call = (batch.latents, batch.timestep, batch.text)
    (name,) = told
    with pytest.raises(ModelError, match=rf"found {name} of \(.*\); wanted .*\(2") as caught:
        model(*call, batch.reference, **told)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=f"found {name} .* without a reference"):
        model(*call, **told)


@pytest.mark.parametrize("shape", [(2, 2, 1, V), (3, 1, 1, V), (3, 2, 3, V), (3, 2, 1, V + 1)])
def test_so_is_one_of_every_layer(shape: tuple[int, ...]) -> None:
    batch = Batch(num_references=2)
    call = (batch.latents, batch.timestep, batch.text, batch.reference)
    with pytest.raises(ModelError, match=r"found region of .*\(3, 2, 1, 24\) or \(3, 2, 2, 24\)"):
        model_of(OWN)(*call, no(*shape))


def test_what_is_remembered_is_checked_too() -> None:
    model, batch = model_of(replace(ADAPTER, attention="independent")), Batch(num_references=2)
    with pytest.raises(ModelError, match=r"found present of \(3,\)"):
        model.remember(batch.reference, no(3))


def test_one_for_all_references_or_one_for_each_is_taken() -> None:
    model, batch = model_of(), Batch(num_references=2)
    call = (batch.latents, batch.timestep, batch.text, batch.reference)
    for e in (1, 2):
        v = model(*call, batch.region[:, None].expand(-1, e, -1), entity=no(2, e, 5))
        assert torch.equal(v, model(*call, batch.region))


def test_autocast_is_refused_without_a_reference_too() -> None:
    batch = Batch()
    with torch.autocast("cpu"), pytest.raises(ModelError, match="found autocast on"):
        model_of()(batch.latents, batch.timestep, batch.text)
