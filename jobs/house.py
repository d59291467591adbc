"""One run of curation at work: its passes, what is built of them, its leases and its fleet."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.order import encoded_url, samples_url, text_place
from jobs.settings import Run
from pipeline import shards, storage
from pipeline.compaction import compact
from pipeline.compare import run_comparison
from pipeline.errors import InputError
from pipeline.filters import Filters
from pipeline.lease import Lease
from pipeline.local_runner import LocalFleet
from pipeline.neighbours import NEAR_DUPLICATE
from pipeline.passes import Curation, Pace, PassReport, run_pass
from pipeline.progress import Progress
from pipeline.replay import Replay
from pipeline.same_weights import keep_to_the_same
from pipeline.stage import Source, Stage
from pipeline.stop import Stop
from pipeline.units import Fleet
from pipeline.verdicts import Verdicts, check_sum
from pipeline.work import Work

if TYPE_CHECKING:  # it imports Ray
    from pipeline.ray_metrics import PassMetrics

_log = logging.getLogger(__name__)


@dataclass
class House:
    """One run: its settings, its clips and what is known of them."""

    run: Run
    curation: Curation
    stop: Stop = field(default_factory=Stop)
    _open: ExitStack = field(default_factory=ExitStack)
    _metrics: PassMetrics | None = None
    """Of Ray's, once a pass runs on it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def out(self) -> str:
        return self.run.out

    @property
    def samples_url(self) -> str:
        return samples_url(self.run, self.curation.manifest)

    @property
    def text_place(self) -> str:
        """Where the text encoder lies: as the run names it, or the tiny one of this corpus."""
        return text_place(self.run, self.curation.manifest)

    @property
    def shards_url(self) -> str:
        return storage.join(self.out, "shards")

    @property
    def latents_url(self) -> str:
        return storage.join(self.out, "latents")

    @property
    def measures(self) -> tuple[Source, ...]:
        """The stages without the builds."""
        return self.curation.stages[:-1]

    def replay(self) -> Verdicts:
        """The verdicts of the measures alone: kept as far as filters go, built or not."""
        return self.facts().judge(self.curation.filters)

    def facts(self, *others: Filters) -> Replay:
        """What is known of the measures, for this run's filters and these others."""
        return replace(self.curation, stages=self.measures).replay(*others)

    def look_for_weights(self, names: Sequence[str], soon: Collection[str] = ()) -> None:
        """Raises InputError when what these stages load is missing or has changed, or a server is
        missing; soon: stages that clips will wait for.

        Before the first worker starts, and only where clips may still come to: a run that is done
        needs no weights. The workers of another cluster look for themselves, as they are set up:
        what lies here tells nothing of their machines.
        """
        if self.run.engine.runner == "ray" and os.environ.get("RAY_ADDRESS"):
            return
        counts = self.curation.verdicts().counts()
        waiting = {reason.stage for reason in counts if reason.verdict == "pending"}
        waiting |= set(soon)
        reached = self.curation.measure_all
        for stage in self.curation.stages:
            reached = reached or stage.name in waiting
            if reached and stage.name in names and isinstance(stage, Stage):
                keep_to_the_same(self.curation.ledger, stage)
                stage.check()

    def measure(self, name: str, stages: Sequence[str]) -> PassReport:
        """One pass, under its stages' leases; `verdicts.parquet` is renewed after it."""
        self.stop.listen()
        with self._leases(stages, name):
            if NEAR_DUPLICATE in stages:
                pace = self.run.engine.flush_s
                report = run_comparison(name, self.curation, self.stop, pace, self._progress)
            else:
                report = run_pass(
                    name,
                    stages,
                    self.curation,
                    self._fleet,
                    self.stop,
                    self._pace(),
                    self._progress,
                )
            for stage in stages:
                self._tidy(stage)
        self.write_verdicts()
        return report

    def measure_again(
        self, clips: Mapping[str, Sequence[str]], why: str, builds: Sequence[str] = ()
    ) -> None:
        """From now on these clips (stage -> clip ids) wait for their stages.

        builds: files of theirs that go first: what is gone is noticed, what is damaged would be
        taken.
        """
        with self._leases(clips, why):
            for url in builds:
                storage.remove(url)
            for stage, some in clips.items():
                self.curation.ledger.measure_again(stage, some, why)

    def set_aside(self, stage: str, name: str) -> None:
        """Puts a damaged file of this stage's facts out of the way."""
        with self._leases([stage], "repair"):
            self.curation.ledger.set_aside(stage, name)

    @contextmanager
    def _leases(self, stages: Iterable[str], doing: str) -> Iterator[None]:
        """Nobody else measures these stages meanwhile, or InputError."""
        with ExitStack() as leases:
            for stage in stages:
                leases.enter_context(self._lease(self.curation.ledger.folder(stage), doing))
            yield

    def _lease(self, folder: str, doing: str) -> Lease:
        doing = f"{doing} of {self.out}: python -m jobs.status --out {self.out} says how far it is"
        return Lease(storage.join(folder, "lease.json"), doing)

    def _tidy(self, stage: str) -> None:
        """Many small files of the ledger become few. What goes wrong costs only time, later."""
        try:
            compact(self.curation.ledger, stage)
        except (InputError, OSError) as error:
            _log.warning("%s: its facts stay in many files: %s", stage, error)

    def write_verdicts(self) -> None:
        """The verdicts as they are now as `verdicts.parquet`."""
        verdicts = self.curation.verdicts().table()
        check_sum(verdicts, self.curation.manifest)
        sink = io.BytesIO()
        pq.write_table(verdicts, sink)
        storage.write(storage.join(self.out, "verdicts.parquet"), sink.getvalue())

    def build_shards(self, damaged: Collection[str] = ()) -> shards.ShardReport:
        """The kept clips' samples in shards, and their index; damaged files go first."""
        return self._pack("sample", self.samples_url, self.shards_url, damaged)

    def build_latents(self, damaged: Collection[str] = ()) -> shards.ShardReport:
        """The kept clips' latents in shards of their own, and their index."""
        from_url = encoded_url(self.run, self.curation.manifest)
        return self._pack("latents", from_url, self.latents_url, damaged)

    def _pack(
        self, stage: str, from_url: str, to_url: str, damaged: Collection[str]
    ) -> shards.ShardReport:
        """What this stage built, in shards."""
        verdicts = self.curation.verdicts()
        kept = pa.array(verdicts.are("kept"))
        rows = self.curation.manifest.rows.select(["clip_id", "source_id", "duplicate"])
        rows = rows.filter(kept)
        samples = rows.join(self.curation.ledger.facts_of(stage, rows["clip_id"]), "clip_id")
        if samples.num_rows == 0:
            raise InputError(
                f"{self.out}: no clip is kept, so there is nothing to put in shards; look at the "
                "funnel above, and loosen a filter in the run file"
            )
        self.stop.listen()
        name = to_url.rpartition("/")[2]
        with self._lease(to_url, name), self._progress(name, samples.num_rows) as shown:
            for url in damaged:
                storage.remove(url)

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
            fleet = LocalFleet(work, self.stop, self.run.workers[0])
        else:
            from pipeline.ray_metrics import PassMetrics
            from pipeline.ray_runner import RayFleet, cluster

            if self._metrics is None:
                self._open.enter_context(cluster())
                self._metrics = PassMetrics()
            fleet = RayFleet(work, self.run.workers)
        self.stop.listen()
        try:
            yield fleet
        finally:
            fleet.close()

    def _progress(self, name: str, total: int) -> Progress:
        status = storage.join(self.out, "status.json")
        watcher = self._metrics.look if self._metrics else lambda shown: None
        return Progress(name, total, status, self.run.engine.runner, watcher=watcher)
