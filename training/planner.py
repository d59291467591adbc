"""What a training will take, before it is started: memory and time, and what to change.

B samples of a pass, M text and video tokens, R reference tokens, E width. Bytes and seconds; pure
arithmetic on sizes, held against what was measured (training/calibrate.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import nn

from model.compute import ComputeSettings, recomputed
from model.config import AdapterConfig, TransformerConfig
from model.flops import SampleSize, step_flops, tokens
from model.fp8 import store_in_fp8
from model.hardware import Gpu

BaseDtype = Literal["bf16", "f32", "fp8_storage"]

SHARE_OF_PEAK = 0.4
"""What a step is taken to reach of a GPU's peak until three were measured (ours)."""
_RUNTIME = 1.2e9  # of a GPU: CUDA's context, cuBLAS, NCCL (ours)
_SLACK = 0.05  # of a GPU's memory, which the allocator loses in pieces (ours)
_GATHERED = 3  # blocks: the one that computes, the one after it, and what is on its way

# What a block keeps, in tensors of a token's width: inputs of both norms; queries and keys before
# theirs; queries, keys, values; the attention's output; the hidden layer of the feed-forward (4).
_MAIN = 12
_LORA = 2  # and what its four layers read
_JOINED = 2  # keys and values of both streams once more, side by side
_LEARNS = 23  # of a base that learns: every layer's own input, and what modulations and gates touch
_PASSING = 12  # what comes and goes within a block: a feed-forward and its gradient, or the rotary


@dataclass(frozen=True, slots=True)
class Job:
    """A training, as far as memory and time know it. adapter None: the base learns, in fp32."""

    base: TransformerConfig
    adapter: AdapterConfig | None
    sample: SampleSize
    base_dtype: BaseDtype = "bf16"
    batch: int = 1
    global_batch: int = 32
    workers: int = 1
    compute: ComputeSettings = ComputeSettings()

    @property
    def computes_in(self) -> torch.dtype:
        """The base's dtype outside of storage."""
        f32 = self.adapter is None or self.base_dtype == "f32"
        return torch.float32 if f32 else torch.bfloat16


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device, at the worst moment of a step.

    learns: the weights that do, their gradients and AdamW's moments. kept: activations between
    forward and backward. passing: what one block needs while it computes.
    """

    base: float
    learns: float
    kept: float
    passing: float
    runtime: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.base + self.learns + self.kept + self.passing + self.runtime


@dataclass(frozen=True, slots=True)
class Change:
    """One setting of the run file, and the job with it and with all changes before it."""

    setting: str
    value: str
    job: Job


def memory(job: Job) -> Memory:
    """Of one worker."""
    around, block = base_bytes(job.base, job.base_dtype if job.adapter else "f32")
    layers, sharded = job.base.num_layers, job.compute.shard_base and job.workers > 1
    base = around + layers * block
    if sharded:
        base = around + layers * block / job.workers + min(layers, _GATHERED) * block
    again = recomputed(job.compute.checkpoint, layers)
    whole, kept = block_bytes(job), kept_bytes(job)
    passing = _PASSING * _tokens(job) * _width(job.base) * job.computes_in.itemsize
    if job.base_dtype == "fp8_storage":
        passing += 2 * 4 * _width(job.base) ** 2 * job.computes_in.itemsize  # the widest weight
    return Memory(
        base=0.0 if job.adapter is None else base,
        learns=_learns(job, base),
        kept=kept,
        passing=passing + (whole if again else 0.0),
        runtime=_RUNTIME,
    )


def seconds(job: Job, flops: float) -> float:
    """Of one optimizer step, on devices that do so many operations per second."""
    again = recomputed(job.compute.checkpoint, job.base.num_layers)
    per_sample = step_flops(job.base, job.adapter, job.sample, again).executed
    return per_sample * job.global_batch / job.workers / flops


def room(gpu: Gpu) -> float:
    """Bytes that a training may take there."""
    return (1 - _SLACK) * gpu.memory


def advice(job: Job, gpu: Gpu, factor: float = 1.0) -> list[Change]:
    """What to change, in this order, until the job fits; empty when it does. When nothing helps
    the last job still does not fit.

    First what costs least: time, then how samples are cut into batches, then machines, and last the
    numbers themselves. factor: by how much a measured step took more than was predicted.
    """
    changes: list[Change] = []
    for change in _possible(job):
        if factor * memory(changes[-1].job if changes else job).total <= room(gpu):
            break
        changes.append(change)
    if [change.setting for change in changes] == ["compute.checkpoint"]:
        return [_least(job, gpu, factor) or changes[0]]
    return changes


def _possible(job: Job) -> Iterator[Change]:
    if job.compute.checkpoint < 1:
        job = replace(job, compute=replace(job.compute, checkpoint=1.0))
        yield Change("compute.checkpoint", "1.0", job)
    while job.batch > 1:
        smaller = max(n for n in range(1, job.batch) if job.batch % n == 0)
        job = replace(job, batch=smaller)
        yield Change("loop.batch", str(smaller), job)
    if job.adapter is None:
        return
    if job.workers > 1 and not job.compute.shard_base:
        job = replace(job, compute=replace(job.compute, shard_base=True))
        yield Change("compute.shard_base", "true", job)
    for dtype in ("bf16", "fp8_storage"):
        if _BITS[dtype] < _BITS[job.base_dtype]:
            job = replace(job, base_dtype=dtype)
            yield Change("base_dtype", f'"{dtype}"', job)


_BITS: dict[BaseDtype, int] = {"f32": 32, "bf16": 16, "fp8_storage": 8}


def _least(job: Job, gpu: Gpu, factor: float) -> Change | None:
    """The smallest share of blocks, in twentieths, with which it fits; None when none will do."""
    for share in (n / 20 for n in range(1, 21)):
        fits = replace(job, compute=replace(job.compute, checkpoint=share))
        more = share > job.compute.checkpoint
        if more and factor * memory(fits).total <= room(gpu):
            return Change("compute.checkpoint", f"{share:g}", fits)
    return None


@lru_cache
def base_bytes(base: TransformerConfig, dtype: BaseDtype) -> tuple[int, int]:
    """Of all that is around the blocks, and of one block, as the weights are stored."""
    with torch.device("meta"):
        network = CogVideoXTransformer3DModel(**replace(base, num_layers=1).keywords())
    nn.Module.to(network, torch.float32 if dtype == "f32" else torch.bfloat16)
    if dtype == "fp8_storage":
        store_in_fp8(network)
    every = sum(weight.nbytes for weight in network.parameters())
    block = sum(weight.nbytes for weight in network.transformer_blocks.parameters())
    return every - block, block


def kept_bytes(job: Job) -> float:
    """Between the forward and the backward: of blocks whole, or of their inputs alone."""
    again = len(recomputed(job.compute.checkpoint, job.base.num_layers))
    inputs = _tokens(job) * _width(job.base) * job.computes_in.itemsize
    return (job.base.num_layers - again) * block_bytes(job) + again * inputs


def block_bytes(job: Job) -> float:
    """What one block keeps for its backward when nothing is computed again."""
    wide, item = _width(job.base), job.computes_in.itemsize
    every = _tokens(job)
    if job.adapter is None:
        return _LEARNS * every * wide * item
    rank = job.adapter.rank
    joined = 0
    if job.adapter.kind == "extra_frame":
        with_lora = every
    else:
        with_lora = job.batch * job.sample.references * job.sample.patches()
        joined = _JOINED * every * (job.adapter.attention == "joint")
    wanted = _MAIN * every + _LORA * with_lora + joined
    low = 4 * with_lora * rank * item
    casts = 8 * wide * rank * item * (job.computes_in != torch.float32)
    return wanted * wide * item + low + casts


def _learns(job: Job, base: float) -> float:
    """Weights, gradients and two moments in fp32; of the last block some get no gradient."""
    if job.adapter is None:
        return 4 * base
    one = 2 * _width(job.base) * job.adapter.rank
    every = 4 * job.base.num_layers * one
    dead = 0 if job.adapter.kind == "extra_frame" else 2 * one
    return 4 * every + 12 * (every - dead)


def _tokens(job: Job) -> int:
    """Of one pass."""
    return job.batch * tokens(job.base, job.adapter, job.sample)


def _width(base: TransformerConfig) -> int:
    return base.num_attention_heads * base.attention_head_dim
