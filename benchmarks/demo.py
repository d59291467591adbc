"""What `make demo` came to, out of runs/demo: losses, the reference gap, scores of the videos."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import provenance
from training.metrics import FILE, read_metrics

RUN = Path("runs/demo")
PACKAGES = ("torch", "diffusers", "transformers", "av", "decord", "ray")


def main() -> int:
    """Writes benchmarks/results/demo.json; 1 when the right reference does not help."""
    base, adapter = (
        [row for row in read_metrics(RUN / name / FILE) if "held_out_none" in row]
        for name in ("base", "train")
    )
    gap = adapter[-1]["held_out_shuffled"] - adapter[-1]["held_out_right"]
    verdicts = Counter(pq.read_table(RUN / "verdicts.parquet")["verdict"].to_pylist())
    figures = {
        "verdicts": dict(verdicts),
        "base_held_out": [[row["step"], row["held_out_none"]] for row in base],
        "adapter_held_out": [
            [row["step"], *(row[f"held_out_{which}"] for which in ("right", "shuffled", "none"))]
            for row in adapter
        ],
        "reference_gap": gap,
        "evaluation": json.loads((RUN / "evaluation" / "results.json").read_text())["groups"],
    }
    print(f"reference gap {gap:+.4f}")
    print(provenance.write("demo", PACKAGES, figures))
    return 0 if gap > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
