"""Trains an adapter on a frozen base, or a base from scratch, on the latents of a run.

Started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.command import finish
from jobs.train_settings import TrainRun
from jobs.train_work import changeless, place_of, work
from model.errors import ModelError
from pipeline import storage
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.lease import Lease
from pipeline.stop import Stop
from training.launch import join
from training.world import World


def main() -> int:
    """0 when all steps are done; 1 when the loss is not a number any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="RUN.toml", help="the run file of the training")
    parser.add_argument("--out", help="run folder")
    parser.add_argument("--runner", help="local: here, or where torchrun started it; or ray")
    given = parser.parse_args()
    run = load(given.config, TrainRun, {"out": given.out, "launch.runner": given.runner})
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER, or out in the run file")
    stop = Stop()
    stop.listen()
    try:
        if run.launch.runner == "ray":
            return _work_on_ray(run, stop)
        with join() as world:
            return _work_here(run, world, stop)
    except ModelError as error:
        raise InputError(str(error)) from error


def _work_here(run: TrainRun, world: World, stop: Stop) -> int:
    """One of the workers; what stops them all is said by the one that leads."""
    try:
        with ExitStack() as held:
            with world.together():
                if world.leads:
                    held.enter_context(Lease(storage.join(place_of(run), "lease.json")))
            return work(run, world, lambda: stop.signal or 0)
    except InputError:
        if world.leads:
            raise
        return 2


def _work_on_ray(run: TrainRun, stop: Stop) -> int:
    """Hands the work to Ray Train; the lease stays here, for workers come and go."""
    from training.ray_launch import WorkersLostError, run_on_ray

    run.loop.share(run.launch.workers)
    told = json.dumps(changeless(run), sort_keys=True)
    name = f"{run.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    place = storage.local(place_of(run))
    with Lease(storage.join(place_of(run), "lease.json")), TemporaryDirectory() as here:
        folder = place or Path(here)
        try:
            return run_on_ray(partial(work, run), run.launch, folder / "ray", name, stop)
        except WorkersLostError as error:
            print(f"error: {error}; the same command goes on from the last checkpoint")
            return 1


if __name__ == "__main__":
    finish(main)
