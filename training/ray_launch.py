"""The loop in the workers of Ray Train. The only file of this room that knows Ray.

When a worker dies, Ray ends the others and starts all anew; they go on from our own checkpoint, so
that nothing of Ray's is needed to resume. Bad input is an answer here, and no failure: trying again
would find the same.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from pipeline.errors import InputError
from pipeline.ray_runner import cluster
from pipeline.stop import Stop
from training.launch import PATIENCE, LaunchSettings
from training.world import World

_LOOK_EVERY_S = 0.2
"""Between two looks at what the leading worker said, and whether a signal came (ours)."""

Task = Callable[[World, Callable[[], int]], int]
"""What a worker does; it is given a question for the number of a signal. Returns its exit code."""


class WorkersLostError(Exception):
    """More groups of workers were lost than may be, or one raised what no user can mend."""


def run_on_ray(task: Task, settings: LaunchSettings, folder: Path, name: str, stop: Stop) -> int:
    """Runs `task` in each of the workers. Returns its exit code; what the worker that leads prints
    is printed here.

    folder: seen by all machines, for what Ray notes about the run `name`. stop: listens here for
    all workers. Raises InputError as a worker did, or when the cluster has no
    room; WorkersLostError.
    """
    with cluster():
        stop.listen()
        _check_room(settings)
        link = _link_actor.remote()
        trainer = ray.train.torch.TorchTrainer(
            _loop,
            train_loop_config={"task": task, "link": link, "home": str(Path.cwd())},
            torch_config=ray.train.torch.TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ray.train.ScalingConfig(
                num_workers=settings.workers,
                use_gpu=settings.gpus > 0,
                resources_per_worker=_wanted(settings),
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=str(folder.resolve()),
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
                # Its own print says all twice where the output is not the worker's own.
                worker_runtime_env={"env_vars": {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}},
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )
        code, line = _fitted(trainer, link, stop)
    if line:
        raise InputError(line)
    return code


def _fitted(trainer: Any, link: Any, stop: Stop) -> tuple[int, str]:
    """What the worker of rank 0 answered; prints what it says, and passes a signal on to it."""
    # In a thread of its own: in the main one Ray would put its own handler for SIGINT in the place
    # of ours, which ends at once.
    thread = ThreadPoolExecutor(1)
    fitted = thread.submit(trainer.fit)
    thread.shutdown(wait=False)
    told = False
    while not fitted.done():
        time.sleep(_LOOK_EVERY_S)
        _print(link)
        if stop() and not told:
            told = True
            if not ray.get(link.hear.remote(stop.signal)):
                return stop.exit_code, ""  # nobody has begun
    _print(link)
    try:
        return fitted.result().return_value
    except ray.train.TrainingFailedError as error:
        raise WorkersLostError(str(error)) from error


def _print(link: Any) -> None:
    sys.stderr.write(ray.get(link.listen.remote()))
    sys.stderr.flush()


def _loop(config: dict[str, Any]) -> tuple[int, str]:
    """In a worker, which has met the others: the task's exit code, or what the user has to mend."""
    with suppress(FileNotFoundError):
        os.chdir(config["home"])  # Ray starts it elsewhere, and a run file's paths may be relative
    context, link = ray.train.get_context(), config["link"]
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    with ExitStack() as stack:
        if world.leads:
            stack.enter_context(redirect_stdout(_Said(link)))
            stack.enter_context(redirect_stderr(_Said(link)))
            link.begin.remote()
        try:
            return config["task"](world, partial(_asked, world, link)), ""
        except InputError as error:
            return 2, str(error)


def _asked(world: World, link: Any) -> int:
    """The one that leads asks for all."""
    return ray.get(link.asked.remote()) if world.leads else 0


class _Link:
    """An actor between the driver, which hears signals, and the worker that leads, which talks."""

    def __init__(self) -> None:
        self._signal, self._begun, self._said = 0, False, ""

    def begin(self) -> None:
        if self._begun:
            self._said += "a worker was lost: all begin again at the last checkpoint\n"
        self._begun = True

    def hear(self, signal: int) -> bool:
        """Whether there is a worker that will ask."""
        self._signal = signal
        return self._begun

    def asked(self) -> int:
        return self._signal

    def say(self, text: str) -> None:
        self._said += text

    def listen(self) -> str:
        """What was said since the last time."""
        said, self._said = self._said, ""
        return said


_link_actor: Any = ray.remote(num_cpus=0)(_Link)


class _Said(io.TextIOBase):
    """What is written here is said to the driver."""

    def __init__(self, link: Any) -> None:
        self._link = link

    def write(self, text: str) -> int:
        self._link.say.remote(text)
        return len(text)


def _wanted(settings: LaunchSettings) -> dict[str, float]:
    """Of one worker, in Ray's words."""
    return {"CPU": settings.cpus, **({"GPU": settings.gpus} if settings.gpus else {})}


def _check_room(settings: LaunchSettings) -> None:
    """Of a cluster of our own: it does not grow. Another one may, so there Ray waits for room."""
    if os.environ.get("RAY_ADDRESS"):
        return
    there = ray.cluster_resources()
    for what, each in _wanted(settings).items():
        if each * settings.workers > there.get(what, 0):
            raise InputError(
                f"launch: found {settings.workers} workers of {each:g} {what}, this machine has "
                f"{there.get(what, 0):g}; set launch.workers, launch.{what.lower()}s, or "
                "RAY_ADDRESS to a cluster that has room"
            )
