"""Curation against known answers: renders corpora of unseen seeds, curates them, scores them.

`python -m benchmarks.synthetic 101 102 103 104 105`: seeds that nothing was tuned on (0, 1 and 2
were). What is rendered and measured already, below runs/synthetic, is not done again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import provenance

FOLDER = Path("runs/synthetic")
CONFIG = "jobs/configs/demo.toml"
PACKAGES = ("av", "decord", "opencv-python", "ray", "numpy", "pyarrow")


def main() -> int:
    """Writes benchmarks/results/synthetic.json; 1 when a seed misses a bar."""
    seeds = sys.argv[1:] or ["101", "102", "103", "104", "105"]
    scores: dict[str, Any] = {}
    passed = True
    for seed in seeds:
        corpus, run = FOLDER / f"corpus-{seed}", FOLDER / f"run-{seed}"
        if not corpus.exists():
            _job("corpus", "--out", corpus, "--seed", seed)
        videos = ("--corpus", corpus / "clips.csv", "--videos", corpus / "videos")
        _job("dataset", "--config", CONFIG, *videos, "--out", run)
        note = FOLDER / f"score-{seed}.json"
        passed &= _job("corpus", "--out", corpus, "--score", run, "--json", note) == 0
        scores[seed] = next(iter(json.loads(note.read_text()).values()))
    print(provenance.write("synthetic", PACKAGES, {"passed": passed, "seeds": scores}))
    return 0 if passed else 1


def _job(name: str, *arguments: str | Path) -> int:
    command: Sequence[str] = [sys.executable, "-m", f"jobs.{name}", *map(str, arguments)]
    code = subprocess.run(command, check=False).returncode
    if code > 1:
        raise SystemExit(f"jobs.{name} ended with {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
