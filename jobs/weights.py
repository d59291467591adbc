"""Fetches the weights that run files name, ahead of the runs: workers never download.

Takes run files of every kind: of curation, a training, a generation, an evaluation. What encodes
the latents is fetched where curation's has a table [latents], or where a training or a generation
is given beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from jobs.command import finish
from jobs.curation import recorded
from jobs.evaluate import EvaluateRun
from jobs.generate_settings import GenerateRun
from jobs.order import measures
from jobs.settings import Run
from jobs.train_settings import TrainRun
from jobs.trained import named_base
from model.weights import FILES
from pipeline import storage
from pipeline.config import load, read_tables
from pipeline.errors import InputError
from pipeline.weights import Weights, fetch, find, is_path, size_bytes
from stages.encoders import LatentsSettings, encoder_weights, text_weights
from stages.motion import Motion

_KINDS = (Run, TrainRun, GenerateRun, EvaluateRun)
_TINY = "tiny"


def main() -> int:
    """One line for each: which key names it, what it is, where it lies, what it takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="RUN.toml", nargs="+", required=True, help="run files")
    wanted = list(dict.fromkeys(_wanted(parser.parse_args().config)))
    fetched = sum(map(_bring, wanted))
    print(f"{len(wanted)} wanted: {fetched} fetched, {len(wanted) - fetched} were here")
    return 0


def _bring(weights: Weights) -> bool:
    """Has it here, and says so; whether it had to be fetched."""
    try:
        place, was_here = find(weights), True
    except InputError:
        place, was_here = fetch(weights), False
    revision = f" at {weights.revision}" if weights.revision else ""
    took = f"{size_bytes(place, weights) / 1e9:.2f} GB"
    print(f"{weights.setting}: {weights.name}{revision}, {took} in {place}", flush=True)
    return not was_here


def _wanted(paths: Sequence[str]) -> Iterator[Weights]:
    tables = [read_tables(path) for path in paths]
    runs = [load(path, kind_of(table)) for path, table in zip(paths, tables, strict=True)]
    trainings = [run for run in runs if isinstance(run, TrainRun)]
    made_here = {storage.join(run.out, run.name) for run in trainings}
    encodes = any(isinstance(run, TrainRun | GenerateRun) for run in runs)
    curated = any(isinstance(run, Run) for run in runs)
    for run, table in zip(runs, tables, strict=True):
        match run:
            case Run():
                yield from (w for stage in measures(run) for w in stage.weights())
                if encodes or "latents" in table:
                    yield from encoder_weights(run.latents)
            case TrainRun():
                if run.base not in (_TINY, *made_here) and not is_path(run.base):
                    yield Weights(run.base, "base", files=FILES)
                if run.text:
                    yield text_weights(run.text, "text")
            case GenerateRun() if run.adapter:
                yield from _of_adapter(run)
            case GenerateRun() if not curated:
                yield from encoder_weights(recorded(run.out).latents)
            case EvaluateRun():
                yield from Motion(run.motion).weights()


def _of_adapter(run: GenerateRun) -> Iterator[Weights]:
    base = named_base(run)
    if not is_path(base):
        yield Weights(base, "base", files=FILES)
    yield from encoder_weights(LatentsSettings(run.codec or base, run.text or base))


def kind_of(tables: Any) -> type:
    """The kind that knows the most of its keys: a misspelt one is then found by its own kind."""
    return max(_KINDS, key=lambda kind: len({f.name for f in fields(kind)} & tables.keys()))


if __name__ == "__main__":
    finish(main)
