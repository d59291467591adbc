"""Runs every reference backend once on a few clips of a run's corpus, with tiny networks.

Their weights are random, their classes those of the published ones, and they are saved and loaded
as these are. So it shows that packages, code and machine work together before weights are fetched
or a cluster is paid for; the numbers mean nothing. It works here, in one worker, in a folder of its
own, and leaves the run alone.
"""

from __future__ import annotations

import io
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from jobs.command import finish, parser, read_run
from jobs.house import House
from jobs.order import PASSES, stages_of
from jobs.reading import facts_url, manifest_of
from jobs.rehearsal.networks import read, scored, segmented, stages_with_small_sam
from jobs.settings import Run
from pipeline import storage
from pipeline.errors import InputError
from pipeline.filters import defaults, merge
from pipeline.host import StageError
from pipeline.ledger import Ledger
from pipeline.local_runner import LocalFleet
from pipeline.manifest import Manifest
from pipeline.passes import Curation, Pace, PassReport, run_pass
from pipeline.progress import Progress
from pipeline.stage import Stage
from pipeline.units import SickClusterError
from pipeline.work import Work
from stages.caption import CaptionSettings

_LOOKED_AT = 50
"""Clips at the top of the corpus: the first of them that the probe lets pass are taken (ours)."""
_BY_CHANCE = {"entities": ("bad_answer",), "pair": ("no_mask",)}
"""What becomes of clips by random weights, however well the code works."""
_NO_CAPTION = "The video shows a person."
"""Stands where the corpus has none, so that there is something to read and to look for."""
REHEARSED: Mapping[str, tuple[str, Callable[[Run, Path], Run]]] = {
    "score": ("score", scored),
    "entities": ("entities", read),
    "transformers": ("segment", partial(segmented, package="transformers")),
    "original": ("segment", partial(segmented, package="original")),
}
"""Title, or package -> its pass, and what puts its networks into the run."""


def main() -> int:
    """One line per stage and package; the exit code is 1 when one of them does not work."""
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=3, help="how many (default: 3)")
    given = arguments.parse_args()
    if given.clips < 1:
        raise InputError(f"--clips: found {given.clips}, wanted 1 or more")
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is written goes with the folder
    with TemporaryDirectory(prefix="rehearsal-") as folder:
        run, clips = _few(read_run(given), Path(folder), given.clips)
        print(f"{len(clips.rows)} clips of {clips.corpus}, networks of random weights:")
        print("their numbers mean nothing, what they say of a caption is a bad_answer", flush=True)
        works = [_works(run, title, clips, Path(folder)) for title in REHEARSED]
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # kB
    took = f"{time.monotonic() - started:.1f} s, {largest:.1f} GB in the largest process"
    print(f"every backend works here: {took}" if all(works) else f"not all backends work: {took}")
    return 0 if all(works) else 1


def _few(run: Run, folder: Path, count: int) -> tuple[Run, Manifest]:
    """The run in this folder, and the first clips that its networks would see."""
    manifest = manifest_of(run)
    here = replace(
        run,
        out=str(folder / "run"),
        facts=str(folder / "facts"),
        engine=replace(run.engine, runner="local"),
        caption=CaptionSettings(),
    )
    usable = ~np.asarray(manifest.rows["duplicate"]) & ~manifest.missing
    usable &= ~np.asarray(manifest.rows["problem"].is_valid())
    top = _only(manifest, np.flatnonzero(usable)[:_LOOKED_AT])
    curation = _curation(here, top)
    _measure(here, curation, "probe", ("probe",))
    passed = np.flatnonzero(curation.verdicts().are("pending"))
    if len(passed) == 0:
        raise InputError(
            f"none of the first {len(top.rows)} clips of {manifest.corpus} passes the filters of "
            "probe; wanted one that the networks would be shown"
        )
    clips = _only(top, passed[:count])
    captions = [caption or _NO_CAPTION for caption in clips.rows["caption"].to_pylist()]
    at = clips.rows.column_names.index("caption")
    filled = clips.rows.set_column(at, "caption", pa.array(captions, pa.string()))
    return here, replace(clips, rows=filled)


def _only(manifest: Manifest, rows: np.ndarray) -> Manifest:
    return replace(manifest, rows=manifest.rows.take(pa.array(rows)), known_id="")


def _works(run: Run, title: str, clips: Manifest, folder: Path) -> bool:
    """Measures with these networks and says what came of it."""
    name, put_networks = REHEARSED[title]
    package = "" if title == name else f" ({title})"
    own = folder / title
    own.mkdir()
    try:
        small = put_networks(run, own)
        curation = _curation(small, clips)
        House(small, curation).look_for_weights(PASSES[name])
        if package:
            _measure(small, curation, "entities", PASSES["entities"])  # of the grammar
        report = _measure(small, curation, name, PASSES[name])
    except (ImportError, InputError, StageError, SickClusterError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        print(f"{name + package:<23} does not work: {reason}", flush=True)
        return False
    stages = [stage for stage in curation.stages if stage.name in PASSES[name]]
    networks = [stage.name for stage in stages if isinstance(stage, Stage) and stage.weights()]
    return all([_said(curation, stage, package, report) for stage in networks])


def _curation(run: Run, clips: Manifest) -> Curation:
    stages = stages_with_small_sam(stages_of(run, clips), run)
    filters = merge(defaults(stages), {"probe": run.filters.get("probe", {})})
    ledger = Ledger(storage.join(facts_url(run), clips.id), stages)
    return Curation(clips, stages, filters, ledger, run.engine.limits, measure_all=True)


def _measure(run: Run, curation: Curation, name: str, stages: Sequence[str]) -> PassReport:
    """All clips in one unit, so that networks see batches."""

    def fleet(work: Work) -> closing[LocalFleet]:
        return closing(LocalFleet(work, lambda: False, run.workers[0]))

    def unseen(name: str, total: int) -> Progress:
        return Progress(name, total, None, stream=io.StringIO())

    pace = Pace(len(curation.manifest.rows), run.engine.flush_s)
    return run_pass(name, stages, curation, fleet, lambda: False, pace, unseen)


def _said(curation: Curation, stage: str, package: str, report: PassReport) -> bool:
    """Prints what a stage recorded; whether its backend works."""
    facts = curation.ledger.facts(stage)
    failed = Counter(code for code in facts["code"].to_pylist() if code)
    measured = len(facts) - failed.total()
    codes = f" ({', '.join(sorted(failed))})" if failed else ""
    seconds = report.spent.get(stage, 0.0)
    print(
        f"{stage + package:<23} {measured} measured, {failed.total()} failed{codes}, "
        f"{seconds:.1f} s",
        flush=True,
    )
    wrong = what_is_wrong(facts, len(curation.manifest.rows), _BY_CHANCE.get(stage, ()))
    if wrong:
        print(f"{'':23} does not work: {wrong}", flush=True)
    return not wrong


def what_is_wrong(facts: pa.Table, clips: int, by_chance: Sequence[str]) -> str:
    """In one line, or "". facts: of one stage; by_chance: codes of failure that are none."""
    for row in facts.select(["clip_id", "code", "message"]).to_pylist():
        if row["code"] and row["code"] not in by_chance:
            return f"{row['clip_id']} failed: {row['code']}: {row['message']}"
    if len(facts) != clips:
        return f"{len(facts)} of {clips} clips have an outcome"
    for name in facts.column_names:
        column = facts[name].combine_chunks()
        numbers = column.flatten() if pa.types.is_list(column.type) else column
        if pa.types.is_floating(numbers.type) and not np.isfinite(numbers.drop_null()).all():
            return f"{name} is not a finite number"
    return ""


if __name__ == "__main__":
    finish(main)
