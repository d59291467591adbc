"""From a run file to the house that it describes: stages, ledger, fleet, run folder."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.settings import Run
from pipeline import shards, storage
from pipeline.config import dump, load
from pipeline.errors import InputError
from pipeline.filters import check_known, defaults, merge
from pipeline.lease import Lease
from pipeline.ledger import Ledger
from pipeline.local_runner import LocalFleet
from pipeline.manifest import Manifest, read_manifest
from pipeline.passes import Curation, Pace, PassReport, run_pass
from pipeline.progress import Progress
from pipeline.stage import Stage
from pipeline.stop import Stop
from pipeline.units import Fleet
from pipeline.work import Work
from stages.appearance import Appearance
from stages.entities import Entities
from stages.latents import TINY, Latents
from stages.motion import Motion
from stages.probe import Probe
from stages.sample import Sample
from stages.segment import Segment

SCORE = ("probe", "appearance", "motion")
PASSES = {
    "score": SCORE,
    "entities": ("entities",),
    "segment": ("segment",),
    "samples": ("sample",),
}
"""Which stages share one worker and one decode, in the order of the house."""


@dataclass
class House:
    """One run: its settings, its clips and what is known of them."""

    run: Run
    curation: Curation
    stop: Stop = field(default_factory=Stop)
    _open: ExitStack = field(default_factory=ExitStack)
    _on_ray: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def out(self) -> str:
        return self.run.out

    @property
    def samples_url(self) -> str:
        return _samples_url(self.run, self.curation.manifest)

    @property
    def text_place(self) -> str:
        """Where the text encoder lies: as the run names it, or the tiny one of this corpus."""
        return _text_place(self.run, self.curation.manifest)

    @property
    def shards_url(self) -> str:
        return storage.join(self.out, "shards")

    @property
    def latents_url(self) -> str:
        return storage.join(self.out, "latents")

    @property
    def measures(self) -> tuple[Stage, ...]:
        """The stages without the builds."""
        return self.curation.stages[:-1]

    def replay(self) -> pa.Table:
        """The verdicts of the measures alone: kept as far as filters go, built or not."""
        return replace(self.curation, stages=self.measures).verdicts()

    def measure(self, name: str, stages: Sequence[str]) -> PassReport:
        """One pass, under its stages' leases; `verdicts.parquet` is renewed after it."""
        self.stop.listen()
        with ExitStack() as leases:
            for stage in stages:
                folder = self.curation.ledger.folder(stage)
                leases.enter_context(Lease(storage.join(folder, "lease.json")))
            report = run_pass(
                name, stages, self.curation, self._fleet, self.stop, self._pace(), self._progress
            )
        self.write_verdicts()
        return report

    def write_verdicts(self) -> pa.Table:
        """The verdicts as they are now, also as `verdicts.parquet`."""
        verdicts = self.curation.verdicts()
        sink = io.BytesIO()
        pq.write_table(verdicts, sink)
        storage.write(storage.join(self.out, "verdicts.parquet"), sink.getvalue())
        return verdicts

    def build_shards(self) -> shards.ShardReport:
        """The kept clips' samples in shards, and their index."""
        return self._pack("sample", self.samples_url, self.shards_url)

    def build_latents(self) -> shards.ShardReport:
        """The kept clips' latents in shards of their own, and their index."""
        manifest = self.curation.manifest
        return self._pack("latents", _encoded_url(self.run, manifest), self.latents_url)

    def _pack(self, stage: str, from_url: str, to_url: str) -> shards.ShardReport:
        """What this stage built, in shards."""
        verdicts = self.curation.verdicts()
        kept = verdicts.filter(pa.array([v == "kept" for v in verdicts["verdict"].to_pylist()]))
        facts = self.curation.ledger.facts(stage)
        rows = self.curation.manifest.rows.select(["clip_id", "source_id", "duplicate"])
        rows = rows.filter(pa.array([not d for d in rows["duplicate"].to_pylist()]))
        samples = kept.select(["clip_id"]).join(facts, "clip_id").join(rows, "clip_id")
        if samples.num_rows == 0:
            raise InputError(
                f"{self.out}: no clip is kept, so there is nothing to put in shards; look at the "
                "funnel above, and loosen a filter in the run file"
            )
        self.stop.listen()
        with self._progress(to_url.rpartition("/")[2], samples.num_rows) as shown:

            def tick(done: int, total: int) -> None:
                shown.update(done - shown.done, kept=done - shown.done)

            return shards.build(
                samples,
                from_url,
                to_url,
                self.run.shards.samples_per_shard,
                tick,
                self.stop,
            )

    def _pace(self) -> Pace:
        """Small corpora in small units, so that the workers share them and the line moves."""
        clips, workers = len(self.curation.manifest.rows), os.cpu_count() or 1
        unit = max(1, min(self.run.engine.unit_size, clips // (8 * workers)))
        return Pace(unit, self.run.engine.flush_s)

    @contextmanager
    def _fleet(self, work: Work) -> Iterator[Fleet]:
        """Workers for one pass. Ray is imported, and a cluster started, when first needed."""
        if self.run.engine.runner == "local":
            fleet = LocalFleet(work, self.stop)
        else:
            from pipeline.ray_runner import RayFleet, cluster

            if not self._on_ray:
                self._open.enter_context(cluster())
                self._on_ray = True
            fleet = RayFleet(work, self.run.workers)
        self.stop.listen()
        try:
            yield fleet
        finally:
            fleet.close()

    def _progress(self, name: str, total: int) -> Progress:
        status = storage.join(self.out, "status.json")
        return Progress(name, total, status, runner=self.run.engine.runner)


def open_house(run: Run, measure_all: bool = False, latents: bool = False) -> House:
    """Reads the corpus and claims the run folder. Raises InputError."""
    house = look_at(run, measure_all, latents)
    _claim(run, house.curation.manifest)
    return house


def recorded(out: str) -> Run:
    """What the run file in a run folder says. Raises InputError when there is none."""
    own = storage.join(out, "config.toml")
    if not out or not storage.exists(own):
        raise InputError(f"found no run in {out or 'no folder'}, wanted --out RUN_FOLDER")
    return load(own, Run, {"out": out})


def recorded_text(run: Run) -> str:
    """Where the text encoder of a run folder lies; its corpus need not be there any more."""
    if run.latents.text != TINY:
        return run.latents.text
    note = json.loads(storage.read(storage.join(run.out, "manifest.json")))
    return storage.join(_facts(run), note["id"], "text")


def look_at(run: Run, measure_all: bool = False, latents: bool = False) -> House:
    """The same without writing anything. latents: whether they belong to what makes a clip kept."""
    if not run.corpus.manifest:
        raise InputError(
            "found no corpus, wanted --corpus FILE_OR_FOLDER, or manifest under [corpus] in the "
            "run file"
        )
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER, or out in the run file")
    manifest = read_manifest(run.corpus.manifest, run.corpus.videos or None)
    stages = _stages(run, manifest)
    if latents:
        stages = (*stages, _latents(run, manifest))
    check_known(run.filters, stages)
    filters = merge(defaults(stages), run.filters)
    ledger = Ledger(storage.join(_facts(run), manifest.id), stages)
    limits = run.engine.limits
    return House(run, Curation(manifest, stages, filters, ledger, limits, measure_all))


def _stages(run: Run, manifest: Manifest) -> tuple[Stage, ...]:
    """All stages of a run, in their fixed order."""
    return (
        Probe(run.probe),
        Appearance(run.appearance),
        Motion(run.motion),
        Entities(run.entities),
        Segment(run.segment),
        Sample(run.sample, _samples_url(run, manifest)),
    )


def _facts(run: Run) -> str:
    """Beside the run folder, so that runs share them."""
    return run.facts or storage.join(run.out.rstrip("/").rpartition("/")[0] or ".", "facts")


def _samples_url(run: Run, manifest: Manifest) -> str:
    return storage.join(_facts(run), manifest.id, "samples")


def _encoded_url(run: Run, manifest: Manifest) -> str:
    return storage.join(_facts(run), manifest.id, "encoded")


def _text_place(run: Run, manifest: Manifest) -> str:
    if run.latents.text != TINY:
        return run.latents.text
    return storage.join(_facts(run), manifest.id, "text")


def _latents(run: Run, manifest: Manifest) -> Latents:
    return Latents(
        run.latents,
        _text_place(run, manifest),
        _samples_url(run, manifest),
        _encoded_url(run, manifest),
    )


def _claim(run: Run, manifest: Manifest) -> None:
    """A run folder belongs to one manifest; its run file is the last one used."""
    note_url = storage.join(run.out, "manifest.json")
    note = {"id": manifest.id, "corpus": manifest.corpus, "videos": manifest.videos}
    if not storage.create(note_url, json.dumps(note, indent=1).encode()):
        found = json.loads(storage.read(note_url))
        if found["id"] != manifest.id:
            raise InputError(
                f"{run.out} belongs to another manifest ({found['corpus']}); give this corpus "
                "another run folder with --out, or remove that one"
            )
    storage.write(storage.join(run.out, "config.toml"), dump(run).encode())
