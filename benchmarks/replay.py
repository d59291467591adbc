"""How long a replay of other thresholds takes over the facts of a large corpus.

`python -m benchmarks.replay 1000000`: a CSV of so many rows and a ledger of all measures of the
house, in parts of 5,000 rows as a run leaves them: random numbers in the stages' own columns, masks
and embeddings as large as real ones, and a stage knows only the clips that the ones before let
pass. Then, in a process of its own, what `whatif` does: parts off the disk, two replays, the flips.
Once with the parts put out of the page cache before (cold), then ROUNDS times without (warm, which
the bar is for: a disk is no part of this code). Reading the manifest is a figure of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import provenance
from jobs.curation import look_at
from jobs.house import House
from jobs.settings import CorpusSettings, Run
from jobs.whatif import describe
from pipeline.clip import clip_id
from pipeline.filters import Filter, FilterChange, merge
from pipeline.ledger import Ledger
from pipeline.neighbours import NEAR_DUPLICATE
from pipeline.stage import Source
from pipeline.storage import write
from pipeline.verdicts import funnel

FOLDER = Path("runs/replay")
PART = 5_000
ROUNDS = 5
MASK_BYTES = 2_000
EMBEDDING = 768
FAILED = 0.005
BAR_S, BAR_GB = 2.0, 2.0
CAPTION = "The video shows a red fox that walks slowly over a wide field of snow. " * 4
PACKAGES = ("numpy", "pyarrow")
TRIED = {
    "probe": {"short_side": FilterChange(min=720)},
    "motion": {"top5": FilterChange(min=0.02)},
}
"""One filter loosened, so that clips come out pending, and one tightened."""


def main() -> int:
    """Writes benchmarks/results/replay.json; 1 when a bar is missed."""
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(_measure(int(sys.argv[2]))))
        return 0
    rows = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    written = build(rows)
    command = [sys.executable, "-m", "benchmarks.replay", "measure", str(rows)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = json.loads(said.splitlines()[-1])
    passed = figures["warm_s"] < BAR_S and figures["peak_gb"] < BAR_GB
    bars = {"seconds": BAR_S, "gb": BAR_GB, "passed": passed}
    print(json.dumps(figures, indent=1))
    print(provenance.write("replay", PACKAGES, {"bars": bars, "rows": rows, **written, **figures}))
    return 0 if passed else 1


def _measure(rows: int) -> dict[str, object]:
    """In this process: the manifest, then the replays. Memory is the whole process's."""
    started = time.perf_counter()
    house = house_of(rows)
    figures: dict[str, object] = {"manifest_s": time.perf_counter() - started}
    figures["after_manifest_gb"] = _peak_gb()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    rounds = []
    _forget(house)
    said: list[str] = []
    for _ in range(1 + ROUNDS):
        seconds, said = _whatif(_again(house))
        rounds.append(seconds)
    total, read, judged, cpu = zip(*rounds, strict=True)
    return figures | {
        "cold_s": total[0],
        "cold_read_s": read[0],
        "warm_s": statistics.median(total[1:]),
        "warm_read_s": statistics.median(read[1:]),
        "warm_join_and_judge_twice_s": statistics.median(judged[1:]),
        "warm_cpu_s": statistics.median(cpu[1:]),
        "peak_gb": _peak_gb(),
        "said": said,
    }


def _whatif(house: House) -> tuple[tuple[float, float, float, float], list[str]]:
    """Seconds in all, of reading, of judging twice, of all cores; and what is said."""
    started, spent = time.perf_counter(), time.process_time()
    filters = merge(house.curation.filters, TRIED)
    replay = house.facts(filters)
    read = time.perf_counter()
    before, after = replay.judge(house.curation.filters), replay.judge(filters)
    judged = time.perf_counter()
    changes = describe(before, after).partition("\n\n")[0]  # without the clips
    done = time.perf_counter()
    cpu = time.process_time() - spent
    return (done - started, read - started, judged - read, cpu), [
        *funnel(after, house.measures).splitlines(),
        *changes.splitlines(),
    ]


def house_of(rows: int) -> House:
    folder = FOLDER / str(rows)
    corpus = CorpusSettings(str(folder / "clips.csv"), str(folder))
    return look_at(Run(out=str(folder / "run"), corpus=corpus))


def _again(house: House) -> House:
    """The same run with nothing read of its ledger."""
    url = house.curation.ledger.folder("probe").rsplit("/", 2)[0]
    ledger = Ledger(url, house.curation.stages)
    return replace(house, curation=replace(house.curation, ledger=ledger))


def _forget(house: House) -> None:
    """Puts the parts out of the page cache."""
    for stage in house.measures:
        for part in Path(house.curation.ledger.folder(stage.name)).glob("*.parquet"):
            with part.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peak_gb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


def build(rows: int) -> dict[str, object]:
    """The corpus and its facts, once; what was written."""
    folder = FOLDER / str(rows)
    note = folder / "written.json"
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        names = [f"source{n // 40:07d}_{n % 40}_{n}to{n + 120}.mp4" for n in range(rows)]
        with (folder / "clips.csv").open("w") as file:
            file.write("video,caption,aesthetic score,motion score,fps\n")
            for n, name in enumerate(names):
                words = (
                    "The video shows a red fox that walks slowly over a wide field of snow. " * 4
                )
                file.write(f"{name},{words},{5 + n % 300 / 100},{n % 161},24\n")
        house = house_of(rows)
        clips = pa.array([clip_id(name) for name in names])
        written = {}
        for stage in house.measures:
            written[stage.name] = len(clips)
            clips = _facts(house, stage, clips)
        note.write_text(json.dumps({"ledger_rows": written}))
    return json.loads(note.read_text())


def _facts(house: House, stage: Source, clips: pa.Array) -> pa.Array:
    """Writes facts of these clips, in random order; those that the stage lets pass."""
    rng = np.random.default_rng(len(clips))
    clips = clips.take(pa.array(rng.permutation(len(clips))))
    filters, folder = (
        house.curation.filters.get(stage.name, {}),
        house.curation.ledger.folder(stage.name),
    )
    left = []
    for number, start in enumerate(range(0, len(clips), PART)):
        some = clips.slice(start, PART)
        failed = rng.random(len(some)) < FAILED
        words = pa.array(np.full(len(some), "partial"), mask=~failed)
        columns = dict(_columns(stage, filters, rng, len(some)))
        table = pa.table({"clip_id": some, "code": words, "message": words, **columns})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write(f"{folder}/part-{number:06d}-0.parquet", sink.getvalue().to_pybytes())
        passed = ~failed
        for name, limit in filters.items():
            values = pa.chunked_array([columns[name]])
            absent = ~np.asarray(values.is_valid()) & (limit.absent == "pass")
            passed &= limit.off | limit.accepts_each(values) | absent
        left.append(some.filter(pa.array(passed)))
    return pa.concat_arrays(left)


def _columns(
    stage: Source, filters: Mapping[str, Filter], rng: np.random.Generator, rows: int
) -> Iterator[tuple[str, pa.Array]]:
    """Values of the stage's types, most of which its filters let pass."""
    if stage.name == NEAR_DUPLICATE:
        yield from _pairs(rng, rows).items()
        return
    for field in stage.columns:
        limit, kind = filters.get(field.name, Filter()), field.type
        if field.name == "embedding":
            flat = rng.standard_normal(rows * EMBEDDING, np.float32).astype(np.float16)
            ends = np.arange(0, len(flat) + 1, EMBEDDING, dtype=np.int32)
            yield field.name, pa.ListArray.from_arrays(ends, pa.array(flat).cast(kind.value_type))
        elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
            low = limit.min if limit.min is not None else (limit.max or 1.0) - 1.0
            high = limit.max if limit.max is not None else low + max(abs(low), 1.0)
            spread = 0.05 * (high - low) if limit != Filter() else 0.0
            numbers = rng.uniform(low - spread, high + spread, rows)
            yield field.name, pa.array(numbers).cast(kind, safe=False)
        elif pa.types.is_boolean(kind):
            yield field.name, pa.array(rng.random(rows) < 0.97)
        elif pa.types.is_string(kind):
            yield field.name, _texts(field.name, limit, rng, rows)
        else:
            yield field.name, pa.nulls(rows, kind)


def _pairs(rng: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    """One clip in twenty has one neighbour."""
    has = rng.random(rows) < 0.05
    ends = pa.array(np.concatenate([[0], np.cumsum(has)]), pa.int32())
    cosine = rng.uniform(0.9, 1.0, int(has.sum()))
    nearest = np.zeros(rows)
    nearest[has] = cosine
    others = pa.array(rng.integers(0, rows, len(cosine)), pa.int32())
    return {
        "similarity": pa.array(nearest, mask=~has),
        "others": pa.ListArray.from_arrays(ends, others),
        "similarities": pa.ListArray.from_arrays(ends, pa.array(cosine)),
    }


def _texts(name: str, limit: Filter, rng: np.random.Generator, rows: int) -> pa.Array:
    if name == "mask_rle":
        flat = rng.integers(48, 111, rows * MASK_BYTES, np.uint8).tobytes()
        ends = np.arange(0, len(flat) + 1, MASK_BYTES, dtype=np.int32)
        return pa.StringArray.from_buffers(rows, pa.py_buffer(ends.tobytes()), pa.py_buffer(flat))
    words = [*map(str, limit.one_of or ("fox", "field")), "something else"]
    weights = np.full(len(words), 0.9 / (len(words) - 1))
    return pa.array(words).take(pa.array(rng.choice(len(words), rows, p=[*weights[:-1], 0.1])))


if __name__ == "__main__":
    sys.exit(main())
