"""What a training would take on a GPU, before it is started: memory, time, and what to change.

Where the planned device is this one and the model fits it, three real steps correct the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from jobs.command import finish
from jobs.train_settings import TrainRun
from jobs.train_subject import TINY_BASE, fitting
from model.config import COGVIDEOX_2B, COGVIDEOX_5B, TINY, TransformerConfig
from model.errors import ModelError
from model.flops import SampleSize, step_flops, tokens
from model.hardware import Gpu, gpu, here, measured_peak
from model.weights import base_sizes
from pipeline import storage
from pipeline.config import load
from pipeline.errors import InputError
from training.calibrate import STEPS, Measured, measure
from training.checkpoint import find
from training.dataset import LatentDataset
from training.planner import SHARE_OF_PEAK, Change, Job, advice, memory, room, seconds

_ON_THE_HUB = {
    "THUDM/CogVideoX-5b": COGVIDEOX_5B,
    "THUDM/CogVideoX-2b": COGVIDEOX_2B,
    "zai-org/CogVideoX-5b": COGVIDEOX_5B,
    "zai-org/CogVideoX-2b": COGVIDEOX_2B,
}
"""Whose sizes are known without a network."""
_TRIED_ON_A_CPU = 2e9  # bytes: what is larger is not tried there


@dataclass(frozen=True, slots=True)
class _Known:
    """What a plan rests on. factor: of predicted memory; flops: that a step executes per second, 0
    where it is not known; how: in words.
    """

    device: Gpu
    factor: float
    flops: float
    how: str


def main() -> int:
    """0 when the training fits, as it is or with the changes that are named; 1 when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="RUN.toml", help="the run file of the training")
    parser.add_argument("--gpu", help='as "H100 80GB" or "24 GB"; left out: the device here')
    parser.add_argument("--workers", type=int, default=1, help="GPUs that share the training")
    given = parser.parse_args()
    if given.workers < 1:
        raise InputError(f"--workers: found {given.workers}, wanted 1 or more")
    run = load(given.config, TrainRun, {})
    run.loop.share(given.workers)
    planned = _planned(given.gpu)
    try:
        job = _job(run, given.workers)
        known = _known(job, planned, here_too=_is_here(given.gpu))
    except ModelError as error:
        raise InputError(str(error)) from error
    changes = advice(job, known.device, known.factor)
    print("\n".join(_said(job, known, changes)))
    last = changes[-1].job if changes else job
    return 0 if known.factor * memory(last).total <= room(known.device) else 1


def _job(run: TrainRun, workers: int) -> Job:
    base, size = _sizes(run)
    return Job(
        base=base,
        adapter=None if run.adapter == "none" else run.adapter,
        sample=size,
        base_dtype=run.base_dtype,
        batch=run.loop.batch,
        global_batch=run.loop.global_batch,
        workers=workers,
        compute=run.compute,
    )


def _sizes(run: TrainRun) -> tuple[TransformerConfig, SampleSize]:
    """Of the latents if there are any yet, else of the paper's."""
    base = None if run.base == TINY_BASE else _ON_THE_HUB.get(run.base)
    if base is None and run.base != TINY_BASE:
        base = base_sizes(find(run.base))
    try:
        if not (run.latents or run.out):
            raise InputError("the run file names no latents")
        dataset = LatentDataset(run.latents or storage.join(run.out, "latents"))
    except InputError as error:
        size = SampleSize()
        print(f"planned for the paper's 25 frames of 480x720, since {error}")
        return base or TINY, size
    sample = dataset[0]
    frames, _, height, width = sample.video.shape
    return base or fitting(dataset), SampleSize(frames, height, width, len(sample.reference))


def _planned(name: str | None) -> Gpu:
    """The GPU of this name, or the device here. Raises InputError for one that is not known."""
    if name is not None:
        known = gpu(name)
        if known is None:
            raise InputError(
                f"--gpu: found {name!r}, which is not in model/hardware.py; wanted the name of one "
                'that is, like "H100 80GB", or its memory alone, like "24 GB"'
            )
        return known
    cpu = Gpu("this machine's CPU", 0.0, psutil.virtual_memory().total)
    return here(_device()) or replace(cpu, peak=measured_peak(_device(), torch.float32))


def _is_here(name: str | None) -> bool:
    own = here(_device())
    if name is None or own is None:
        return name is None
    known = gpu(own.name)
    return known is not None and replace(known, name=name) == gpu(name)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _known(job: Job, planned: Gpu, here_too: bool) -> _Known:
    """By three steps if they can be done here."""
    on_gpu = _device().type == "cuda"
    if here_too and memory(job).total <= (room(planned) if on_gpu else _TRIED_ON_A_CPU):
        return _corrected(job, planned, measure(job, _device()), on_gpu)
    how = f"at {SHARE_OF_PEAK:.0%} of the peak, assumed" if planned.peak else "not known"
    return _Known(planned, 1.0, SHARE_OF_PEAK * planned.peak, f"{how}; nothing was run")


def _corrected(job: Job, device: Gpu, measured: Measured, on_gpu: bool) -> _Known:
    alone = replace(job, global_batch=job.batch, workers=1)  # what was measured
    a_pass, parts = seconds(alone, 1.0), memory(alone)
    factor = measured.memory / (parts.total - parts.runtime)
    how = (
        f"as {STEPS} real steps of {job.batch} samples took here: {measured.seconds:.3g} s and "
        f"{measured.memory / 1e9:.3g} GB, {factor:.2f} of what was predicted"
    )
    # A process on a CPU grows by libraries and allocators too: it corrects no prediction.
    return _Known(device, factor if on_gpu else 1.0, a_pass / measured.seconds, how)


def _said(job: Job, known: _Known, changes: Sequence[Change]) -> list[str]:
    device = known.device
    what = "all weights" if job.adapter is None else f"an adapter of rank {job.adapter.rank}"
    flops = step_flops(job.base, job.adapter, job.sample)
    peak = f"{device.peak / 1e12:.3g} TFLOP/s" if device.peak else "a peak that is not known"
    lines = [
        f"{what}, {job.base.num_layers} blocks in {job.base_dtype}; "
        f"{tokens(job.base, job.adapter, job.sample):,} tokens and {flops.model / 1e12:.3g} "
        f"TFLOP a sample; {job.global_batch} samples a step, {job.batch} at once, "
        f"{job.workers} worker{'s' * (job.workers > 1)}",
        f"{device.name}: {device.memory / 1e9:.3g} GB, {peak}; time {known.how}",
        "",
        *_table([("as it is", job), *_columns(changes)], known),
    ]
    last = changes[-1].job if changes else job
    short = known.factor * memory(last).total - room(device)
    if not changes and short <= 0:
        return [*lines, "", "it fits"]
    wanted = ", ".join(f"{change.setting} = {change.value}" for change in _last_of_each(changes))
    if short <= 0:
        return [*lines, "", f"it does not fit; it does with {wanted}"]
    tried = f", with {wanted} neither" if wanted else ""
    more = f"by {short / 1e9:.3g} GB: take a larger GPU, a smaller rank or smaller videos"
    return [*lines, "", f"it does not fit{tried}, {more}"]


def _columns(changes: Sequence[Change]) -> list[tuple[str, Job]]:
    first = "with" if len(changes) == 1 else "then"
    return [
        (f"{'with' if number == 0 else first} {change.setting} = {change.value}", change.job)
        for number, change in enumerate(changes)
    ]


def _last_of_each(changes: Sequence[Change]) -> list[Change]:
    return list({change.setting: change for change in changes}.values())


def _table(columns: Sequence[tuple[str, Job]], known: _Known) -> list[str]:
    """A line for each job."""
    width = max(len(name) for name, _ in columns)
    head = ["base", "learns", "kept", "passing", "runtime", "GB in all", "fits", "s a step"]
    lines = [" " * width + "".join(f"{name:>10}" for name in head)]
    for name, job in columns:
        parts = memory(job)
        each = (parts.base, parts.learns, parts.kept, parts.passing, parts.runtime)
        total = known.factor * parts.total
        figures = [f"{part * known.factor / 1e9:.2f}" for part in (*each, parts.total)]
        figures.append("yes" if total <= room(known.device) else "no")
        figures.append(f"{seconds(job, known.flops):.3g}" if known.flops else "unknown")
        lines.append(f"{name:<{width}}" + "".join(f"{figure:>10}" for figure in figures))
    return lines


if __name__ == "__main__":
    finish(main)
