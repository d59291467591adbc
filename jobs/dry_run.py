"""A few clips through every pass, in a folder of their own that is gone afterwards."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.estimate import Tried
from jobs.house import House
from jobs.order import PASSES, stages_of
from jobs.reading import facts_url
from pipeline import storage
from pipeline.ledger import Ledger
from pipeline.neighbours import NEAR_DUPLICATE
from pipeline.stop import Stop

TIME_S = 45.0
"""For all passes: one that is not done by then is told by the clips that it did."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """clips: measured; kept: of them; fact_bytes: of all; sample_bytes: of the kept ones'."""

    clips: int
    kept: int
    passes: tuple[Tried, ...]
    fact_bytes: int
    sample_bytes: int
    whole: bool


class _Until(Stop):
    """Stops by the clock as well."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._until = time.monotonic() + seconds

    def __call__(self) -> bool:
        return super().__call__() or time.monotonic() > self._until


def dry_run(house: House, rows: np.ndarray) -> DryRun:
    """Every pass over these clips, by one worker, in a folder beside the facts."""
    scratch = storage.join(facts_url(house.run), f"plan-{secrets.token_hex(8)}")
    runner = "ray" if os.environ.get("RAY_ADDRESS") else "local"
    one = replace(house.run.workers[0], count=1)
    run = replace(
        house.run,
        out=storage.join(scratch, "run"),
        facts=storage.join(scratch, "facts"),
        workers=(one,),
        engine=replace(house.run.engine, runner=runner),
    )
    manifest = house.curation.manifest
    few = replace(manifest, rows=manifest.rows.take(pa.array(rows)), known_id="")
    stages = stages_of(run, few)
    ledger = Ledger(storage.join(facts_url(run), few.id), stages)
    curation = replace(house.curation, manifest=few, stages=stages, ledger=ledger)
    try:
        with House(run, curation, _Until(TIME_S)) as tried:
            measured = _measured(tried)
            if tried.stop.signal is not None:
                raise KeyboardInterrupt
            return measured
    finally:
        _remove(scratch)


def _measured(house: House) -> DryRun:
    passes: list[Tried] = []
    report = None
    for name, stages in passes_of(house).items():
        report = house.measure(name, stages)
        if NEAR_DUPLICATE not in stages:  # the driver compares, and few clips have no copies
            passes.append(Tried(name, report.todo, sum(report.fates.values()), report.spent))
        if not report.done:
            break
    kept = int(house.curation.verdicts().are("kept").sum())
    built = house.curation.ledger.facts("sample", ("bytes",))
    return DryRun(
        clips=len(house.curation.manifest.rows),
        kept=kept,
        passes=tuple(passes),
        fact_bytes=sum(_fact_bytes(house, stage.name) for stage in house.curation.stages),
        sample_bytes=sum(built["bytes"].drop_null().to_pylist()),
        whole=report is not None and report.done,
    )


def passes_of(house: House) -> dict[str, Sequence[str]]:
    """Those whose stages the run has."""
    on = {stage.name for stage in house.curation.stages}
    return {name: stages for name, stages in PASSES.items() if on.issuperset(stages)}


def _fact_bytes(house: House, stage: str) -> int:
    """Compressed bytes of the columns, without what every file has: parts of a run are large."""
    folder = house.curation.ledger.folder(stage)
    total = 0
    for name in storage.names(folder):
        if name.endswith(".parquet"):
            content = io.BytesIO(storage.read(storage.join(folder, name)))
            groups = pq.read_metadata(content)
            for number in range(groups.num_row_groups):
                group = groups.row_group(number)
                total += sum(
                    group.column(at).total_compressed_size for at in range(group.num_columns)
                )
    return total


def _remove(url: str) -> None:
    """The whole folder; here also the hidden files that a killed worker left half-written."""
    path = storage.local(url)
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
        return
    for name in storage.files(url):
        storage.remove(storage.join(url, name))
