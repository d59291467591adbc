"""Trains an adapter on a frozen base, or a base from scratch, on the latents of a run.

Started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from jobs.command import finish
from jobs.train_settings import TrainRun
from jobs.train_work import folder_of, work
from model.errors import ModelError
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
    given = parser.parse_args()
    run = load(given.config, TrainRun, {"out": given.out})
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER, or out in the run file")
    stop = Stop()
    stop.listen()
    try:
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
                    held.enter_context(Lease(str(folder_of(run) / "lease.json")))
            return work(run, world, lambda: stop.signal or 0)
    except InputError:
        if world.leads:
            raise
        return 2


if __name__ == "__main__":
    finish(main)
