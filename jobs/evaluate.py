"""Measures the videos of a generation: do they show their subject, do they move, do they hold?

No network is needed: colour and texture of the subject (fidelity), optical flow (motion), likeness
of the frames (appearance). The real clips of held-out subjects are measured beside them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np

from jobs.command import finish
from pipeline import generated, storage, video
from pipeline.bootstrap import mean_of
from pipeline.clip import Clip, Measurement
from pipeline.config import load
from pipeline.errors import InputError
from pipeline.frames import Frames
from pipeline.generated import Generated
from pipeline.progress import Progress
from pipeline.shard_reader import ShardReader
from pipeline.stage import Stage
from pipeline.stop import Stop
from stages.appearance import Appearance
from stages.fidelity import Fidelity, FidelitySettings
from stages.motion import Motion, MotionSettings

REAL = "real"
"""The group of the clips that the held-out subjects were taken from: what is within reach."""
MEASURES = ("colour", "texture", "distance", "found", "dynamic", "motion", "likeness")


@dataclass(frozen=True, slots=True)
class EvaluateRun:
    """A whole run file.

    out: the run folder; videos: of the generation's folder in it; name: of the results'. dynamic:
    the motion from which on a video counts as moving, as a share of the diagonal per second.
    """

    out: str = ""
    videos: str = "samples"
    name: str = "evaluation"
    dynamic: float = 0.015  # as curation's filter of still clips
    fidelity: FidelitySettings = field(default_factory=FidelitySettings)
    motion: MotionSettings = field(default_factory=MotionSettings)


@dataclass(frozen=True, slots=True)
class _Shown:
    """One video to measure, and what is known of it."""

    name: str
    group: str
    subject: str
    seed: int
    frames: Frames


def main() -> int:
    """Writes `results.json`, and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="RUN.toml", help="the run file of the evaluation")
    parser.add_argument("--out", help="run folder")
    given = parser.parse_args()
    run = load(given.config, EvaluateRun, {"out": given.out})
    if not run.out:
        raise InputError("found no run folder, wanted --out RUN_FOLDER, or out in the run file")
    url = storage.join(run.out, run.videos)
    records = generated.read_index(url)
    stop = Stop()
    stop.listen()
    rows = _measured(run, url, records, stop)
    if stop():
        print(f"{run.out}: stopped; the same command begins again")
        return stop.exit_code
    results = {"groups": _groups(rows), "gains": _gains(rows), "videos": rows}
    place = storage.join(run.out, run.name, "results.json")
    storage.write(place, json.dumps(results, indent=1).encode())
    print(_table(results["groups"]))
    print(f"{place}: {len(rows)} videos")
    return 0


def _measured(
    run: EvaluateRun, url: str, records: Sequence[Generated], stop: Stop
) -> list[dict[str, Any]]:
    """One row per video: what it is, and its measures."""
    references = {
        record.subject: storage.join(url, record.name, generated.REFERENCE) for record in records
    }
    stages: tuple[Stage, ...] = (
        Fidelity(references, run.fidelity),
        Motion(run.motion),
        Appearance(),
    )
    for stage in stages:
        stage.setup()
    rows: list[dict[str, Any]] = []
    total = len(records) + len(_real_keys(run, records))
    with _Videos(run.name, total, storage.join(run.out, run.name, "status.json")) as progress:
        for shown in _all(run, url, records):
            rows.append(_row(shown, stages, run.dynamic))
            progress.update()
            if stop():
                break
    return rows


class _Videos(Progress):
    """Counts videos."""

    def _counts(self) -> str:
        return f"{self.done} videos measured"


def _all(run: EvaluateRun, url: str, records: Sequence[Generated]) -> Iterator[_Shown]:
    for record in records:
        frames = _frames(generated.read_frames(url, record), record.fps)
        yield _Shown(record.name, record.group, record.subject, record.seed, frames)
    keys = _real_keys(run, records)
    if keys:
        height, width = generated.read_frames(url, records[0]).shape[1:3]
        samples = ShardReader(storage.join(run.out, "shards"))
        for number, key in enumerate(samples.index["key"].to_pylist()):
            if key in keys:
                real = video.decode(samples[number][1]["mp4"])
                small = [cv2.resize(i, (width, height), interpolation=cv2.INTER_AREA) for i in real]
                yield _Shown(key, REAL, key, 0, _frames(np.stack(small), records[0].fps))


def _real_keys(run: EvaluateRun, records: Sequence[Generated]) -> set[str]:
    """Subjects that are samples of this run."""
    shards = storage.join(run.out, "shards")
    if not storage.exists(storage.join(shards, "index.parquet")):
        return set()
    keys = set(ShardReader(shards).index["key"].to_pylist())
    return keys & {record.subject for record in records}


def _frames(images: np.ndarray, fps: float) -> Frames:
    count, height, width = images.shape[:3]
    return Frames(images, tuple(range(count)), fps, count, width, height)


def _row(shown: _Shown, stages: Sequence[Stage], dynamic: float) -> dict[str, Any]:
    clip = Clip(shown.subject, shown.name, "", "", shown.subject)
    values: dict[str, Any] = {}
    for stage in stages:
        (outcome,) = stage.measure([clip], [shown.frames], [{}])
        if not isinstance(outcome, Measurement):
            raise InputError(f"{shown.name}: {outcome.message}; generate longer videos")
        values.update(outcome.values)
    return {
        "name": shown.name,
        "group": shown.group,
        "subject": shown.subject,
        "seed": shown.seed,
        "colour": values["colour"],
        "texture": values["texture"],
        "distance": values["distance"],
        "rank": values["rank"],
        "candidates": values["candidates"],
        "found": float(values["rank"] == 1),
        "motion": values["top5"],
        "dynamic": float(values["top5"] >= dynamic),
        "likeness": values["consistency_mean"],
    }


def _groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Group -> measure -> its mean and interval."""
    found: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group]
        subjects = [row["subject"] for row in members]
        found[group] = {
            measure: asdict(mean_of([row[measure] for row in members], subjects))
            for measure in MEASURES
        }
    return found


def _gains(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the reference changes: differences of videos of one subject and seed, with and without.

    Empty when only one of the groups was generated.
    """
    pairs: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        pairs.setdefault((row["subject"], row["seed"]), {})[row["group"]] = row
    both = [pair for pair in pairs.values() if {"reference", "none"} <= pair.keys()]
    if not both:
        return {}
    subjects = [pair["reference"]["subject"] for pair in both]
    return {
        measure: asdict(
            mean_of([pair["reference"][measure] - pair["none"][measure] for pair in both], subjects)
        )
        for measure in MEASURES
    }


def _table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """For a person: a row per measure, a column per group, means with their intervals."""
    lines = ["".join(["".ljust(10), *(group.rjust(26) for group in groups)])]
    for measure in MEASURES:
        cells = (means[measure] for means in groups.values())
        said = (f"{c['mean']:.3f} ({c['low']:.3f} to {c['high']:.3f})".rjust(26) for c in cells)
        lines.append("".join([measure.ljust(10), *said]))
    return "\n".join(lines)


if __name__ == "__main__":
    finish(main)
