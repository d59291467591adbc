"""Reads a corpus and says what is in it: rows, duplicates, malformed rows, what is published."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from jobs.command import finish, parser, read_run
from pipeline.errors import InputError
from pipeline.manifest import Manifest, read_manifest


def main() -> int:
    """Measures nothing and writes nothing."""
    run = read_run(parser(__doc__).parse_args())
    if not run.corpus.manifest:
        raise InputError("found no corpus, wanted --corpus FILE_OR_FOLDER")
    print(describe(read_manifest(run.corpus.manifest, run.corpus.videos or None)))
    return 0


def describe(manifest: Manifest) -> str:
    """A few lines for a person."""
    rows = manifest.rows
    problems = Counter(p for p in rows["problem"].to_pylist() if p)
    duplicates = sum(rows["duplicate"].to_pylist())
    lines = [
        f"manifest {manifest.id}: {len(rows)} rows of {manifest.corpus}",
        f"videos in {manifest.videos}",
        f"  {len(rows) - duplicates - problems.total()} clips, {duplicates} listed twice, "
        f"{problems.total()} malformed",
    ]
    sources = len(set(rows["source_id"].to_pylist()))
    lines.append(f"  from {sources} source videos")
    for name in rows.column_names[7:]:
        there = len(rows) - rows[name].null_count
        lines.append(f"  {name}: {there} rows have it{_range(rows[name]) if there else ''}")
    bad = [r["video"] for r in rows.select(["video", "problem"]).to_pylist() if r["problem"]]
    return "\n".join(lines + [f"  malformed: {name!r}" for name in bad[:20]])


def _range(column: pa.ChunkedArray) -> str:
    if not pa.types.is_floating(column.type):
        return ""
    numbers = column.drop_null().to_numpy()
    return f", {numbers.min():.4g} to {numbers.max():.4g}"


if __name__ == "__main__":
    finish(main)
