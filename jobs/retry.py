"""Measures clips again that failed, by the code that they failed with.

No fact is deleted: a new one takes the place of the failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from jobs.command import finish, parser, read_run
from jobs.curation import look_at, open_house
from jobs.house import House
from jobs.order import ALL_PASSES
from jobs.steps import said, stopped, within_budget
from pipeline import failures
from pipeline.filters import MANIFEST_STAGE

Failing = Mapping[str, Mapping[str, str]]
"""Stage -> clip -> the code that it failed with."""


def main() -> int:
    """Runs the passes of the stages where they failed, and says what became of them."""
    arguments = parser(f"{__doc__}\nCodes, as the funnel of `status` counts them:\n{_codes()}")
    arguments.add_argument(
        "--errors", required=True, metavar="CODE,CODE", help="which failures, e.g. timeout,crash"
    )
    given = arguments.parse_args()
    codes = failures.parse_codes(given.errors)
    run = read_run(given)
    known = look_at(run, latents=True)
    failed = _failed(known, codes)
    count = sum(map(len, failed.values()))
    if not count:
        return _nothing(known, codes)
    passes = {
        name: stages for name, stages in ALL_PASSES.items() if not failed.keys().isdisjoint(stages)
    }
    with open_house(run, latents="latents" in passes) as house:
        house.look_for_weights(list(failed), soon=failed)
        house.measure_again({stage: list(clips) for stage, clips in failed.items()}, "retried")
        print(f"{count} clips are measured again: {failures.words(_counted(failed))}", flush=True)
        for name, stages in passes.items():
            report = house.measure(name, [s for s in stages if s in house.curation.ledger.stages()])
            print(said(house, report, stages), flush=True)
            if not report.done:
                return stopped(house)
        _report(house, failed, count)
        return within_budget(house, list(failed))


def _codes() -> str:
    return "\n".join(f"  {code:<13} {text}" for code, text in failures.CODES.items())


def _failed(house: House, codes: list[str]) -> Failing:
    """The clips whose verdict is one of these failures; those of no stage are found out anew by
    every run.
    """
    verdicts = house.curation.verdicts()
    table = verdicts.table(np.flatnonzero(verdicts.are("failed")))
    found: dict[str, dict[str, str]] = {}
    for row in table.select(["clip_id", "stage", "measure", "code"]).to_pylist():
        if row["stage"] != MANIFEST_STAGE and row["measure"] is None and row["code"] in codes:
            found.setdefault(row["stage"], {})[row["clip_id"]] = row["code"]
    return found


def _nothing(house: House, codes: list[str]) -> int:
    """What there is to be retried, where nothing is."""
    there = failures.words(failures.count(house.curation.verdicts()))
    print(f"{house.out}: no clip failed as {', '.join(codes)} in a stage; failed are: {there}")
    return 0


def _counted(failed: Failing) -> Counter[tuple[str, str]]:
    return Counter((stage, code) for stage, clips in failed.items() for code in clips.values())


def _report(house: House, failed: Failing, count: int) -> None:
    """`of 17 retried 15 now measured, 2 failed again`."""
    again: dict[str, dict[str, str]] = {}
    for stage, clips in failed.items():
        facts = house.curation.ledger.facts(stage, ())
        codes = zip(facts["clip_id"].to_pylist(), facts["code"].to_pylist(), strict=True)
        again[stage] = {clip: code for clip, code in codes if code is not None and clip in clips}
    left = sum(map(len, again.values()))
    print(
        f"of {count} retried {count - left} now measured, {left} failed again"
        + (f": {failures.words(_counted(again))}" if left else "")
    )
    if count > left:
        command = "latents" if set(failed) == {"latents"} else "dataset"
        print(f"on to the shards with them: python -m jobs.{command} --out {house.out}")


if __name__ == "__main__":
    finish(main)
