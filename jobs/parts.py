"""Says which zips of a corpus to fetch: those that hold most of what passes on published columns.

Nothing is downloaded. `[filters.manifest]` of the run file says what passes; `parts.txt` in the run
folder names the files in the order in which they are worth fetching, `parts.json` says why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from jobs.command import finish, parser, read_run
from jobs.reading import manifest_of, published_filters
from jobs.settings import Run
from pipeline import storage
from pipeline.errors import InputError
from pipeline.manifest import Manifest
from pipeline.parts import Holding, Part, in_mapping, in_zips, plan
from pipeline.replay import judge
from pipeline.verdicts import funnel
from pipeline.zips import Zip, list_zips

_SHOWN = 40


def main() -> int:
    """Reads the corpus and the directories of its zips, or the file that stands for them."""
    run = read_run(parser(__doc__).parse_args())
    # Where a file says which zip holds what, the zips need not be there, nor be opened.
    manifest = manifest_of(run, zipped=not run.corpus.parts)
    holding, zips = _holding(run, manifest)
    verdicts = judge(manifest, (), published_filters(run, manifest), {})
    print(funnel(verdicts, ()))
    kept = verdicts.are("kept")
    parts = plan(holding, kept, zips)
    nowhere = int(np.count_nonzero(kept & (holding.part < 0)))
    print(f"\n{_table(parts, len(holding.names))}")
    if nowhere:
        print(f"{nowhere} clips that pass are in no part")
    if run.out:
        files = [name for part in parts for name in part.files]
        storage.write(storage.join(run.out, "parts.txt"), "".join(f"{f}\n" for f in files).encode())
        rows = [asdict(part) for part in parts]
        storage.write(storage.join(run.out, "parts.json"), json.dumps(rows, indent=1).encode())
        print(f"the files, in this order: {storage.join(run.out, 'parts.txt')}")
    return 0


def _holding(run: Run, manifest: Manifest) -> tuple[Holding, Sequence[Zip]]:
    """Which part each row is in, and the zips that there are."""
    videos = manifest.rows["video"]
    if run.corpus.parts:
        return in_mapping(run.corpus.parts, videos), list_zips(manifest.videos)
    if manifest.zips is None:
        raise InputError(
            f"found no zips in {manifest.videos}, wanted --videos FOLDER_OR_URL/*.zip, or parts "
            "under [corpus] in the run file"
        )
    return in_zips(manifest.zips, videos), manifest.zips.zips


def _table(parts: Sequence[Part], count: int) -> str:
    """The best parts with what they bring, alone and together with those above."""
    lines = [f"{len(parts)} of {count} parts hold clips that pass; those that bring most per byte:"]
    lines.append(f"{'part':<24}{'pass':>8}{'of':>8}{'GB':>8}{'per GB':>9}{'sum':>10}{'sum GB':>10}")
    clips, num_bytes, unknown = 0, 0, 0
    for number, part in enumerate(parts):
        clips, num_bytes = clips + part.kept, num_bytes + (part.num_bytes or 0)
        unknown += part.num_bytes is None
        if number < _SHOWN:
            size = "unknown" if part.num_bytes is None else f"{part.num_bytes / 1e9:.2f}"
            rate = "" if part.kept_per_gb is None else f"{part.kept_per_gb:.1f}"
            lines.append(
                f"{part.name[-23:]:<24}{part.kept:>8}{part.clips:>8}{size:>8}{rate:>9}"
                f"{clips:>10}{num_bytes / 1e9:>10.2f}"
            )
    if len(parts) > _SHOWN:
        lines.append(f"  and {len(parts) - _SHOWN} more")
    missing = f", and {unknown} parts whose size nobody says" if unknown else ""
    lines.append(f"together {clips} clips in {num_bytes / 1e9:.2f} GB{missing}")
    return "\n".join(lines)


if __name__ == "__main__":
    finish(main)
