"""Three real steps of a training that is planned, on this machine, with weights drawn at random."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

import psutil
import torch

from model.adapted import Adapted
from model.compute import prepare
from model.extra_frame import open_model
from model.fp8 import store_in_fp8
from model.weights import random_base
from training.objective import noise_schedule
from training.planner import Job
from training.step import Example, OptimizerSettings, Training

STEPS = 3
"""After one that warms up: compilers, kernels and the optimizer's moments come with the first."""


@dataclass(frozen=True, slots=True)
class Measured:
    """seconds: of one pass of `batch` samples and an update, the shortest; memory: bytes at most,
    on a GPU of its tensors, elsewhere by how much the process grew: one that was never larger.
    """

    seconds: float
    memory: int


def measure(job: Job, device: torch.device) -> Measured:
    """Of one worker alone: a base that would be sharded is whole here."""
    before = psutil.Process().memory_info().rss
    model = random_model(job, device)
    training = Training(
        model, model.optimised_parameters(), noise_schedule(), OptimizerSettings(warmup_steps=1)
    )
    examples = [_example(job, number) for number in range(job.batch)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken = [_step(training, examples, number) for number in range(1 + STEPS)][1:]
    if device.type == "cuda":
        return Measured(min(taken), torch.cuda.max_memory_allocated(device))
    return Measured(min(taken), 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def random_model(job: Job, device: torch.device) -> Adapted:
    """As the job's training has it, made on the device itself."""
    base = random_base(job.base, job.computes_in, device)
    if job.base_dtype == "fp8_storage" and job.adapter is not None:
        store_in_fp8(base)
    model = open_model(base, job.adapter)
    prepare(model, job.compute)
    return model


def _step(training: Training, examples: list[Example], number: int) -> float:
    began = time.perf_counter()
    training.step(number, [examples])  # its loss is read back: the device has finished
    return time.perf_counter() - began


def _example(job: Job, number: int) -> Example:
    generator = torch.Generator().manual_seed(number)
    size = job.sample
    shape = (size.frames, 16, size.height, size.width)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    reference = torch.randn((size.references, *shape[1:]), generator=generator)
    return Example(
        key=f"random {number}",
        latents=latents,
        noise=noise,
        timestep=500,
        text=torch.zeros(job.base.max_text_seq_length, job.base.text_embed_dim),
        reference=None if job.adapter is None else reference,
    )
