"""The steps of curation as commands: some passes, perhaps the shards, then what became of all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from jobs.command import parser, read_run
from jobs.curation import open_house
from jobs.house import House
from jobs.preflight import check_store
from jobs.reading import facts_url
from pipeline import failures
from pipeline.passes import PassReport
from pipeline.shards import ShardReport
from pipeline.verdicts import funnel


def take(
    doc: str | None,
    passes: Mapping[str, Sequence[str]],
    shards: bool = False,
    latents: bool = False,
    prepare: Callable[[House], None] = lambda house: None,
) -> int:
    """Runs the passes in their order, and builds the shards if asked; the exit code.

    shards, latents: which ones; prepare: what else has to be there before the passes.
    """
    arguments = parser(doc)
    arguments.add_argument(
        "--all", action="store_true", help="measure also what an earlier stage rejected"
    )
    given = arguments.parse_args()
    started = time.monotonic()
    with open_house(read_run(given), given.all, latents) as house:
        check_store(facts_url(house.run))
        prepare(house)
        house.look_for_weights([stage for stages in passes.values() for stage in stages])
        on = {stage.name for stage in house.curation.stages}
        for name, stages in passes.items():
            if not on.issuperset(stages):
                continue
            report = house.measure(name, stages)
            print(said(house, report, stages), flush=True)
            if not report.done:
                return stopped(house)
        print(f"\n{funnel(house.curation.verdicts(), house.curation.stages)}\n", flush=True)
        code = within_budget(house, [name for names in passes.values() for name in names])
        if shards or latents:
            built = house.build_latents() if latents else house.build_shards()
            if built.dataset_id is None:
                return stopped(house)
            print(_built(house.latents_url if latents else house.shards_url, built))
    print(f"{house.out}: done in {time.monotonic() - started:.1f} s")
    return code


def within_budget(house: House, stages: Sequence[str]) -> int:
    """Says what failed; 0, or 1 where in these stages more failed than the run allows."""
    verdicts = house.curation.verdicts()
    order = [stage.name for stage in house.curation.stages]
    found = failures.budget(
        verdicts, order, set(stages) & set(order), house.run.engine.failed_share
    )
    if not found.is_over:
        print(f"failed: {failures.words(failures.count(verdicts))}", flush=True)
        return 0
    codes = ",".join(sorted({code for _, code in found.failed} & failures.CODES.keys()))
    print(
        f"{house.out}: {found}. All of it is kept; once the cause is gone: "
        f"python -m jobs.retry --errors {codes} --out {house.out}",
        flush=True,
    )
    return 1


def said(house: House, report: PassReport, stages: Sequence[str]) -> str:
    if report.todo:
        took = f"; the workers' time: {report.shares()}" if report.spent else ""
        return f"{report.name}: {sum(report.fates.values())} of {report.todo} clips done{took}"
    waiting: Counter[str | None] = Counter()
    for reason, count in house.curation.verdicts().counts().items():
        waiting[reason.stage] += count if reason.verdict == "pending" else 0
    order = [stage.name for stage in house.curation.stages]
    for stage in order[: order.index(stages[0])]:
        if waiting[stage]:
            return f"{report.name}: nothing to do yet; {waiting[stage]} clips wait for {stage}"
    return f"{report.name}: nothing to do, every clip that needs it has been measured"


def _built(url: str, report: ShardReport) -> str:
    state = "the index is new" if report.changed else "nothing changed"
    return (
        f"{url.rpartition('/')[2]}: {report.samples} samples in {report.built} new and "
        f"{report.reused} known shards "
        f"({state}); dataset {(report.dataset_id or '')[:12]} in {url}"
    )


def stopped(house: House) -> int:
    print(f"{house.out}: stopped; the same command goes on from here")
    return house.stop.exit_code
