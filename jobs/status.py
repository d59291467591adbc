"""How far a run is: its last pass as `status.json` tells, and its verdicts as they are now."""

from __future__ import annotations

import json

from jobs.command import finish, parser, read_run
from jobs.curation import look_at
from jobs.settings import Run
from pipeline import storage
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.verdicts import funnel


def main() -> int:
    """Reads only; a running job is not disturbed."""
    run = read_run(parser(__doc__).parse_args())
    own = storage.join(run.out, "config.toml")
    if not run.out or not storage.exists(own):
        raise InputError(f"found no run in {run.out or 'no folder'}, wanted --out RUN_FOLDER")
    status_url = storage.join(run.out, "status.json")
    if storage.exists(status_url):
        for key, value in json.loads(storage.read(status_url)).items():
            print(f"{key:>10} {value}")
        print()
    house = look_at(load(own, Run, {"out": run.out}))
    print(funnel(house.curation.verdicts(), house.curation.stages))
    return 0


if __name__ == "__main__":
    finish(main)
