"""How far a run is: its last pass as `status.json` tells, and its verdicts as they are now."""

from __future__ import annotations

import json

from jobs.command import finish, parser, read_run
from jobs.curation import look_at, recorded
from pipeline import failures, storage
from pipeline.verdicts import funnel


def main() -> int:
    """Reads only; a running job is not disturbed."""
    run = read_run(parser(__doc__).parse_args())
    known = recorded(run.out)
    status_url = storage.join(run.out, "status.json")
    if storage.exists(status_url):
        for key, value in json.loads(storage.read(status_url)).items():
            print(f"{key:>10} {value}")
        print()
    house = look_at(known)
    verdicts = house.curation.verdicts()
    print(funnel(verdicts, house.curation.stages))
    print(f"\nfailed: {failures.words(failures.count(verdicts))}")
    return 0


if __name__ == "__main__":
    finish(main)
