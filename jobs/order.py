"""Which stages a run has, in their fixed order, and which of them share a pass."""

from __future__ import annotations

import json

from jobs.reading import facts_url
from jobs.settings import Run
from pipeline import storage
from pipeline.manifest import Manifest
from pipeline.neighbours import NEAR_DUPLICATE, NearDuplicate
from pipeline.stage import Source, Stage
from stages.appearance import Appearance
from stages.caption import Caption
from stages.encoders import TINY
from stages.entities import Entities
from stages.grounded import GroundedSegment
from stages.latents import Latents
from stages.motion import Motion
from stages.overlay import Overlay
from stages.pair import Pair
from stages.probe import Probe
from stages.sample import Sample
from stages.segment import Segment, SegmentSettings

SCORE = ("probe", "appearance", "motion", "overlay")
PASSES = {
    "score": SCORE,
    "duplicates": (NEAR_DUPLICATE,),
    "caption": ("caption",),
    "entities": ("entities",),
    "segment": ("segment", "pair"),
    "samples": ("sample",),
}
"""Which stages share one worker and one decode, in the order of the house.

A pass whose stages a run has not (`caption`, where the corpus has captions) is left out of it.
"""

ALL_PASSES = {**PASSES, "latents": ("latents",)}
"""With that of a run that trains."""


def stages_of(run: Run, manifest: Manifest) -> tuple[Source, ...]:
    """All of a run, in their fixed order: copies are left out before the dear stages."""
    captioned = run.caption.backend != "off"
    sample = Sample(run.sample, samples_url(run, manifest), captioned=captioned)
    measured, copies = measures(run), NearDuplicate(run.near_duplicate)
    return (*measured[: len(SCORE)], copies, *measured[len(SCORE) :], sample)


def measures(run: Run) -> tuple[Stage, ...]:
    """The stages without the builds, which need no corpus to be described."""
    captions = () if run.caption.backend == "off" else (Caption(run.caption, run.sample.window),)
    return (
        Probe(run.probe),
        Appearance(run.appearance),
        Motion(run.motion),
        Overlay(run.overlay),
        *captions,
        Entities(run.entities, captioned=bool(captions)),
        _segment(run.segment),
        Pair(run.pair, run.sample.window, run.segment.detector),
    )


def _segment(settings: SegmentSettings) -> Stage:
    if settings.backend == "reference":
        return GroundedSegment(settings.detector, settings.sam)
    return Segment(settings)


def samples_url(run: Run, manifest: Manifest) -> str:
    """Where the samples of a corpus lie; runs share them."""
    return storage.join(facts_url(run), manifest.id, "samples")


def encoded_url(run: Run, manifest: Manifest) -> str:
    """Where their latents lie."""
    return storage.join(facts_url(run), manifest.id, "encoded")


def text_place(run: Run, manifest: Manifest) -> str:
    """Where the text encoder lies: as the run names it, or the tiny one of this corpus."""
    if run.latents.text != TINY:
        return run.latents.text
    return storage.join(facts_url(run), manifest.id, "text")


def latents_of(run: Run, manifest: Manifest) -> Latents:
    """The build that follows the samples, where a run trains."""
    return Latents(
        run.latents,
        text_place(run, manifest),
        samples_url(run, manifest),
        encoded_url(run, manifest),
    )


def recorded_text(run: Run) -> str:
    """Where the text encoder of a run folder lies; its corpus need not be there any more."""
    if run.latents.text != TINY:
        return run.latents.text
    note = json.loads(storage.read(storage.join(run.out, "manifest.json")))
    return storage.join(facts_url(run), note["id"], "text")
