"""Looks at every byte of a run (facts, samples, latents, the shards of both); changes nothing."""

from __future__ import annotations

from jobs.command import finish, parser, read_run
from jobs.damage import look
from pipeline.errors import InputError


def main() -> int:
    """0 when all is as it was recorded, 1 with a line for each file that is not."""
    run = read_run(parser(__doc__).parse_args())
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER")
    looked = look(run)
    for damage in looked.damages:
        print(damage)
    for line in looked.said:
        print(line)
    if looked.damages:
        print(f"python -m jobs.repair --out {run.out} mends these, and touches nothing else")
    return 1 if looked.damages else 0


if __name__ == "__main__":
    finish(main)
