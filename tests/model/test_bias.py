"""The bias on reference keys: its curve over time, its region, and whom it reaches."""

from dataclasses import replace

import pytest
import torch

from model.bias import (
    coverage_warning,
    entity_mask,
    entity_region,
    reference_bias,
    time_bias,
    with_region,
)
from model.config import AdapterConfig, EraeConfig, TabConfig
from model.errors import ModelError

OFF = TabConfig(train=False, sample=False)


def test_the_factor_is_low_at_the_ends_and_above_one_in_the_middle() -> None:
    factor = time_bias(torch.tensor([0, 450, 500, 550, 1000]), TabConfig()).exp()
    assert factor.tolist() == pytest.approx([0.368, 1.0, 1.105, 1.0, 0.368], abs=5e-4)


def test_over_fifty_steps_it_attenuates_more_than_it_enhances() -> None:
    factor = time_bias(torch.arange(19, 1000, 20), TabConfig()).exp()
    assert len(factor) == 50
    assert factor.mean().item() == pytest.approx(0.525, abs=5e-4)
    assert (factor >= 1).sum() == 5


def test_every_sample_has_its_own_time_and_region() -> None:
    region = torch.tensor([[True, False, True], [False, False, True]])
    bias = reference_bias(AdapterConfig(), torch.tensor([500, 0]), 2, 3, region)
    middle, end = torch.tensor(0.1).tanh(), torch.tensor(-9.9).tanh()
    assert bias is not None
    assert torch.equal(bias[0, 0], middle + torch.tensor([0, 0, 0.1, 0, 0.1]))
    assert torch.equal(bias[1, 0], end + torch.tensor([0, 0, 0, 0, 0.1]))


def test_the_product_of_algorithm_1_leaves_the_background_unbiased() -> None:
    erae = EraeConfig(form="product")
    region = torch.tensor([[True, False]])
    bias = reference_bias(AdapterConfig(erae=erae), torch.tensor([0]), 1, 2, region)
    end = torch.tensor(-9.9).tanh().item()
    assert bias is not None
    assert bias.tolist() == [[[end, end, 0.0]]]


def test_text_is_left_alone_on_request_but_not_where_the_reference_is_absent() -> None:
    adapter = AdapterConfig(bias_queries="video")
    present = torch.tensor([True, False])
    bias = reference_bias(adapter, torch.tensor([500, 500]), 2, 1, present=present)
    assert bias is not None
    assert bias[0, 0, :2].tolist() == [0, 0]
    assert bias[0, 0, 2] > 0
    assert torch.isneginf(bias[1]).all()


def test_the_switches_of_training_and_of_sampling_are_two() -> None:
    adapter = AdapterConfig(tab=TabConfig(train=False, sample=True))
    assert reference_bias(adapter, torch.tensor([3]), 1, 1) is None
    assert reference_bias(adapter, torch.tensor([3]), 1, 1, sampling=True) is not None


def test_without_the_time_a_region_adds_to_nothing() -> None:
    bias = reference_bias(AdapterConfig(tab=OFF), torch.tensor([0]), 1, 2, torch.tensor([[1, 0]]))
    assert bias is not None
    assert bias.tolist() == [[[0.0, pytest.approx(0.1), 0.0]]]


def subject(level: float) -> torch.Tensor:
    """(1, 2 * 100): two frames of 10 x 10 in which a block of 3 x 3 moves, on a faint ground."""
    frames = 0.01 + 0.005 * torch.rand(2, 10, 10, generator=torch.Generator().manual_seed(0))
    frames[0, 1:4, 1:4] += level
    frames[1, 5:8, 6:9] += 3 * level
    return frames.reshape(1, 200)


@pytest.mark.parametrize("normalise", ["minmax", "median"])
def test_the_region_is_the_subject_whatever_the_level_of_its_frame(normalise: str) -> None:
    erae = replace(EraeConfig(), normalise=normalise)
    region = entity_region(subject(0.5), 2, erae).reshape(2, 10, 10)
    wanted = torch.zeros(2, 10, 10, dtype=torch.bool)
    wanted[0, 1:4, 1:4] = True
    wanted[1, 5:8, 6:9] = True
    assert torch.equal(region, wanted)


def test_one_token_that_drinks_everything_does_not_hide_the_subject() -> None:
    sink = subject(0.5)
    sink[0, 99] = 1000.0
    assert entity_region(sink, 2, EraeConfig())[0].sum() == 9 + 1 + 9


def test_a_flat_frame_has_no_region_and_a_noisy_one_has_nearly_everything() -> None:
    flat = torch.full((1, 200), 0.25)
    noise = torch.rand(1, 200, generator=torch.Generator().manual_seed(1))
    assert not entity_region(flat, 2, EraeConfig()).any()
    covered = entity_region(noise, 2, EraeConfig())
    assert covered.float().mean() > 0.8
    assert "nearly flat" in str(coverage_warning(covered))
    assert "absent" in str(coverage_warning(torch.zeros(1, 200, dtype=torch.bool)))
    assert coverage_warning(entity_region(subject(0.5), 2, EraeConfig())) is None


def test_where_the_entity_is_absent_min_max_invents_a_region_and_the_median_does_not() -> None:
    absent = 1e-6 * (1 + torch.rand(1, 200, generator=torch.Generator().manual_seed(1)))
    assert entity_region(absent, 2, EraeConfig()).float().mean() > 0.8
    robust = entity_region(absent, 2, EraeConfig(normalise="median"))
    assert "may be absent" in str(coverage_warning(robust))


def test_the_product_keeps_hidden_what_is_hidden() -> None:
    adapter, present = AdapterConfig(erae=EraeConfig(form="product")), torch.tensor([False])
    bias = reference_bias(adapter, torch.tensor([0]), 1, 2, torch.tensor([[True, False]]), present)
    assert bias is not None
    assert torch.isneginf(bias).all()
    assert torch.isneginf(with_region(bias, torch.tensor([[True, False]]), adapter.erae)).all()


def test_a_map_of_other_frames_is_refused() -> None:
    with pytest.raises(ModelError, match="multiple of 3 frames"):
        entity_region(torch.zeros(1, 200), 3, EraeConfig())


def test_the_entity_is_marked_wherever_it_occurs() -> None:
    mask = entity_mask([[1, 4], []], 5)
    assert mask.tolist() == [[False, True, False, False, True], [False] * 5]


def test_the_layers_of_the_map() -> None:
    assert EraeConfig().chosen_layers(42) == range(14, 28)
    assert EraeConfig(layers="2-3").chosen_layers(4) == range(2, 4)
    assert EraeConfig(layers="own").chosen_layers(4) == range(4)
    with pytest.raises(ModelError, match="layers 0-3"):
        EraeConfig(layers="14-27").chosen_layers(4)
    with pytest.raises(ModelError, match="first-last"):
        EraeConfig(layers="all").chosen_layers(4)
