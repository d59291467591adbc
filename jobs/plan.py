"""Before a run: what would keep it from running, and what it would take and give.

Looks at the corpus, the places, the weights and the workers; then measures a few clips in a folder
of its own, which is removed, and says what all of them would take. Exit code 2 when a pass could
not run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from jobs import preflight
from jobs.command import finish, parser, read_run
from jobs.curation import look_at
from jobs.dry_run import DryRun, dry_run, passes_of
from jobs.estimate import Crew, Machine, bound, cost, hours, interval
from jobs.house import House
from jobs.preflight import Said, ok, problem
from jobs.reading import facts_url
from pipeline.errors import InputError
from pipeline.host import StageError
from pipeline.units import SickClusterError

CLIPS = 20


def main() -> int:
    """A page of findings and figures."""
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=CLIPS, help="of the dry run")
    given = arguments.parse_args()
    if given.clips < 1:
        raise InputError(f"--clips: found {given.clips}, wanted 1 or more")
    house = look_at(read_run(given))
    return _plan(house, given.clips)


def _plan(house: House, clips: int) -> int:
    rows = preflight.usable(house)
    some = np.random.default_rng(0).permutation(rows)[:clips]
    found = preflight.machines()
    crew = preflight.crew(house, found)
    said: list[Said] = []
    for finding in _findings(house, rows, some, found):
        print(finding, flush=True)
        said.append(finding)
    stuck = any(finding.kind == "problem" for finding in said)
    if len(rows) and not stuck:
        for line in _forecast(house, len(rows), np.sort(some), crew):
            print(line, flush=True)
            stuck = stuck or (isinstance(line, Said) and line.kind == "problem")
    print("a pass could not run as it is" if stuck else "a pass can run")
    return 2 if stuck else 0


def _findings(
    house: House, rows: np.ndarray, some: np.ndarray, found: Sequence[Machine]
) -> Iterator[Said]:
    manifest = house.curation.manifest
    yield ok(f"corpus: {len(manifest.rows)} rows of {manifest.corpus}, {len(rows)} clips to do")
    if len(some):
        yield preflight.clips_open(manifest.clips(some.tolist()))
    yield from preflight.places(house)
    yield from preflight.weights(house)
    yield from preflight.placed(house, found)


def _forecast(house: House, clips: int, some: np.ndarray, crew: Crew) -> Iterator[Said | str]:
    """What the dry run says of all clips."""
    try:
        tried = dry_run(house, some)
    except (InputError, StageError, SickClusterError) as error:
        yield problem(f"dry run: {(str(error).strip() or type(error).__name__).splitlines()[-1]}")
        return
    yield ok(f"dry run: {tried.clips} clips{'' if tried.whole else ', not all in the time given'}")
    yield ""
    yield from figures(house, tried, clips, crew)


def figures(house: House, tried: DryRun, clips: int, crew: Crew) -> Iterator[Said | str]:
    """What so many clips would take and give."""
    yield f"for {clips} clips, {crew.size} workers ({crew.cpus:g} CPUs, {crew.gpus:g} GPUs):"
    total, spent = 0.0, Counter[str]()
    for one in tried.passes:
        seconds = one.per_clip(tried.clips)
        took = hours(sum(seconds.values()), clips, crew)
        total += took
        spent.update(seconds)
        yield (
            f"  {one.name:<12} {one.todo:>3} of {tried.clips} clips come to it, "
            f"{sum(seconds.values()):8.3f} worker s a clip, {_time(took)}"
        )
    price = cost(total, crew, house.run.prices)
    money = f", {price:,.2f} at the given prices" if price else " (no [prices] given)"
    yield f"  in all       {_time(total)}: {total * crew.cpus:,.1f} CPU h, "
    yield f"               {total * crew.gpus:,.1f} GPU h{money}"
    yield f"  bound by     {bound(spent)}"
    if tried.whole:
        yield from _harvest(house, tried, clips)
    else:
        late = [name for name in passes_of(house) if name not in {p.name for p in tried.passes}]
        yield f"  without      {', '.join(late) or 'the rest of the last pass'}: no time was left"
        yield "  yield, gigabytes: not known; give it more time with fewer --clips, or a GPU"


def _harvest(house: House, tried: DryRun, clips: int) -> Iterator[Said | str]:
    """What will be kept, and what it takes on disk."""
    low, high = interval(tried.kept, tried.clips)
    yield (
        f"  yield        {tried.kept} of {tried.clips}: {clips * low:,.0f} to {clips * high:,.0f} "
        "clips kept (95 %), before copies"
    )
    facts = tried.fact_bytes / tried.clips * clips / 1e9
    samples = tried.sample_bytes / tried.clips * clips / 1e9
    yield f"  gigabytes    {facts:,.2f} of facts, {samples:,.2f} of samples, as much of shards"
    if not tried.kept:
        yield "               none was kept, so nothing is known of samples"
    yield preflight.has_room(facts_url(house.run), facts + samples)
    yield preflight.has_room(house.out, samples)


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"


if __name__ == "__main__":
    finish(main)
