"""Does a training's step again whose loss or gradient was not finite, and says where that begins.

The step's folder holds the weights as they stood before it and what every worker was given.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from jobs.command import finish
from jobs.train_settings import TrainRun
from jobs.train_subject import open_subject
from model.compute import prepare
from model.errors import ModelError
from pipeline import storage
from pipeline.config import load
from pipeline.errors import InputError
from training.dataset import LatentDataset
from training.deterministic import make_deterministic
from training.diverged import Given, read
from training.objective import noise_schedule
from training.step import Training
from training.stored import copied
from training.trace import first_not_finite


def main() -> int:
    """1 when it happens again, 0 when every number is finite here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", metavar="RUN/NAME/diverged/STEP", help="the folder of the step")
    step = str(parser.parse_args().step).rstrip("/")
    try:
        with copied(step) as place:
            workers = read(place)
            return _again(load(_run_file(step), TrainRun), place, workers)
    except ModelError as error:
        raise InputError(str(error)) from error


def _run_file(step: str) -> str:
    """That of the training."""
    folder = storage.local(step)
    training = step.rsplit("/", 2)[0] if folder is None else str(folder.resolve().parents[1])
    return storage.join(training, "config.toml")


def _again(run: TrainRun, place: Path, workers: list[Given]) -> int:
    if run.threads:
        torch.set_num_threads(run.threads)
    if run.deterministic:
        make_deterministic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = LatentDataset(run.latents or storage.join(run.out, "latents"))
    subject = open_subject(run, dataset, device)
    subject.weights.load(place)
    # Modules of compiled blocks cannot be watched, and here is one worker alone.
    prepare(subject.model, replace(run.compute, compile=False, shard_base=False))
    model, trained = subject.model, subject.model.optimised_parameters()
    training = Training(model, trained, noise_schedule(run.snr_shift), run.optimizer)
    again = False
    for given in workers:
        for number, examples in enumerate(given.batches, 1):
            found = first_not_finite(model, training.losses, examples)
            model.zero_grad(set_to_none=True)
            where = f"step {given.step}, worker {given.rank}, batch {number}"
            keys = ", ".join(example.key for example in examples)
            begins = "all numbers are finite" if found is None else f"it begins with {found}"
            print(f"{where} ({keys}): {begins}", flush=True)
            again |= found is not None
    return 1 if again else 0


if __name__ == "__main__":
    finish(main)
