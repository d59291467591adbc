"""Compares a run's shards with their index, byte for byte."""

from __future__ import annotations

from jobs.command import finish, parser, read_run
from pipeline import storage
from pipeline.errors import InputError
from pipeline.shards import dataset_id, read_index
from pipeline.verify import verify


def main() -> int:
    """0 when all is as the index says, 1 with a line for everything that is not."""
    run = read_run(parser(__doc__).parse_args())
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER")
    url = storage.join(run.out, "shards")
    index = read_index(url)
    problems = verify(url)
    for problem in problems:
        print(problem)
    shards = len(set(index["shard"].to_pylist()))
    print(
        f"dataset {dataset_id(url)[:12]}: {index.num_rows} samples in {shards} shards, "
        f"{len(problems) or 'no'} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    finish(main)
