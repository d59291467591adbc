"""Where the time of the reference backends goes: networks of full size with random weights.

Each stage by itself, on rendered clips: seconds a clip to decode its frames (one decoder), to move
them to the device, and for all else, which is the network with what stands around it. Where there
is a GPU, also a worker with decoders of its own: clips/s of one GPU, and how long it waited.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks import footage, full_size, provenance
from pipeline.clip import Clip, Failed
from pipeline.decoder import Decoder
from pipeline.frames import Frames, joined
from pipeline.host import Host
from pipeline.stage import Stage
from pipeline.work import WAITING, Limits, Task, Unit, Work
from stages.entities import Entities
from stages.networks.placement import Placement

PACKAGES = ("torch", "torchvision", "transformers", "xgrammar", "av", "decord", "numpy")
CAPTION = "A red ball rolls slowly over the wooden floor of an empty room."
STAGES: dict[str, Callable[[Path, full_size.Dtype], Stage]] = {
    "appearance": full_size.appearance,
    "motion": full_size.motion,
    "segment": full_size.segment,
    "entities": full_size.entities,
}
LIMITS = Limits(measure_s=1800, memory_gib=20)


def main() -> int:
    """Measures, prints, writes benchmarks/results/networks.json."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    # A clip takes a core up to a minute in one network, and a GPU well below a second.
    parser.add_argument("--clips", type=int, default=24 if on_gpu else 2, help="at most 24")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--decoders", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        clips = _clips(Path(folder), given.clips)
        for name in given.stages:
            for dtype in _dtypes(name, on_gpu):
                with tempfile.TemporaryDirectory(prefix="bench-") as weights:
                    stage = STAGES[name](Path(weights), dtype)
                    row = {"stage": name, "dtype": dtype, **_alone(stage, clips)}
                    if on_gpu:
                        row |= _fed(stage, clips, given.decoders)
                rows.append(row)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    figures: dict[str, Any] = {
        "weights": "random, networks of full size: CLIP ViT-L/14, raft_large, Grounding DINO "
        "Swin-T with SAM ViT-B, Qwen2.5 of 0.5B (7B does not fit beside the rest)",
        "clips": f"{len(clips)} rendered ones of 4 s, 1080p",
        "clips_per_s_per_gpu": "in each row" if on_gpu else "not measured on a GPU",
        "rows": rows,
    }
    print(provenance.write("networks", PACKAGES, figures))
    return 0


def _dtypes(stage: str, on_gpu: bool) -> Sequence[full_size.Dtype]:
    if not on_gpu:
        return ("f32",)
    return ("bf16",) if stage == "entities" else ("f32", "f16")


def _clips(folder: Path, count: int) -> list[Clip]:
    paths = footage.render_clips(folder, count)
    return [Clip(path.stem, path.name, str(path), CAPTION, path.stem) for path in paths]


def _tasks(stage: Stage, clips: Sequence[Clip]) -> list[Task]:
    """With what the caption says where it is needed, as the weight-free backend reads it."""
    (found,) = Entities().measure(clips[:1], [None], [{}])
    assert not isinstance(found, Failed)
    facts = {need: found.values for need in stage.needs}
    return [Task(clip, facts) for clip in clips]


def _alone(stage: Stage, clips: Sequence[Clip]) -> dict[str, Any]:
    """One after the other: frames decoded, then measured, in this process."""
    started = time.monotonic()
    stage.setup()
    setup_s = time.monotonic() - started
    frames, decode_s = _decoded(stage, clips)
    tasks = _tasks(stage, clips)
    size = stage.resources.batch
    with _transfers() as moved:
        began = time.monotonic()
        outcomes = [
            outcome
            for at in range(0, len(clips), size)
            for outcome in stage.measure(
                clips[at : at + size],
                frames[at : at + size],
                [task.facts for task in tasks[at : at + size]],
            )
        ]
        measure_s = time.monotonic() - began
    parts = {"decode": decode_s, "transfer": sum(moved), "network": measure_s - sum(moved)}
    total = sum(parts.values())
    return {
        "clips": len(clips),
        "failed": [outcome.code for outcome in outcomes if isinstance(outcome, Failed)],
        "batch": size,
        "setup_s": round(setup_s, 1),
        "s_per_clip": {part: round(s / len(clips), 3) for part, s in parts.items()},
        "share": {part: round(s / total, 3) for part, s in parts.items()},
        "peak_gpu_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if torch.cuda.is_available()
        else None,
    }


def _decoded(stage: Stage, clips: Sequence[Clip]) -> tuple[list[Frames | None], float]:
    """Their frames, and the seconds that one decoder took for them."""
    if stage.frames is None:
        return [None] * len(clips), 0.0
    decoder = Decoder(LIMITS.decode_s, 8 << 30)
    decoder.decode(clips[0].path, stage.frames.each())  # it has started, and the file is in memory
    started = time.monotonic()
    found: list[Frames | None] = []
    for clip in clips:
        decoded = decoder.decode(clip.path, stage.frames.each())
        assert not isinstance(decoded, Failed), decoded
        found.append(joined(stage.frames, iter(decoded)))
    seconds = time.monotonic() - started
    decoder.close()
    return found, seconds


def _fed(stage: Stage, clips: Sequence[Clip], decoders: int) -> dict[str, Any]:
    """A worker as a pass has it, once warm: one unit of the clips, four times over."""
    host = Host(Work((stage,), {}, measure_all=True, limits=LIMITS), decoders)
    again = [replace(clip, clip_id=f"{clip.clip_id}-{n}") for n in range(4) for clip in clips]
    try:
        host.run(Unit(0, tuple(_tasks(stage, clips))), lambda: False)
        result = host.run(Unit(1, tuple(_tasks(stage, again))), lambda: False)
    finally:
        host.close()
    return {
        "decoders": decoders,
        "clips_per_s_per_gpu": round(len(result.outcomes) / result.seconds, 2),
        "waited_for_frames": round(result.spent[WAITING] / result.seconds, 3),
    }


@contextmanager
def _transfers() -> Iterator[list[float]]:
    """Seconds of each move to the device; the GPU is waited for, so that they count here."""
    seconds: list[float] = []
    load = Placement.load

    def timed(placement: Placement, pictures: np.ndarray) -> torch.Tensor:
        _wait()
        started = time.monotonic()
        tensor = load(placement, pictures)
        _wait()
        seconds.append(time.monotonic() - started)
        return tensor

    with patch.object(Placement, "load", timed):
        yield seconds


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
