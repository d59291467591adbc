"""The corpus of a run, and what the run asks of what the corpus publishes."""

from __future__ import annotations

from jobs.settings import Run
from pipeline import storage
from pipeline.errors import InputError
from pipeline.filters import MANIFEST_STAGE, Filter, Filters, check_known, merge
from pipeline.manifest import Manifest, read_manifest


def manifest_of(run: Run, zipped: bool = True) -> Manifest:
    """The corpus of a run, kept beside its facts if it is a large one. Raises InputError.

    zipped: whether to look which clips the zips hold.
    """
    check_corpus(run)
    return read_manifest(
        run.corpus.manifest,
        run.corpus.videos or None,
        cache=storage.join(facts_url(run), "manifests") if run.out or run.facts else None,
        captioned=run.caption.backend == "off",
        zipped=zipped,
    )


def check_corpus(run: Run) -> None:
    """InputError when the run names no corpus."""
    if not run.corpus.manifest:
        raise InputError(
            "found no corpus, wanted --corpus FILE_OR_FOLDER, or manifest under [corpus] in the "
            "run file"
        )


def published_filters(run: Run, manifest: Manifest) -> Filters:
    """Those that the run has on what the corpus publishes.

    A clip that the corpus says nothing of passes them: our own measures will tell.
    """
    named = {MANIFEST_STAGE: run.filters.get(MANIFEST_STAGE, {})}
    check_known(named, (), manifest.published)
    base = {MANIFEST_STAGE: {name: Filter(absent="pass") for name in named[MANIFEST_STAGE]}}
    return merge(base, named)


def facts_url(run: Run) -> str:
    """Where facts are kept: beside the run folder, so that runs share them."""
    return run.facts or storage.join(run.out.rstrip("/").rpartition("/")[0] or ".", "facts")
