"""The run that benchmarks/chaos.py breaks: manifest, score, segment, samples, shards, latents.

`python -m benchmarks.chaos_run FOLDER NAME local|ray`. The stages take no time
(benchmarks/chaos_stages.py); everything around them is the house's own.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.chaos_stages import Encoded, Level, Pairs, Part
from pipeline import shards, storage
from pipeline.filters import defaults
from pipeline.lease import Lease
from pipeline.ledger import Ledger
from pipeline.local_runner import LocalFleet
from pipeline.manifest import read_manifest
from pipeline.passes import Curation, OpenFleet, Pace, run_pass
from pipeline.progress import Progress
from pipeline.stop import Stop
from pipeline.units import Fleet
from pipeline.work import Work, WorkerKind

if TYPE_CHECKING:
    from pipeline.ray_runner import RayFleet

UNIT, FLUSH_S, DECODERS, WORKERS = 8, 1.0, 2, 2
PASSES = {"score": ("score",), "segment": ("segment",), "samples": ("sample",)}
SHARD = 40


def curation_of(folder: Path, name: str) -> Curation:
    """Of a run over the clips of this folder."""
    run, diary = folder / name, folder / name / "diary"
    run.mkdir(exist_ok=True)
    manifest = read_manifest(str(folder / "clips.csv"), str(folder / "videos"))
    samples = str(run / "samples")
    stages = (
        Level(diary),
        Part(diary),
        Pairs(diary, samples),
        Encoded(diary, samples, str(run / "encoded")),
    )
    ledger = Ledger(str(run / "facts" / manifest.id), stages)
    return Curation(manifest, stages, defaults(stages), ledger)


def main() -> int:
    """0 when everything is there; killed in between, it goes on."""
    folder, name, runner = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    curation, stop = curation_of(folder, name), Stop()
    with ExitStack() as opened:
        if runner == "ray":
            from pipeline.ray_runner import cluster

            opened.enter_context(cluster())

        @contextmanager
        def fleet(work: Work) -> Iterator[Fleet]:
            hired = _hire(runner, work, stop)
            try:
                yield hired
            finally:
                hired.close()

        for title, stages in {**PASSES, "latents": ("latents",)}.items():
            if title == "latents":
                _pack(curation, "sample", folder / name, "samples", "shards")
            _take(title, stages, curation, fleet, stop)
        _pack(curation, "latents", folder / name, "encoded", "latents")
    return 0


def _take(
    title: str, stages: Sequence[str], curation: Curation, fleet: OpenFleet, stop: Stop
) -> None:
    with ExitStack() as leases:
        for stage in stages:
            lease = storage.join(curation.ledger.folder(stage), "lease.json")
            leases.enter_context(Lease(lease))
        report = run_pass(title, stages, curation, fleet, stop, Pace(UNIT, FLUSH_S), _unseen)
    assert report.done, title


def _hire(runner: str, work: Work, stop: Stop) -> LocalFleet | RayFleet:
    kind = WorkerKind(cpus=1, decoders=DECODERS, count=WORKERS)
    if runner == "local":
        return LocalFleet(work, stop, kind)
    from pipeline.ray_runner import RayFleet

    return RayFleet(work, [kind])


def _unseen(name: str, total: int) -> Progress:
    return Progress(name, total, None, stream=io.StringIO())


def _pack(curation: Curation, stage: str, run: Path, built: str, out: str) -> None:
    """The shards of what this stage built for every clip that is not rejected."""
    facts = curation.ledger.facts(stage)
    rows = curation.manifest.rows.select(["clip_id", "source_id"])
    samples = rows.join(facts.filter(facts["code"].is_null()), "clip_id", join_type="inner")
    shards.build(samples, str(run / built), str(run / out), SHARD)


if __name__ == "__main__":
    sys.exit(main())
