"""Time and memory of one call on a CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_SHORTEST_S = 0.05  # of a timing; a shorter call is repeated


def device() -> torch.device:
    """The GPU where there is one, else one core."""
    torch.set_num_threads(1)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(call: Callable[[], object]) -> float:
    """Of one call, the mean of as many as fill a timing. Warm it up before.

    On a CPU they are this process's own: its neighbours on a shared machine do not count.
    """
    calls, taken = 1, _timed(call, 1)
    while taken < _SHORTEST_S:
        calls = max(2 * calls, round(calls * _SHORTEST_S / max(taken, 1e-6)))
        taken = _timed(call, calls)
    return taken / calls


def peak_bytes(call: Callable[[], object]) -> int:
    """What the tensors of one call took at most, beyond those that were there before it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events: list[Any] = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in changes), initial=0))


def matmul_tflops(dtype: torch.dtype) -> float:
    """What large matrix products reach here, by the same clock as all else."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if where == "cuda" else 1024
    a, b = (torch.randn(size, size, device=where, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2e-12 * size**3 / min(seconds(lambda: torch.mm(a, b)) for _ in range(5))


def _timed(call: Callable[[], object], calls: int) -> float:
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    for _ in range(calls):
        call()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started
