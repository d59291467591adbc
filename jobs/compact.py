"""Merges the small files of a run's facts. Every pass does so at its end where there are many."""

from __future__ import annotations

from jobs.command import finish, parser, read_run
from jobs.curation import look_at
from pipeline import storage
from pipeline.compaction import compact
from pipeline.lease import Lease


def main() -> int:
    """Says what became of the files of each stage; the replaced ones are deleted a day later."""
    ledger = look_at(read_run(parser(__doc__).parse_args()), latents=True).curation.ledger
    for stage in ledger.stages():
        if not ledger.has_parts(stage):
            continue
        with Lease(storage.join(ledger.folder(stage), "lease.json"), "compact"):
            done = compact(ledger, stage, most=1)
        print(
            f"{stage}: {done.merged} files became {done.into}, {done.deleted} that others had "
            f"replaced are gone; {len(ledger.standing_files(stage))} to read",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    finish(main)
