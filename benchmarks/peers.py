"""Our `score` pass beside data-juicer's resolution and motion filters, on the same clips.

Twice: our whole pass (header, cuts over every frame, two flows, text), and its own algorithm on its
own frames in our pass. Each tool runs in its own environment with two workers; it in both of its
modes, of which the faster counts. Its time is what it says its operators took, without its start;
ours is from workers that are ready to the last fact on disk.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import provenance
from benchmarks.farneback import Farneback
from benchmarks.footage import BROKEN, FRAMES, render
from pipeline.filters import defaults
from pipeline.ledger import Ledger
from pipeline.manifest import read_manifest
from pipeline.passes import Curation, Pace, run_pass
from pipeline.progress import Progress
from pipeline.ray_runner import RayFleet, cluster
from pipeline.stage import Stage
from pipeline.units import Fleet
from pipeline.work import Work, WorkerKind
from stages.appearance import Appearance
from stages.motion import Motion
from stages.overlay import Overlay
from stages.probe import Probe

WORKERS = 2
BAR_WHOLE, BAR_SAME = 8.0, 2.0
PEERS = Path(".venv-peers")
PACKAGES = ("av", "decord", "opencv-python", "ray", "numpy", "pyarrow")
_TOOK = re.compile(r"All O[Pp]s are done in ([0-9.]+)s")


def main() -> int:
    """Measures, prints, writes benchmarks/results/peers.json; 1 when a bar is missed."""
    if not (PEERS / "bin" / "dj-process").exists():
        print("error: found no .venv-peers, wanted it; run make bench-peers", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        corpus = Path(folder)
        print("rendering 24 clips")
        paths = render(corpus)
        with cluster():
            whole = _ours(corpus, "whole", (Probe(), Appearance(), Motion(), Overlay()))
            same = _ours(corpus, "same", (Probe(), Farneback(FRAMES)))
        theirs = {mode: _theirs(corpus, mode) for mode in ("default", "ray")}
        figures = _figures(len(paths), whole, same, theirs)
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(provenance.write("peers", PACKAGES, figures))
    return 0 if figures["passed"] else 1


def _figures(clips: int, whole: dict, same: dict, theirs: dict[str, dict]) -> dict[str, object]:
    best = min(theirs, key=lambda mode: theirs[mode]["seconds"])
    peer_s = theirs[best]["seconds"]
    ratio_whole, ratio_same = peer_s / whole["seconds"], peer_s / same["seconds"]
    their_scores = theirs[best]["scores"]
    scores = np.asarray([[same["scores"][v], their_scores[v]] for v in same["scores"]])
    apart = float(np.max(np.abs(scores[:, 0] - scores[:, 1]) / scores[:, 1].clip(0.1)))
    recorded = whole["codes"]
    return {
        "clips": clips,
        "corrupt_files": BROKEN,
        "workers": WORKERS,
        "ours_whole_clips_per_s": round(clips / whole["seconds"], 3),
        "ours_same_algorithm_clips_per_s": round(clips / same["seconds"], 3),
        "data_juicer_clips_per_s": {m: round(clips / t["seconds"], 3) for m, t in theirs.items()},
        "data_juicer_version": _version("py-data-juicer"),
        "data_juicer_av": _version("av"),
        "speed_ratio_whole": round(ratio_whole, 2),
        "speed_ratio_same_algorithm": round(ratio_same, 2),
        "same_algorithm_scores_differ_at_most": round(apart, 3),
        "ours_corrupt_files_recorded": recorded,
        "data_juicer_corrupt_files_in_output": theirs[best]["corrupt"],
        "data_juicer_rows_out": theirs[best]["rows"],
        "bars": {"speed_ratio_whole": BAR_WHOLE, "speed_ratio_same_algorithm": BAR_SAME},
        "passed": ratio_whole >= BAR_WHOLE
        and ratio_same >= BAR_SAME
        and len(recorded) == BROKEN
        and all(recorded.values()),
    }


def _ours(corpus: Path, name: str, stages: Sequence[Stage]) -> dict:
    """Seconds from ready workers to the last fact; codes of the corrupt files; motion scores."""
    manifest = read_manifest(str(corpus / "corpus.csv"))
    ledger = Ledger(str(corpus / f"facts-{name}"), stages)
    curation = Curation(manifest, tuple(stages), defaults(stages), ledger, measure_all=True)
    ready = [0.0]

    @contextmanager
    def open_fleet(work: Work) -> Iterator[Fleet]:
        fleet = RayFleet(work, [WorkerKind(count=WORKERS)])
        while len(fleet.idle()) < WORKERS:
            fleet.wait(0.1)
        ready[0] = time.monotonic()
        yield fleet
        fleet.close()

    names = [stage.name for stage in stages]
    report = run_pass(
        name, names, curation, open_fleet, lambda: False, Pace(1), lambda n, t: Progress(n, t, None)
    )
    seconds = time.monotonic() - ready[0]
    assert report.done
    video_of = dict(
        zip(manifest.rows["clip_id"].to_pylist(), manifest.rows["video"].to_pylist(), strict=True)
    )
    probed = ledger.facts("probe").to_pylist()
    found: dict[str, Any] = {"seconds": seconds}
    found["codes"] = {video_of[r["clip_id"]]: r["code"] for r in probed if r["code"] is not None}
    if "farneback" in names:
        rows = ledger.facts("farneback").to_pylist()
        found["scores"] = {video_of[r["clip_id"]]: r["score"] for r in rows if r["code"] is None}
    return found


def _theirs(corpus: Path, mode: str) -> dict:
    """The same of data-juicer. corrupt: how many of the broken files its output names."""
    out = corpus / f"peer-{mode}"
    out.mkdir()
    wanted = [
        {"text": "<__dj__video> A clip.", "videos": [str(path)]}
        for path in sorted(corpus.glob("*.mp4"))
    ]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wanted))
    recipe = {
        "project_name": "peers",
        "dataset_path": str(out / "rows.jsonl"),
        "export_path": str(out / "exported" / "out.jsonl"),
        "executor_type": mode,
        "ray_address": "local",
        "np": WORKERS,
        "video_key": "videos",
        "use_cache": False,
        "process": [
            {"video_resolution_filter": {"min_width": 256, "min_height": 256}},
            {"video_motion_score_filter": {"size": 520, "min_score": 0.0}},
        ],
    }
    (out / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    command = [str(PEERS.absolute() / "bin" / "dj-process"), "--config", str(out / "recipe.yaml")]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=out, capture_output=True, text=True, check=False, env=_environment()
    )
    seconds = time.monotonic() - started
    said = _TOOK.findall(done.stdout + done.stderr)
    if done.returncode != 0:
        raise RuntimeError(f"data-juicer ended with {done.returncode}:\n{done.stderr[-3000:]}")
    exported = out / "exported" / "out.jsonl"
    parts = sorted(exported.glob("*")) if exported.is_dir() else [exported]
    rows = [row for part in parts for row in _records(part)]
    names = [Path(row["videos"][0]).name for row in rows]
    # Its default mode writes the scores into a file of their own, in the same order.
    scored = _records(out / "exported" / "out_stats.jsonl") or rows
    scores = [row["__dj__stats__"]["video_motion_score"][0] for row in scored]
    return {
        "seconds": float(said[-1]) if said else seconds,
        "start_to_end_s": seconds,
        "rows": len(names),
        "corrupt": sum(name.startswith("bad") for name in names),
        "scores": dict(zip(names, scores, strict=True)),
    }


def _records(file: Path) -> list[dict]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def _environment() -> dict[str, str]:
    """Its own interpreter first, and no cluster of anybody else's."""
    path = f"{PEERS.absolute() / 'bin'}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**kept, "PATH": path, "OMP_WAIT_POLICY": "PASSIVE"}


def _version(package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    command = [str(PEERS / "bin" / "python"), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
