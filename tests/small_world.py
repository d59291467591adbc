"""Small trainings in real workers: processes that meet by gloo, as torchrun would start them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from small_training import SmallNetwork, SmallSamples, quiet, small_trainer
from torch import Tensor

from pipeline.errors import InputError
from training.course import LoopSettings
from training.dataset import Latents
from training.launch import join
from training.step import DivergedError
from training.world import World


@dataclass(frozen=True)
class Order:
    """What the workers are to do. stop_at: the last one alone hears a signal before this step of
    its own count; sick: a sample that it cannot read; wild: one whose latents are no numbers;
    apart: it sees another folder.
    """

    folder: Path
    loop: LoopSettings
    stop_at: int = 0
    sick: int = -1
    wild: int = -1
    apart: bool = False


@dataclass(frozen=True)
class Answer:
    """How a worker ended, and the hash of each sample as the network was shown it."""

    step: int
    stopped_by: int
    error: str
    seen: list[str]


class _Seeing(SmallNetwork):
    """Notes what it is trained on: noisy latents, timestep, text and reference, to the bit."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, reference: Tensor | None
    ) -> Tensor:
        if torch.is_grad_enabled():
            assert reference is not None
            for sample in zip(latents, timestep, text, reference, strict=True):
                content = b"".join(one.numpy().tobytes() for one in sample)
                self.seen.append(hashlib.sha256(content).hexdigest())
        return super().forward(latents, timestep, text, reference)


class _Sick(SmallSamples):
    """One sample cannot be read, and one is no numbers."""

    def __init__(self, sick: int, wild: int) -> None:
        self._sick, self._wild = sick, wild

    def __getitem__(self, number: int) -> Latents:
        if number == self._sick:
            raise InputError(f"sample {number}: damaged latents")
        latents = super().__getitem__(number)
        if number == self._wild:
            return replace(latents, video=latents.video * float("nan"))
        return latents


class Workers:
    """Processes that are started once, and meet anew for every order."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, size: int, order: Order) -> list[Answer]:
        """What each of `size` workers says, by rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            work = partial(_work, size=size, port=free.getsockname()[1], order=order)
        return list(self._pool.map(work, range(size), timeout=120))


@contextmanager
def workers(most: int) -> Iterator[Workers]:
    """Room for worlds of up to `most` workers."""
    context = multiprocessing.get_context("forkserver")  # a fork of ours would share its threads
    context.set_forkserver_preload(["small_world"])
    with ProcessPoolExecutor(most, context) as pool:
        yield Workers(pool)


def _work(rank: int, size: int, port: int, order: Order) -> Answer:
    torch.set_num_threads(1)
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in {**who, **place}.items()})
    last, asked = rank == size - 1, 0

    def stop() -> int:
        nonlocal asked
        asked += 1
        return 15 * (last and asked == order.stop_at)

    network = _Seeing()
    samples = _Sick(order.sick, order.wild) if last else SmallSamples()
    folder = order.folder / "apart" if last and order.apart else order.folder
    with join() as world:
        trainer = small_trainer(folder, order.loop, network=network, world=world, samples=samples)
        try:
            report = trainer.run(stop, quiet)
        except (InputError, DivergedError) as error:
            return Answer(-1, 0, str(error), network.seen)
    return Answer(report.step, report.stopped_by, "", network.seen)


def dying(world: World, stop: Callable[[], int], folder: Path, loop: LoopSettings) -> int:
    """A task for Ray: before its eighth step the last worker is killed, once. Its exit code."""
    asked, died = 0, folder / "died"

    def asks() -> int:
        nonlocal asked
        asked += 1
        if asked == 8 and world.rank == world.size - 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return stop()

    torch.set_num_threads(1)
    report = small_trainer(folder, loop, world=world).run(asks, quiet)
    return 0 if report.done else 1
