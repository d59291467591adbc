"""What the driver takes at 10,000, 100,000 and a million clips: time and peak memory, by step.

`nice python -m benchmarks.scale [rows ...]`: the corpus and the facts are those of
benchmarks/replay.py, made once, as large as real ones. Every step runs in a process of its own,
which reads what it needs from the disk (its page cache is warm); memory is the peak of that
process. `pass` feeds clips to workers that answer at once, so it is the driver alone: the loop,
the progress, the writing of facts.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import provenance, replay
from jobs.dry_run import DryRun
from jobs.estimate import Crew, Tried
from jobs.house import House
from jobs.plan import figures
from pipeline import shards, storage
from pipeline.clip import Measurement
from pipeline.filters import merge
from pipeline.ledger import Ledger
from pipeline.manifest import read_manifest
from pipeline.passes import Pace, run_pass
from pipeline.progress import Progress
from pipeline.units import Finished, Lost
from pipeline.verdicts import funnel
from pipeline.work import Result, Unit, Work, WorkerKind

ROWS = (10_000, 100_000, 1_000_000)
TOGETHER = ("manifest", "missing", "verdicts", "funnel", "plan")
"""The steps that the bar is for."""
BAR_S, BAR_GB = 60.0, 2.0
GROWTH = 1.1
"""Of the driver's memory from three tenths of a pass of 100,000 clips to its end: by then the rows
that may wait for a write (20,000) have filled.
"""
DRIVEN = 100_000
PACKAGES = ("numpy", "pyarrow")


class Instant:
    """A worker that has measured every clip before it is asked."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._units: list[Unit] = []

    def free(self) -> list[str]:
        return ["instant"] if len(self._units) < 2 else []

    def idle(self) -> list[str]:
        return ["instant"] if not self._units else []

    def size(self) -> int:
        return 1

    def submit(self, worker: str, unit: Unit) -> None:
        self._units.append(unit)

    def wait(self, timeout_s: float) -> list[Finished | Lost]:
        done, self._units = self._units, []
        return [Finished("instant", unit, self._answer(unit)) for unit in done]

    def retire(self, worker: str) -> None:
        self._units.clear()

    def drain(self) -> None:
        return

    def _answer(self, unit: Unit) -> Result:
        result = Result(seconds=0.01, node="here")
        for task in unit.tasks:
            for stage in self._work.stages:
                values = {field.name: _value(field.type) for field in stage.columns}
                result.add(task.clip.clip_id, stage.name, Measurement(values))
            result.fates[task.clip.clip_id] = "kept"
        return result


def _value(kind: pa.DataType) -> object:
    """Something of a type; a list of numbers as long as an embedding."""
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return 1
    if pa.types.is_string(kind):
        return "x" * 200
    return [0.5] * replay.EMBEDDING


def manifest(rows: int) -> dict[str, object]:
    """Reads the CSV as if for the first time."""
    folder = replay.FOLDER / str(rows)
    read = read_manifest(str(folder / "clips.csv"), str(folder))
    return {"id": read.id}


def manifest_again(rows: int) -> dict[str, object]:
    """Opens what was kept of it."""
    return {"id": replay.house_of(rows).curation.manifest.id}


def missing(rows: int) -> dict[str, object]:
    """Which clips a pass has to do, after a filter was loosened."""
    return {"clips": len(_loosened(rows).curation.missing(("appearance", "motion", "segment")))}


def verdicts(rows: int) -> dict[str, object]:
    """Every row's verdict as the table that is written."""
    table = replay.house_of(rows).curation.verdicts().table()
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return {"bytes": sink.tell()}


def funnel_(rows: int) -> dict[str, object]:
    """The funnel as it is shown."""
    house = replay.house_of(rows)
    return {"lines": len(funnel(house.curation.verdicts(), house.curation.stages).splitlines())}


def plan(rows: int) -> dict[str, object]:
    """A plan's part that grows with the corpus: what waits, a few clips of it, the arithmetic."""
    house = _loosened(rows)
    waiting = np.flatnonzero(house.curation.verdicts().are("pending"))
    some = np.random.default_rng(0).permutation(waiting)[:20]
    house.curation.manifest.clips(np.sort(some).tolist())
    tried = DryRun(20, 5, (Tried("score", 20, 20, {"motion": 8.0}),), 40_000, 5_000_000, True)
    crew = Crew(((WorkerKind(), 2),))
    return {"lines": len(list(figures(house, tried, len(waiting), crew)))}


def index(rows: int) -> dict[str, object]:
    """Names and buckets of the shards, and the index, of half as many samples as there are rows."""
    keys = replay.house_of(rows).curation.manifest.rows["clip_id"].to_pylist()[: rows // 2]
    listed = []
    for bits, members in shards.buckets(keys, 1_000).items():
        for position, key in enumerate(members):
            row = {"key": key, "clip_id": key, "source_id": key[:8], "shard": f"{bits}.tar"}
            listed.append({**row, "offset": position << 20, "size": 1 << 20, "sha256": "0" * 64})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(listed, shards.INDEX_SCHEMA), sink, compression="zstd")
    return {"bytes": sink.tell()}


def tasks(rows: int) -> dict[str, object]:
    """The clips of a pass over samples as they are fed: with every fact, masks and all."""
    house = replay.house_of(rows)
    return _driven(house, ("sample",), "samples")


def pass_(rows: int) -> dict[str, object]:
    """A whole pass of the scores over a corpus of which nothing is known."""
    return _driven(_unmeasured(rows), ("probe", "appearance", "motion", "overlay"), "score")


def _loosened(rows: int) -> House:
    """With filters under which clips wait that the facts know nothing of."""
    house = replay.house_of(rows)
    filters = merge(house.curation.filters, replay.TRIED)
    return replace(house, curation=replace(house.curation, filters=filters))


def _unmeasured(rows: int) -> House:
    house = replay.house_of(rows)
    ledger = Ledger(str(replay.FOLDER / str(rows) / "again"), house.curation.stages)
    return replace(house, curation=replace(house.curation, ledger=ledger))


def _driven(house: House, stages: Sequence[str], name: str) -> dict[str, object]:
    """A pass with workers that answer at once; what was written is removed."""
    peaks: list[float] = []

    @contextmanager
    def fleet(work: Work) -> Iterator[Instant]:
        yield Instant(work)

    def unseen(name: str, total: int) -> Progress:
        def watch(shown: Progress) -> None:
            if shown.done * 10 // max(total, 1) >= len(peaks):
                peaks.append(_peak_gb())

        return Progress(name, total, None, stream=io.StringIO(), watcher=watch)

    before = {name: set(storage.names(house.curation.ledger.folder(name))) for name in stages}
    report = run_pass(name, stages, house.curation, fleet, lambda: False, Pace(), unseen)
    for stage, known in before.items():
        folder = house.curation.ledger.folder(stage)
        for part in set(storage.names(folder)) - known:
            storage.remove(storage.join(folder, part))
    return {"clips": report.todo, "peak_gb_by_tenth": [round(peak, 3) for peak in peaks]}


STEPS: dict[str, Callable[[int], dict[str, object]]] = {
    "manifest": manifest,
    "manifest_again": manifest_again,
    "missing": missing,
    "verdicts": verdicts,
    "funnel": funnel_,
    "plan": plan,
    "index": index,
    "tasks": tasks,
    "pass": pass_,
}


def main() -> int:
    """Writes benchmarks/results/scale.json; 1 when a bar is missed."""
    if sys.argv[1:2] == ["step"]:
        started, spent = time.perf_counter(), time.process_time()
        said = STEPS[sys.argv[2]](int(sys.argv[3]))
        took, cpu = time.perf_counter() - started, time.process_time() - spent
        print(json.dumps({"seconds": took, "cpu_s": cpu, "peak_gb": _peak_gb(), **said}))
        return 0
    sizes = tuple(map(int, sys.argv[1:])) or ROWS
    figures = {}
    for rows in sorted(sizes, reverse=True):
        replay.build(rows)
        replay.house_of(rows)  # the corpus as read is kept from here on
        figures[rows] = {name: _measure(name, rows) for name in STEPS if _wanted(name, rows)}
        shutil.rmtree(replay.FOLDER / str(rows) / "again", ignore_errors=True)
    bars = _bars(figures)
    print(provenance.write("scale", PACKAGES, {"bars": bars, "rows": figures}))
    return 0 if bars["passed"] else 1


def _wanted(name: str, rows: int) -> bool:
    """Feeding goes on for minutes at a million, and is bounded by its portions."""
    return name not in ("pass", "tasks") or rows <= DRIVEN


def _measure(name: str, rows: int) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.scale", "step", name, str(rows)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(said.splitlines()[-1])
    print(f"{rows:>9,} {name:<15} {found['seconds']:7.2f} s {found['peak_gb']:6.2f} GB", flush=True)
    return found


def _bars(figures: dict[int, dict[str, dict[str, object]]]) -> dict[str, object]:
    most = figures[max(figures)]
    together = sum(float(str(most[name]["cpu_s"])) for name in TOGETHER)
    peak = max(float(str(most[name]["peak_gb"])) for name in TOGETHER)
    growth = 1.0
    if DRIVEN in figures:
        peaks = figures[DRIVEN]["pass"]["peak_gb_by_tenth"]
        assert isinstance(peaks, list)
        growth = peaks[-1] / peaks[3]
    passed = together < BAR_S and peak < BAR_GB and growth < GROWTH
    return {
        "seconds": BAR_S,
        "gb": BAR_GB,
        "growth": GROWTH,
        "together_cpu_s": together,
        "peak_gb": peak,
        "pass_memory_end_to_three_tenths": growth,
        "passed": passed,
    }


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB


if __name__ == "__main__":
    sys.exit(main())
