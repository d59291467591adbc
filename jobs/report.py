"""The page and the contact sheets of a run, in its `report` folder."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from jobs.command import finish, parser, read_run
from jobs.curation import look_at
from pipeline import failures, generated, storage
from pipeline.report.clips import Number, choose, funnel_rows, sheet_rows
from pipeline.report.page import write_page
from pipeline.report.sheet import write_sheets
from pipeline.report.videos import Shot, scores_section, training_section, videos_section
from pipeline.verdicts import tally
from training.metrics import FILE as METRICS
from training.metrics import read_metrics

KEPT, OTHERS = 60, 6
SAMPLES = "samples"
_WORDS = {
    "colour": "of the subject, away from its reference, in units of Lab; less is better",
    "texture": "the same of its gradients, in units of L per pixel",
    "distance": "both in one",
    "found": "share of the videos whose own reference is the nearest of all",
    "dynamic": "share of the videos that move",
    "motion": "of the fastest 5 % of the pixels, as a share of the diagonal per second",
    "likeness": "of frames half a second apart, 1 when they are the same",
    "real": "the clips that the subjects are from: what is within reach",
}
_LABELS = {"reference": "with the reference", "none": "from the prompt alone"}
NUMBERS = (
    Number("width", "probe", "width"),
    Number("height", "probe", "height"),
    Number("seconds", "probe", "seconds", ".1f"),
    Number("top motion", "motion", "top5", ".1%"),
    Number("aesthetic", "appearance", "aesthetic", ".2f"),
    Number("shows", "entities", "phrase"),
    Number("mask score", "segment", "score", ".2f"),
    Number("mask area", "segment", "area", ".1%"),
    Number("found again", "pair", "found_again", ".2f"),
    Number("text", "overlay", "share", ".1%"),
)


def main() -> int:
    """Reads facts, verdicts and clips; measures nothing."""
    house = look_at(read_run(parser(__doc__).parse_args()))
    curation, folder = house.curation, storage.join(house.out, "report")
    judged = curation.verdicts()
    verdicts = judged.table()
    chosen = choose(verdicts, KEPT, OTHERS)
    clips = verdicts["clip_id"].take(pa.array(chosen, pa.int64()))
    facts = {stage.name: curation.ledger.facts_of(stage.name, clips) for stage in curation.stages}
    rows = list(sheet_rows(chosen, curation.manifest, verdicts, facts, house.samples_url, NUMBERS))
    about = {"corpus": curation.manifest.corpus, "manifest": curation.manifest.id}
    about |= {word: f"{count:,}" for word, count in tally(judged).items()}
    about["failed"] += f" ({failures.words(failures.count(judged))})"
    sheets = write_sheets(rows, folder)
    sections = [*_trainings(house.out), _scores(house.out), videos_section(_shots(house.out))]
    page = write_page(
        house.out, funnel_rows(verdicts, curation.stages), rows, about, folder, sections
    )
    print(f"{page}: {len(rows)} clips shown, and {len(sheets)} contact sheets beside it")
    return 0


def _trainings(out: str) -> Iterator[str]:
    """Those below a local run folder, the oldest first."""
    place = storage.local(out)
    found = [] if place is None else [path.parent for path in place.glob(f"*/{METRICS}")]
    for folder in sorted(found, key=lambda folder: (folder / METRICS).stat().st_mtime):
        yield training_section(folder.name, read_metrics(folder / METRICS))


def _scores(out: str) -> str:
    url = storage.join(out, "evaluation", "results.json")
    if not storage.exists(url):
        return ""
    return scores_section(json.loads(storage.read(url))["groups"], _WORDS)


def _shots(out: str) -> Iterator[Shot]:
    """The last generation's videos, by subject and seed."""
    url = storage.join(out, SAMPLES)
    if not storage.exists(storage.join(url, generated.INDEX)):
        return
    shots: dict[tuple[str, int], list[generated.Generated]] = {}
    for record in generated.read_index(url):
        shots.setdefault((record.subject, record.seed), []).append(record)
    for (subject, seed), records in shots.items():
        yield Shot(
            f"{subject}, seed {seed}",
            records[0].prompt,
            generated.read_reference(url, records[0]),
            [(_LABELS[r.group], f"../{SAMPLES}/{r.name}/{generated.MP4}") for r in records],
        )


if __name__ == "__main__":
    finish(main)
