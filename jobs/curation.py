"""From a run file to the house that it describes: stages, ledger, filters, run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jobs.house import House
from jobs.order import latents_of, stages_of
from jobs.reading import check_corpus, facts_url, manifest_of, published_filters
from jobs.settings import Run
from pipeline import storage
from pipeline.config import dump, load
from pipeline.errors import InputError
from pipeline.filters import MANIFEST_STAGE, Filter, Filters, check_known, defaults, merge
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest
from pipeline.passes import Curation
from pipeline.stage import Source


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


def look_at(
    run: Run, measure_all: bool = False, latents: bool = False, beside: House | None = None
) -> House:
    """The same, leaving the run folder alone.

    latents: whether they make a clip kept; beside: what was read for this one is not read again.
    """
    check_corpus(run)
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER, or out in the run file")
    known = beside is not None and _same_corpus(beside.run, run)
    manifest = beside.curation.manifest if beside and known else manifest_of(run)
    stages = stages_of(run, manifest)
    if latents:
        stages = (*stages, latents_of(run, manifest))
    filters = _filters(run, stages, manifest)
    ledger = Ledger(storage.join(facts_url(run), manifest.id), stages)
    if beside is not None and ledger.is_like(beside.curation.ledger):
        ledger = beside.curation.ledger
    limits = run.engine.limits
    return House(run, Curation(manifest, stages, filters, ledger, limits, measure_all))


def _same_corpus(one: Run, other: Run) -> bool:
    return (one.corpus, one.caption) == (other.corpus, other.caption)


def _filters(run: Run, stages: Sequence[Source], manifest: Manifest) -> Filters:
    """Those on what is published, then those of the stages, as the run has them."""
    check_known(run.filters, stages, manifest.published)
    measured = {name: each for name, each in run.filters.items() if name != MANIFEST_STAGE}
    filters = {**published_filters(run, manifest), **merge(defaults(stages), measured)}
    _check_length(run, filters["probe"]["num_frames"])
    return filters


def _check_length(run: Run, allowed: Filter) -> None:
    """InputError when clips that are too short for a sample would pass."""
    wanted = run.sample.window[-1] + 1
    if not allowed.off and (allowed.min is None or allowed.min < wanted):
        least = "of any length" if allowed.min is None else f"of {allowed.min:g} frames"
        raise InputError(
            f"sample: its last frame is number {wanted - 1}, and clips {least} pass; wanted "
            f"min = {wanted} under [filters.probe.num_frames] in the run file"
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
