"""How the workers of a training come to be, and how those that torchrun started meet.

Ray Train's are started and meet in training/ray_launch.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

import torch
import torch.distributed as dist
from annotated_types import Interval

from pipeline.bounds import Count, Positive
from pipeline.errors import InputError
from training.world import World

PATIENCE = timedelta(minutes=30)
"""How long workers wait for one that writes a checkpoint, or never comes (ours)."""


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Who does the work.

    runner: "local" is this process, or those that torchrun started; "ray" are workers of Ray Train,
    to which all else here applies: how many, CPUs and GPUs of each, and how often some may be lost
    before the run ends (-1: any number of times).
    """

    runner: Literal["local", "ray"] = "local"
    workers: Count = 1
    cpus: Positive = 1.0
    gpus: Literal[0, 1] = 1
    max_failures: Annotated[int, Interval(ge=-1)] = 3  # ours


@contextmanager
def join() -> Iterator[World]:
    """The world of which the environment speaks, as torchrun writes it; else this process alone.

    Raises InputError when the others cannot be met.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World(device=_device(0))
        return
    device = _device(_number("LOCAL_RANK", 0))
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    except (dist.DistError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(
            f"MASTER_ADDR:MASTER_PORT {place}: {size} workers cannot meet there: {why}; end what "
            "holds the port, or set MASTER_PORT to a free one (torchrun --standalone finds one)"
        ) from error
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()


def _number(name: str, otherwise: int) -> int:
    """Of the environment."""
    found = os.environ.get(name, str(otherwise))
    try:
        return int(found)
    except ValueError as error:
        raise InputError(f'{name}: found "{found}", wanted a whole number; unset it') from error


def _device(local_rank: int) -> torch.device:
    """The GPU of a worker, by its number on this machine; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"found {torch.cuda.device_count()} GPUs for worker {local_rank + 1} of this machine, "
            "wanted one for each; start fewer workers"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
