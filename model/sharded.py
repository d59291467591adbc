"""A frozen base that no worker holds whole: each has its share of every block's weights (FSDP2).

A block is gathered before it computes and let go after it, in the forward and in the backward. What
lies around the blocks (0.3 % of the 5B) and the adapter, fp32, are every worker's own.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

from torch import distributed
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from model.adapted import Adapted
from model.errors import ModelError
from model.transformer import CustomVideoX

_CALL = "with_reference"  # of a block: FSDP gathers around methods, and `both_streams` is none


def is_sharded(model: Adapted) -> bool:
    """Whether its parts must not be called alone."""
    return isinstance(model, FSDPModule)


def shard(model: Adapted) -> None:
    """Over all workers of the default group; nothing is done where this one is alone.

    Afterwards call the model alone, not its parts. Raises ModelError for a base that learns: what
    is stored of it, and its optimizer, would be shares.
    """
    if model.adapter is None:
        raise ModelError(
            "compute.shard_base: found true without an adapter; only a frozen base is sharded: set "
            "it to false"
        )
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    # It warns of work in place on what a block returns; there is none.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    blocks = model.transformer.transformer_blocks
    for number, block in enumerate(blocks):
        fully_shard(block)
        if isinstance(model, CustomVideoX):
            setattr(block, _CALL, model.block_calls[number])
            register_fsdp_forward_method(block, _CALL)
            model.block_calls[number] = getattr(block, _CALL)
    # The root of all blocks, which has no weights of its own: it gathers the next block ahead.
    sharded = {weight for block in blocks for weight in block.parameters()}
    fully_shard(cast(Any, model), ignored_params=set(model.parameters()) - sharded)
