"""Predictions against what was measured, and advice that helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from model.compute import ComputeSettings, prepare
from model.config import COGVIDEOX_5B, TINY, AdapterConfig
from model.extra_frame import open_model
from model.flops import SampleSize
from model.fp8 import store_in_fp8
from model.hardware import Gpu
from model.weights import init_tiny_base
from training.planner import Job, advice, base_bytes, kept_bytes, memory, room, seconds

REFERENCE = AdapterConfig(rank=16, alpha=16)
SMALL = Job(TINY, REFERENCE, SampleSize(2, 16, 24), base_dtype="f32", global_batch=2)
FULL = Job(COGVIDEOX_5B, AdapterConfig(), SampleSize())
CARD = Gpu("a card", 165e12, 24e9)


def measured_kept(job: Job) -> int:
    """Bytes that autograd saves for one backward, but for the weights."""
    base = init_tiny_base(0, job.base)
    nn.Module.to(base, job.computes_in)
    model = open_model(base, job.adapter)
    prepare(model, job.compute)
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        where = tensor.untyped_storage().data_ptr()
        if where not in own:
            kept[where] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    size = job.sample
    latents = torch.zeros(job.batch, size.frames, 16, size.height, size.width)
    text = torch.zeros(job.batch, job.base.max_text_seq_length, job.base.text_embed_dim)
    reference = latents[:, :1] if job.adapter else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        said = model(latents, torch.full((job.batch,), 500), text, reference)
    assert said.requires_grad
    return sum(nbytes for nbytes, _ in kept.values())


@pytest.mark.parametrize(
    "job",
    [
        SMALL,
        replace(SMALL, base_dtype="bf16"),
        replace(SMALL, batch=2, adapter=replace(REFERENCE, backend="merged")),
        replace(SMALL, adapter=replace(REFERENCE, attention="independent")),
        replace(SMALL, adapter=AdapterConfig(kind="extra_frame", rank=16, alpha=16)),
        replace(SMALL, adapter=None),
    ],
    ids=["dense", "bf16", "merged, batch 2", "independent", "extra frame", "base"],
)
def test_what_is_kept_for_the_backward_is_predicted(job: Job) -> None:
    whole = replace(job, compute=ComputeSettings(checkpoint=0.0))
    assert kept_bytes(whole) == pytest.approx(measured_kept(whole), rel=0.15)


def test_what_is_kept_with_half_of_the_blocks_computed_again_is_predicted() -> None:
    half = replace(SMALL, compute=ComputeSettings(checkpoint=0.5))
    assert kept_bytes(half) == pytest.approx(measured_kept(half), rel=0.15)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "fp8_storage"])
def test_weights_take_what_they_take(dtype) -> None:
    base = init_tiny_base(0)
    nn.Module.to(base, torch.float32 if dtype == "f32" else torch.bfloat16)
    if dtype == "fp8_storage":
        store_in_fp8(base)
    around, block = base_bytes(TINY, dtype)
    assert around + TINY.num_layers * block == sum(weight.nbytes for weight in base.parameters())


def test_memory_grows_with_the_batch_and_shrinks_with_blocks_computed_again() -> None:
    batches = [memory(replace(FULL, batch=n)).total for n in (1, 2, 4)]
    assert batches == sorted(batches)
    shares = [replace(FULL, compute=ComputeSettings(checkpoint=n / 10)) for n in range(1, 11)]
    totals, times = [memory(job).total for job in shares], [seconds(job, 1e14) for job in shares]
    assert totals == sorted(totals, reverse=True)
    assert times == sorted(times)
    assert len(set(totals)) == len(set(times)) == 10


def test_workers_share_a_base_and_a_step() -> None:
    two = replace(FULL, workers=2, compute=ComputeSettings(shard_base=True))
    assert memory(two).base < 0.6 * memory(replace(two, workers=1)).base
    assert seconds(two, 1e14) == seconds(FULL, 1e14) / 2


def test_the_5b_does_not_fit_a_small_card_and_then_it_does() -> None:
    greedy = replace(FULL, batch=4, compute=ComputeSettings(checkpoint=0.0))
    assert memory(greedy).total > room(CARD)
    changes = advice(greedy, CARD)
    assert [change.setting for change in changes[:2]] == ["compute.checkpoint", "loop.batch"]
    assert memory(changes[-1].job).total <= room(CARD)
    assert memory(changes[-2].job).total > room(CARD)


def test_a_smaller_card_wants_eight_bits_as_well() -> None:
    changes = advice(FULL, replace(CARD, memory=16e9))
    assert [(change.setting, change.value) for change in changes] == [
        ("base_dtype", '"fp8_storage"')
    ]
    assert memory(changes[-1].job).total <= room(replace(CARD, memory=16e9))


def test_no_more_blocks_are_computed_again_than_have_to_be() -> None:
    (change,) = advice(replace(FULL, compute=ComputeSettings(checkpoint=0.0)), Gpu("", 0, 40e9))
    assert change.setting == "compute.checkpoint"
    less = replace(change.job, compute=ComputeSettings(checkpoint=float(change.value) - 0.05))
    assert memory(change.job).total <= room(Gpu("", 0, 40e9)) < memory(less).total


def test_what_fits_is_left_alone_and_what_cannot_fit_is_not_said_to() -> None:
    assert advice(FULL, replace(CARD, memory=80e9)) == []
    changes = advice(FULL, replace(CARD, memory=4e9))
    assert memory(changes[-1].job).total > 4e9
    learns = replace(FULL, adapter=None, compute=ComputeSettings(checkpoint=0.0))
    (change,) = advice(learns, CARD)  # there is nothing else to change
    assert (change.setting, change.value) == ("compute.checkpoint", "1.0")
    assert memory(change.job).total > room(CARD)
