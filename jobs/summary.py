"""What a run came to, in a few lines: clips, losses, the reference's part, videos, the page."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.command import finish
from pipeline import failures
from pipeline.errors import InputError
from training.metrics import FILE, read_metrics

RIGHT, SHUFFLED, NONE = "held_out_right", "held_out_shuffled", "held_out_none"


def main() -> int:
    """Reads a local run folder; says what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="run folder")
    out = Path(parser.parse_args().out)
    if not (out / "verdicts.parquet").exists():
        raise InputError(f"found no run in {out}, wanted a run folder with verdicts.parquet")
    print(f"\n{out}")
    for line in (_clips(out), *_trainings(out), *_generation(out), _page(out)):
        print(f"  {line}")
    return 0


def _clips(out: Path) -> str:
    table = pq.read_table(out / "verdicts.parquet", columns=["verdict", "stage", "code"])
    rows = Counter(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    counts: Counter[str] = Counter()
    for (verdict, *_), count in rows.items():
        counts[verdict] += count
    parts = [f"{counts[word]} {word}" for word in ("kept", "rejected", "failed", "pending")]
    failed = {
        (stage, code): count for (word, stage, code), count in rows.items() if word == "failed"
    }
    why = f"; failed: {failures.words(failed)}" if failed else ""
    return f"clips       {counts.total()} rows: {', '.join(p for p in parts if p[0] != '0')}{why}"


def _trainings(out: Path) -> Iterator[str]:
    found = sorted(out.glob(f"*/{FILE}"), key=lambda path: path.stat().st_mtime)
    for path in found:
        rows = [row for row in read_metrics(path) if NONE in row]
        if not rows:
            yield f"{path.parent.name:<11} nothing held out has been measured yet"
        elif RIGHT in rows[-1]:
            yield _adapter(path.parent.name, rows)
        else:
            first, last = rows[0][NONE], rows[-1][NONE]
            yield (
                f"{path.parent.name:<11} held-out loss {first:.3f} before, {last:.3f} after "
                f"{rows[-1]['step']} steps, on subjects never trained on"
            )


def _adapter(name: str, rows: list[dict[str, Any]]) -> str:
    first, last = rows[0], rows[-1]
    gap, low, high = (last[f"held_out_gap{end}"] for end in ("", "_low", "_high"))
    verdict = "the right reference helps" if low > 0 else "may be chance yet: train longer"
    return (
        f"{name:<11} held-out loss with the right reference {first[RIGHT]:.4f} before, "
        f"{last[RIGHT]:.4f} after {last['step']} steps;\n{'':14}shuffled {last[SHUFFLED]:.4f}, "
        f"without one {last[NONE]:.4f}; reference gap {gap:+.4f} "
        f"({low:+.4f} to {high:+.4f}): {verdict}"
    )


def _generation(out: Path) -> Iterator[str]:
    videos = sorted((out / "samples").glob("*/*.mp4"))
    if videos:
        yield f"videos      {len(videos)} of subjects never trained on, e.g. {videos[0]}"
    results = out / "evaluation" / "results.json"
    if results.exists():
        groups: Mapping[str, Any] = json.loads(results.read_text())["groups"]
        for name, measures in groups.items():
            distance, found = measures["distance"]["mean"], measures["found"]["mean"]
            yield (
                f"  {name:<9} distance to the reference {distance:.3f}; the right reference is "
                f"the nearest in {found:.0%}"
            )


def _page(out: Path) -> str:
    page = out / "report" / "index.html"
    return f"page        {page}" if page.exists() else "page        not written yet: make report"


if __name__ == "__main__":
    finish(main)
