"""How long a corpus of a million rows takes to be read, first and later, and in how much memory.

The rows are made up, in OpenVid's form: captions of 100 to 400 characters, and once more so long
that the file is as large as OpenVid-1M.csv itself (767 MB). The zips hold a million names.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT, write
from pipeline.manifest import read_manifest

ROWS = 1_000_000
CAPTIONS = {"captions of 100 to 400 characters": (100, 400), "as large as OpenVid's": (480, 900)}
ZIPS = 186
HEADER = (
    "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,"
    "frame,fps,seconds"
)
TEXT = (
    "the video features a young man standing in front of black door on brick building he wears "
    "dark green coat with fur collar and blue shirt as looks off to side while camera stays still"
)


def main() -> None:
    """Prints and writes `results/manifest.json`. `--read CSV VIDEOS CACHE`: one read, measured."""
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(_read(*sys.argv[2:])))
        return
    figures: dict[str, Any] = {"rows": ROWS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus, names = folder / "clips.csv", list[str]()
        for name, lengths in CAPTIONS.items():
            names = _write_csv(corpus, *lengths)
            first = _in_child(corpus, folder, folder / "kept")
            later = [_in_child(corpus, folder, folder / "kept") for _ in range(3)]
            best = min(later, key=lambda read: read["seconds"])
            size_mb = round(corpus.stat().st_size / 1e6)
            figures[name] = {"csv_mb": size_mb, "first_read": first, "later_read": best}
            print(name, json.dumps(figures[name], indent=1))
        (folder / "zips").mkdir()
        _write_zips(folder / "zips", names)
        found = _in_child(corpus, folder / "zips", folder / "kept")
        again = _in_child(corpus, folder / "zips", folder / "kept")
        figures["zips"] = {"zips": ZIPS, "members": ROWS, "first_read": found, "later_read": again}
        print("zips", json.dumps(figures["zips"], indent=1))
    print(write("manifest", ["pyarrow", "numpy"], figures))


def _read(corpus: str, videos: str, cache: str) -> dict[str, Any]:
    """Reads a corpus as every command does, and looks at what a replay looks at."""
    before_mb = _peak_mb()
    wall, cpu = time.perf_counter(), time.process_time()
    manifest = read_manifest(corpus, videos, cache)
    named = manifest.id
    missing = int(manifest.missing.sum())
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "id": named,
        "missing": missing,
        "peak_mb": round(_peak_mb()),
        "peak_mb_before": round(before_mb),
    }


def _in_child(corpus: Path, videos: Path, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.manifest", "--read", corpus, videos, cache]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def _peak_mb() -> float:
    """Of this process alone, with the pages of mapped files that it touched.

    Not `ru_maxrss`: that begins with what the process that started us held.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1e3


def _write_csv(path: Path, shortest: int, longest: int) -> list[str]:
    """A corpus like OpenVid's; the names of its clips."""
    chance = random.Random(0)
    captions = [_caption(chance, chance.randint(shortest, longest)) for _ in range(5_000)]
    names = []
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        for row in range(ROWS):
            start = chance.randint(0, 300)
            names.append(f"{chance.getrandbits(60):011x}_{row % 90}_{start}to{start + 118}.mp4")
            scores = [f"{chance.uniform(*bounds):.6f}" for bounds in ((5, 8.7), (0, 60), (0.88, 1))]
            if row % 97 == 0:
                scores[1] = ""
            camera, fps = chance.choice(["static", "pan_left"]), chance.choice([24, 25, 29.97])
            tail = [camera, chance.randint(41, 400), fps, f"{chance.uniform(1, 20):.6f}"]
            writer.writerow([names[-1], chance.choice(captions), *scores, *tail])
    return names


def _caption(chance: random.Random, length: int) -> str:
    known, words = TEXT.split(), list[str]()
    while sum(map(len, words)) + len(words) < length:
        words.append(chance.choice(known))
    return " ".join(words).capitalize() + ', "so" it is.'


def _write_zips(folder: Path, names: list[str]) -> None:
    """The same clips, all empty, in as many zips as OpenVid has."""
    for number in range(ZIPS):
        with zipfile.ZipFile(folder / f"OpenVid_part{number}.zip", "w") as file:
            for name in names[number::ZIPS]:
                file.writestr(f"OpenVid_part{number}/{name}", b"")


if __name__ == "__main__":
    main()
