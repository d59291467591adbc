"""The synthetic corpus: render it from a seed, or score runs over it against its truth."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq

from jobs.command import finish
from jobs.curation import look_at
from jobs.settings import Run
from jobs.synthetic.plan import make_plan
from jobs.synthetic.render import render
from jobs.synthetic.score import Score, masks_in, score, table
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.progress import Progress

WORKERS = 2
"""Processes that render: the project is built to run on two cores."""


def main() -> int:
    """Renders or scores; the exit code is 1 when a score is below its bars."""
    parser = ArgumentParser(prog="python -m jobs.corpus", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("corpus"), help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another corpus")
    parser.add_argument("--score", type=Path, nargs="+", metavar="RUN", help="run folders to score")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    given = parser.parse_args()
    if given.score:
        return _score(given.out, given.score, given.json)
    return _build(given.out, given.seed)


def _build(out: Path, seed: int) -> int:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty: name a new folder with --out, or remove this one")
    plans = make_plan(seed)
    with Progress("corpus", len(plans), None) as shown:
        made = render(plans, out, WORKERS, lambda count: shown.update(count - shown.done))
    kept = sum(row.reason == "kept" for row in made)
    print(f"{out}: {len(made)} rows of seed {seed}, {kept} of them to be kept; clips.csv, videos/")
    return 0


def _score(corpus: Path, runs: Sequence[Path], to: Path | None) -> int:
    if not (corpus / "truth" / "truth.parquet").exists():
        raise InputError(f"{corpus} holds no truth: name the corpus of these runs with --out")
    scores = {run.name: _score_run(corpus, run) for run in runs}
    print(table(scores))
    if to is not None:
        to.write_text(json.dumps({run: asdict(one) for run, one in scores.items()}, indent=1))
    return 0 if all(one.passed for one in scores.values()) else 1


def _score_run(corpus: Path, run: Path) -> Score:
    verdicts = run / "verdicts.parquet"
    if not verdicts.exists():
        raise InputError(f"{run} holds no verdicts.parquet: name a run folder that is done")
    house = look_at(load(str(run / "config.toml"), Run, {"out": str(run)}))
    facts = house.curation.ledger.facts("segment")
    if facts.num_rows == 0:
        raise InputError(
            f"{run} has no masks of segment as it is now: run it again with its own run file"
        )
    return score(corpus, pq.read_table(verdicts), masks_in(facts))


if __name__ == "__main__":
    finish(main)
