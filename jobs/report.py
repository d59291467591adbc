"""The page and the contact sheets of a run, in its `report` folder."""

from __future__ import annotations

from jobs.command import finish, parser, read_run
from jobs.curation import look_at
from pipeline import storage
from pipeline.report.clips import Number, choose, funnel_rows, sheet_rows
from pipeline.report.page import write_page
from pipeline.report.sheet import write_sheets
from pipeline.verdicts import tally

KEPT, OTHERS = 60, 6
NUMBERS = (
    Number("width", "probe", "width"),
    Number("height", "probe", "height"),
    Number("seconds", "probe", "seconds", ".1f"),
    Number("top motion", "motion", "top5", ".1%"),
    Number("aesthetic", "appearance", "aesthetic", ".2f"),
    Number("shows", "entities", "phrase"),
    Number("mask score", "segment", "score", ".2f"),
    Number("mask area", "segment", "area", ".1%"),
)


def main() -> int:
    """Reads facts, verdicts and clips; measures nothing."""
    house = look_at(read_run(parser(__doc__).parse_args()))
    curation, folder = house.curation, storage.join(house.out, "report")
    verdicts = curation.verdicts()
    facts = {stage.name: curation.ledger.facts(stage.name) for stage in curation.stages}
    chosen = choose(verdicts, KEPT, OTHERS)
    rows = list(sheet_rows(chosen, curation.manifest, verdicts, facts, house.samples_url, NUMBERS))
    about = {"corpus": curation.manifest.corpus, "manifest": curation.manifest.id}
    about |= {word: f"{count:,}" for word, count in tally(verdicts).items()}
    sheets = write_sheets(rows, folder)
    page = write_page(house.out, funnel_rows(verdicts, curation.stages), rows, about, folder)
    print(f"{page}: {len(rows)} clips shown, and {len(sheets)} contact sheets beside it")
    return 0


if __name__ == "__main__":
    finish(main)
