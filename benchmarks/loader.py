"""Our loader beside webdataset's own reader: the same shards, the same tensors, in one run.

Latents of the paper's size (16x7x60x90 means and deviations, text of 226x4096, f16), random
numbers, in a folder that the page cache holds: what is compared is the work, not the disk. Ours
reads every sample alone, in the full shuffle, by threads, and checks its SHA-256; webdataset reads
shard after shard in their order and checks nothing, in this process and by a DataLoader with as
many workers as we have threads, of which the faster counts. Both end at fp32 tensors. A second pair
of figures adds what chance adds to a sample in training: its draw from the posterior, and the
noise. On a machine that does other things CPU time says more than the clock.

    python -m benchmarks.loader [samples]
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import DataLoader
from webdataset.compat import WebDataset

from benchmarks import provenance
from pipeline import shards
from pipeline.clip import clip_id
from pipeline.latents_file import FORMAT
from pipeline.sample_tar import LATENTS, pack
from training.ahead import read_ahead
from training.course import Course, LoopSettings
from training.dataset import LatentDataset
from training.held_out import HeldOutSettings, hold_out, split
from training.order import ShuffleSettings, epoch_order, normal

SAMPLES = int(sys.argv[1]) if sys.argv[1:] else 240  # a GB
PER_SHARD, READERS, AHEAD, ROUNDS, EPOCHS = 40, 2, 32, 5, 3
BAR_SPEED, BAR_GROWTH = 1.0, 0.05
PACKAGES = ("torch", "safetensors", "webdataset", "numpy", "pyarrow")


def main() -> int:
    """Measures, prints, writes benchmarks/results/loader.json; 1 when a bar is missed."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print(f"writing {SAMPLES} samples", flush=True)
        url = _written(Path(folder))
        dataset = LatentDataset(url)
        course = _course(dataset)
        speed = _speed(course, dataset, sorted(map(str, Path(url).glob("*.tar"))))
        memory = _memory(course)
    growth = memory["rss_mb"][-1] / memory["rss_mb"][0] - 1
    passed = speed["ratio_read"] >= BAR_SPEED and growth <= BAR_GROWTH
    figures = {
        "samples": SAMPLES,
        "bytes_per_sample": memory.pop("bytes_per_sample"),
        "readers": READERS,
        **speed,
        **memory,
        "memory_growth": round(growth, 4),
        "shards_touched": _touched(),
        "bars": {"ratio_read": BAR_SPEED, "memory_growth": BAR_GROWTH},
        "passed": passed,
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(provenance.write("loader", PACKAGES, figures))
    return 0 if passed else 1


def _written(folder: Path) -> str:
    """Shards of random latents; returns their url."""
    chance = np.random.default_rng(0)
    (folder / "packed").mkdir()

    def half(*shape: int) -> Tensor:
        return torch.from_numpy(chance.random(shape, np.float32).astype(np.float16))

    rows = []
    for number in range(SAMPLES):
        key = clip_id(f"{number}.mp4")
        parts = {
            "video": half(16, 7, 60, 90),
            "video_std": half(16, 7, 60, 90),
            "reference": half(16, 1, 60, 90),
            "text": half(226, 4096),
        }
        about = {"format": FORMAT, "key": key, "caption": "a ball", "entity": "ball"}
        about |= {"entity_tokens": "[1]", "codec": "random", "text": "random"}
        packed = pack(key, {LATENTS[0]: save(parts, about)})
        (folder / "packed" / key).write_bytes(packed)
        sha = hashlib.sha256(packed).hexdigest()
        row = {"clip_id": key, "source_id": f"source {number}", "name": key}
        rows.append({**row, "address": sha, "sha256": sha})
    url = str(folder / "latents")
    shards.build(pa.Table.from_pylist(rows), str(folder / "packed"), url, PER_SHARD)
    return url


def _course(dataset: LatentDataset) -> Course:
    numbers, aside = split(0, dataset.source_ids, 0.1)
    held = HeldOutSettings(samples=2, draws=1)
    return Course(
        dataset,
        numbers,
        hold_out(0, aside, dataset.source_ids, dataset.__getitem__, held),
        torch.zeros(226, 4096),
        with_reference=True,
    )


def _speed(course: Course, dataset: LatentDataset, tars: list[str]) -> dict[str, Any]:
    """Samples a second of every reader, in alternating rounds, and medians of the ratios."""
    order = epoch_order(0, 0, SAMPLES, ShuffleSettings()).tolist()
    examples = partial(course.example, LoopSettings())
    readers: Mapping[str, Callable[[], Iterable[Any]]] = {
        "ours_read": lambda: read_ahead(dataset.__getitem__, order, READERS, AHEAD),
        "webdataset_read": lambda: _webdataset(tars, _tensors),
        "webdataset_read_workers": lambda: _with_workers(tars, _tensors),
        "ours_example": lambda: read_ahead(examples, range(SAMPLES), READERS, AHEAD),
        "webdataset_example": lambda: _webdataset(tars, _example),
        "webdataset_example_workers": lambda: _with_workers(tars, _example),
    }
    rounds, spent = [], []
    for number in range(ROUNDS + 1):
        names = list(readers)[:: 1 if number % 2 else -1]
        found = {name: _measured(readers[name]) for name in names}
        if number:  # the first one warms up
            rounds.append({name: found[name][0] for name in readers})
            spent.append({name: found[name][1] for name in readers if "workers" not in name})
            print("  ".join(f"{name} {value:.0f}/s" for name, value in rounds[-1].items()))

    def ratio(what: str) -> float:
        theirs = (f"webdataset_{what}", f"webdataset_{what}_workers")
        ratios = [each[f"ours_{what}"] / max(each[name] for name in theirs) for each in rounds]
        return round(statistics.median(ratios), 2)

    medians = {name: round(statistics.median(r[name] for r in rounds), 1) for name in readers}
    return {
        "samples_per_s": medians,
        "cpu_ms_per_sample": {
            name: round(1000 * statistics.median(each[name] for each in spent), 2)
            for name in spent[0]
        },
        "ratio_read": ratio("read"),
        "ratio_example": ratio("example"),
        "rounds": [{name: round(value, 1) for name, value in each.items()} for each in rounds],
    }


def _measured(reader: Callable[[], Iterable[Any]]) -> tuple[float, float]:
    """Samples a second, and seconds of this process's CPU time for each."""
    began, spent = time.perf_counter(), time.process_time()
    count = sum(1 for _ in reader())
    if count != SAMPLES:
        raise RuntimeError(f"{count} of {SAMPLES} samples came")
    taken = time.perf_counter() - began
    return SAMPLES / taken, (time.process_time() - spent) / SAMPLES


def _webdataset(tars: list[str], decoded: Callable[[Mapping[str, Any]], Any]) -> Any:
    return WebDataset(tars, shardshuffle=False).map(decoded)


def _with_workers(tars: list[str], decoded: Callable[[Mapping[str, Any]], Any]) -> DataLoader:
    return DataLoader(_webdataset(tars, decoded), batch_size=None, num_workers=READERS)


def _tensors(sample: Mapping[str, Any]) -> dict[str, Tensor]:
    """As our dataset has them: fp32, latents with their frames first."""
    parts = load(sample["safetensors"])
    text = parts.pop("text").float()
    return {
        "text": text,
        **{name: each.transpose(0, 1).contiguous().float() for name, each in parts.items()},
    }


def _example(sample: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same with what chance adds."""
    parts, key = _tensors(sample), sample["__key__"]
    shape = parts["video"].shape
    drawn = torch.from_numpy(normal(f"posterior/{key}", shape))
    latents = torch.addcmul(parts["video"], parts.pop("video_std"), drawn)
    return {**parts, "video": latents, "noise": torch.from_numpy(normal(f"noise/{key}", shape))}


def _memory(course: Course) -> dict[str, Any]:
    """Resident memory at the end of each epoch of examples."""
    process, count = psutil.Process(), len(course.numbers)
    read, rss = partial(course.example, LoopSettings()), []
    for epoch in range(EPOCHS):
        positions = range(epoch * count, (epoch + 1) * count)
        for _ in read_ahead(read, positions, READERS, AHEAD):
            pass
        rss.append(round(process.memory_info().rss / 2**20, 1))
    example = read(0)
    parts = (example.latents, example.latents, example.reference, example.text)
    size = sum(part.numel() * 2 for part in parts if part is not None)
    return {"rss_mb": rss, "bytes_per_sample": size}


def _touched() -> dict[str, float]:
    """Mean number of shards that 96 samples in a row lie in: 100,000 of them, 1,000 to a shard."""
    shuffles = {
        "full": ShuffleSettings(),
        "block 64, window 16": ShuffleSettings(64, 16),
        "block 250, window 4": ShuffleSettings(250, 4),
    }
    touched = {}
    for name, shuffle in shuffles.items():
        lies_in = epoch_order(0, 0, 100_000, shuffle) // 1000
        windows = (lies_in[at : at + 96] for at in range(0, 96_000, 96))
        touched[name] = round(statistics.mean(len(set(each.tolist())) for each in windows), 1)
    return touched


if __name__ == "__main__":
    sys.exit(main())
