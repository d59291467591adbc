"""How the steps of a training are computed: what is kept, what is computed again, what is compiled.

A block is called in two ways: by its own forward, as the stock transformer does, and by
`both_streams`, where there is a reference. Whatever is done here is done to both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch.utils.checkpoint import checkpoint

from model.adapted import Adapted
from model.block import both_streams
from model.errors import ModelError
from model.sharded import shard
from model.transformer import CustomVideoX

Call = Callable[..., Any]
_MOST_GRAPHS = 64  # a run that would need more says so, and stops


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """None of them changes more of a step's numbers than their rounding.

    checkpoint: the share of blocks, spread evenly, whose activations the backward computes again.
    compile: one block's functions, once for all blocks. shard_base: every worker holds its share of
    the frozen base, and whole blocks only while it computes them.
    """

    checkpoint: float = 1.0  # ours: what a block of the 5B keeps is 2 GB per sample
    compile: bool = False  # its first step takes minutes
    shard_base: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.checkpoint <= 1:
            raise ModelError(f"compute.checkpoint: found {self.checkpoint}, wanted 0 to 1")


def recomputed(share: float, num_blocks: int) -> frozenset[int]:
    """Which blocks are computed again: the nearest whole number of them, spread evenly."""
    count = round(share * num_blocks)
    return frozenset((2 * number + 1) * num_blocks // (2 * count) for number in range(count))


def prepare(model: Adapted, settings: ComputeSettings, compiler: str = "inductor") -> None:
    """Once, when the model is on its device and the workers know one another.

    compiler: a backend of torch.compile. Raises ModelError where a base is to be sharded that
    learns.
    """
    forward, with_reference = CogVideoXBlock.forward, both_streams
    if settings.compile:
        forward, with_reference = _compiled(forward, compiler), _compiled(both_streams, compiler)
    blocks = model.transformer.transformer_blocks
    again = recomputed(settings.checkpoint, len(blocks))
    for number, block in enumerate(blocks):
        block.forward = _bound(forward, block, number in again)
        if isinstance(model, CustomVideoX):
            model.block_calls[number] = _bound(with_reference, block, number in again)
    if settings.shard_base:
        shard(model)


def _compiled(function: Call, compiler: str) -> Call:
    """Blocks share their graphs; the first and the last have others, and so has a held-out pass."""
    compile_: Any = torch.compile  # whose overloads do not know its limit
    return compile_(function, backend=compiler, fullgraph=True, recompile_limit=_MOST_GRAPHS)


def _bound(function: Call, block: Any, again: bool) -> Call:
    """The function of this block. It draws nothing at random: no generator's state is kept."""
    call = MethodType(function, block)
    if not again:
        return call
    return partial(checkpoint, call, use_reentrant=False, preserve_rng_state=False)
