"""Reads a corpus and says what is in it, and which of its rows are bad.

With a run folder, every bad row is listed in `bad_rows.csv` there: malformed, listed twice, without
a caption, or without a value that most others have.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.command import finish, parser, read_run
from jobs.reading import manifest_of
from pipeline import storage
from pipeline.bad_rows import MALFORMED, NO_CAPTION, TWICE, as_csv, bad_rows
from pipeline.manifest import Manifest

_SHOWN = 20


def main() -> int:
    """Measures nothing."""
    run = read_run(parser(__doc__).parse_args())
    manifest = manifest_of(run)
    bad = bad_rows(manifest.rows, manifest.published.names)
    print(describe(manifest, bad))
    if run.out:
        url = storage.join(run.out, "bad_rows.csv")
        storage.write(url, as_csv(bad))
        print(f"  all of them: {url}")
    return 0


def describe(manifest: Manifest, bad: pa.Table) -> str:
    """A few lines for a person; bad: the rows that have something wrong."""
    rows = manifest.rows
    counts = {
        group["values"]: group["counts"] for group in bad["problem"].value_counts().to_pylist()
    }
    malformed, twice = counts.get(MALFORMED, 0), counts.get(TWICE, 0)
    lines = [
        f"manifest {manifest.id}: {len(rows)} rows of {manifest.corpus}",
        f"videos in {manifest.videos}",
        f"  {len(rows) - twice - malformed} clips, {twice} listed twice, {malformed} malformed, "
        f"{counts.get(NO_CAPTION, 0)} without a caption",
        f"  from {len(rows['source_id'].unique())} source videos",
    ]
    if manifest.zips is not None:
        found = len(rows) - int(np.count_nonzero(manifest.missing))
        lines.append(f"  {found} rows are in the {len(manifest.zips.zips)} zips or beside them")
    for name in manifest.published.names:
        there = len(rows) - rows[name].null_count
        missing = f", {counts[f'no {name}']} lack it" if f"no {name}" in counts else ""
        words = _range(rows[name]) if there else ""
        lines.append(f"  {name}: {there} rows have it{missing}{words}")
    return "\n".join([*lines, *_listed(bad)])


def _listed(bad: pa.Table) -> list[str]:
    """The first bad rows."""
    if len(bad) == 0:
        return ["  no bad rows"]
    lines = [
        f"  the first of {len(bad)} things wrong with rows:" if len(bad) > _SHOWN else "  bad:"
    ]
    for row in bad.slice(0, _SHOWN).to_pylist():
        why = f"{row['problem']} ({row['detail']})" if row["detail"] else row["problem"]
        lines.append(f"    line {row['line']}: {why}: {row['video'][:100]!r}")
    return lines


def _range(column: pa.ChunkedArray) -> str:
    if not pa.types.is_floating(column.type):
        return ""
    numbers = column.drop_null().to_numpy()
    return f", {numbers.min():.4g} to {numbers.max():.4g}"


if __name__ == "__main__":
    finish(main)
