"""The run file: one frozen dataclass per table, each owned by the room that it configures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.bounds import Count, Share
from pipeline.errors import InputError
from pipeline.filters import FilterChange
from pipeline.neighbours import NearDuplicateSettings
from pipeline.work import Limits, WorkerKind
from stages.appearance import AppearanceSettings
from stages.caption import CaptionSettings
from stages.encoders import LatentsSettings
from stages.entities import EntitiesSettings
from stages.motion import MotionSettings
from stages.overlay import OverlaySettings
from stages.pair import PairSettings
from stages.probe import ProbeSettings
from stages.sample import SampleSettings
from stages.segment import SegmentSettings


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """manifest: CSV, Parquet, JSONL or a folder.

    videos: where the files lie, "" beside it; a folder or url, or zips as `<folder or url>/*.zip`.
    parts: a JSON file that says which zip holds which clip, as OpenVidHD.json does, "" as the zips
    themselves say.
    """

    manifest: str = ""
    videos: str = ""
    parts: str = ""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Who does the work.

    unit_size: clips handed to a worker at once, fewer in a small corpus; flush_s: seconds between
    two parts of the ledger, so what a kill can cost. failed_share: of the clips that came to a
    job's stages, how many may fail in them before it ends with 1. Ours: above half it is a folder,
    a network or a setting that is wrong, not the clips; a run over a known corpus can say 0.02.
    """

    runner: Literal["ray", "local"] = "ray"
    unit_size: Count = 32
    flush_s: float = 30.0
    failed_share: Share = 0.5
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """samples_per_shard: a bucket with more is split (1,000: 1-2 GB, as WebDataset recommends)."""

    samples_per_shard: Count = 1_000


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """What a plan multiplies hours by, in any currency: of one CPU, of one GPU; 0: nothing said."""

    cpu_hour: float = 0.0
    gpu_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run file. out: its run folder; facts: shared by runs, "" beside the run folder."""

    out: str = ""
    facts: str = ""
    corpus: CorpusSettings = CorpusSettings()
    engine: EngineSettings = EngineSettings()
    workers: tuple[WorkerKind, ...] = (WorkerKind(),)
    probe: ProbeSettings = ProbeSettings()
    appearance: AppearanceSettings = AppearanceSettings()
    motion: MotionSettings = MotionSettings()
    near_duplicate: NearDuplicateSettings = NearDuplicateSettings()
    overlay: OverlaySettings = OverlaySettings()
    caption: CaptionSettings = CaptionSettings()
    entities: EntitiesSettings = EntitiesSettings()
    segment: SegmentSettings = SegmentSettings()
    pair: PairSettings = PairSettings()
    sample: SampleSettings = SampleSettings()
    shards: ShardSettings = ShardSettings()
    latents: LatentsSettings = field(default_factory=LatentsSettings)
    prices: PriceSettings = PriceSettings()
    filters: Mapping[str, Mapping[str, FilterChange]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.workers:
            raise InputError("workers: found none, wanted at least one [[workers]], or no such key")
