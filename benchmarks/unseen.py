"""Is the reference used for subjects that were never trained on? Losses, and colours of videos.

`python -m benchmarks.unseen`: a small base and an adapter on it, trained on moving subjects for
some minutes of a CPU, once per seed. `--subjects`, `--steps`, `--layers` and `--batch` make it
larger, on a GPU where there is one (not measured on one).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import provenance
from benchmarks.moving import FRAMES, clip, hues, reference, subject
from model.codec import DctCodec
from model.config import TINY, AdapterConfig, SamplingConfig
from model.extra_frame import open_model
from model.sampling import Conditions, initial_noise, sample
from model.text import TextEncoder, build_tiny
from model.weights import Base, init_tiny_base
from pipeline.bootstrap import mean_of
from training.course import Course, LoopSettings
from training.dataset import Latents
from training.held_out import HeldOutSettings, hold_out, split
from training.measured import NONE
from training.metrics import FILE, TrainingProgress, read_metrics
from training.objective import noise_schedule
from training.step import OptimizerSettings, Training
from training.trainer import Trainer
from training.weights import AdapterWeights, BaseWeights

PACKAGES = ("torch", "diffusers", "transformers", "opencv-python")
TOKENS, DIM = 16, 32
SAMPLED = 50
"""Unseen subjects that videos are sampled of."""


@dataclass(frozen=True, slots=True)
class Size:
    """What is trained. subjects: one clip of each; unseen: the share that is held out."""

    subjects: int
    steps: int
    layers: int
    batch: int
    unseen: float = 0.2


class Subjects:
    """Their latents, by number."""

    def __init__(self, seed: int, count: int, text: Path) -> None:
        self._seed, self._codec = seed, DctCodec()
        captions = sorted({subject(seed, number).caption for number in range(count)})
        build_tiny(str(text), captions, dim=DIM)
        encoder = TextEncoder(str(text), TOKENS)
        self._texts = {caption: encoder.encode([caption])[0].float() for caption in captions}
        self.null_text = encoder.encode([""])[0].float()
        self.sources = [f"subject {number}" for number in range(count)]
        self._read = lru_cache(maxsize=None)(self._made)

    def __getitem__(self, number: int) -> Latents:
        return self._read(number)

    def _made(self, number: int) -> Latents:
        caption = subject(self._seed, number).caption
        return Latents(
            key=self.sources[number],
            source_id=self.sources[number],
            video=self._encoded(clip(self._seed, number)),
            reference=self._encoded(reference(self._seed, number)[None]),
            text=self._texts[caption],
            caption=caption,
            entity=caption.split()[1],
            entity_tokens=(1,),
            made_with={"codec": self._codec.fingerprint(), "text": "tiny"},
        )

    def _encoded(self, images: np.ndarray) -> torch.Tensor:
        pixels = torch.tensor(images).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        return self._codec.encode(pixels).mode()[0].transpose(0, 1).contiguous()

    def decoded(self, latents: torch.Tensor) -> np.ndarray:
        """(B, F, H, W, 3) uint8 RGB of (B, T, C, h, w)."""
        video = self._codec.decode(latents.cpu().transpose(1, 2))
        pixels = ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 4, 1).numpy()


def main() -> int:
    """Writes benchmarks/results/unseen.json; 1 when an interval of the losses holds 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--subjects", type=int, default=300)
    parser.add_argument("--steps", type=int, default=250, help="of the base, and of the adapter")
    parser.add_argument("--layers", type=int, default=TINY.num_layers)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = Size(given.subjects, given.steps, given.layers, given.batch)
    seeds: dict[int, dict[str, float]] = {}
    for seed in given.seeds:
        with TemporaryDirectory() as folder:
            seeds[seed] = _one(seed, size, Path(folder))
        print(seed, {name: round(value, 4) for name, value in seeds[seed].items()}, flush=True)
        figures = {"size": asdict(size), "seeds": dict(sorted(seeds.items()))}
        print(provenance.write("unseen", PACKAGES, figures), flush=True)
    return 0 if all(found["gap_low"] > 0 for found in seeds.values()) else 1


def _one(seed: int, size: Size, folder: Path) -> dict[str, float]:
    """The last held-out losses of one seed, and what was sampled."""
    began = time.process_time()
    samples = Subjects(seed, size.subjects, folder / "text")
    height, width = samples[0].video.shape[2:]
    config = replace(
        TINY,
        num_layers=size.layers,
        text_embed_dim=DIM,
        max_text_seq_length=TOKENS,
        sample_width=width,
        sample_height=height,
        sample_frames=FRAMES,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transformer = init_tiny_base(seed, config)
    base = open_model(transformer).to(device)
    _train(seed, size, samples, base, BaseWeights(base), folder / "base", 1e-3)
    model = open_model(transformer, AdapterConfig(rank=32, alpha=32), seed).to(device)
    weights = AdapterWeights(model, Base("tiny", "", str(seed)), {})
    found = _train(seed, size, samples, model, weights, folder / "adapter", 2e-3)
    found |= _colours(seed, size, samples, model)
    return {**found, "cpu_seconds": round(time.process_time() - began, 1)}


def _train(
    seed: int,
    size: Size,
    samples: Subjects,
    model: Any,
    weights: Any,
    folder: Path,
    rate: float,
) -> dict[str, float]:
    """The last held-out losses by name."""
    adapter = model.adapter is not None
    numbers, aside = split(seed, samples.sources, size.unseen)
    settings = HeldOutSettings(size.unseen, len(aside), 4, every=size.steps)
    held = hold_out(seed, aside, samples.sources, samples.__getitem__, settings, watched=adapter)
    loop = LoopSettings(
        seed=seed,
        steps=size.steps,
        global_batch=size.batch,
        batch=size.batch,
        checkpoint_every=size.steps,
        readers=1,
    )
    course = Course(samples, numbers, held, samples.null_text, with_reference=adapter)
    optimizer = OptimizerSettings(learning_rate=rate, warmup_steps=20)
    training = Training(model, model.optimised_parameters(), noise_schedule(), optimizer)
    trainer = Trainer(folder, training, weights, course, loop, {"seed": seed})
    trainer.run(lambda: 0, lambda left: TrainingProgress(folder.name, left, None))
    first, *_, last = [row for row in read_metrics(folder / FILE) if f"held_out_{NONE}" in row]
    told = {k.removeprefix("held_out_"): v for k, v in last.items() if k.startswith("held_out_")}
    return {**told, "fresh_gap": first.get("held_out_gap", 0.0), "subjects": len(aside)}


def _colours(seed: int, size: Size, samples: Subjects, model: Any) -> dict[str, float]:
    """How much nearer the videos' hues are to the right reference's than to a shuffled one's."""
    _, aside = split(seed, samples.sources, size.unseen)
    chosen = aside[:SAMPLED]
    device = next(model.parameters()).device
    shown = [samples[number] for number in chosen]
    conditions = Conditions(
        torch.stack([one.text for one in shown]).to(device),
        samples.null_text.expand(len(shown), -1, -1).to(device),
        torch.stack([one.reference for one in shown]).to(device),
    )
    noise = initial_noise([1000 * seed + n for n in chosen], shown[0].video.shape).to(device)
    settings = SamplingConfig(steps=25, text_guidance=1.0, reference_guidance=2.0)
    videos = samples.decoded(sample(model, conditions, noise, settings))
    wanted = [hues(reference(seed, number)) for number in chosen]
    right = [_apart(hues(video), own) for video, own in zip(videos, wanted, strict=True)]
    others = wanted[1:] + wanted[:1]
    shuffled = [_apart(hues(video), other) for video, other in zip(videos, others, strict=True)]
    change = mean_of([b - a for a, b in zip(right, shuffled, strict=True)], list(map(str, chosen)))
    nearer = [float(a < b) for a, b in zip(right, shuffled, strict=True)]
    return {
        "videos": len(videos),
        "hue_right": float(np.mean(right)),
        "hue_shuffled": float(np.mean(shuffled)),
        "hue_gap": change.mean,
        "hue_gap_low": change.low,
        "hue_gap_high": change.high,
        "nearer_to_right": float(np.mean(nearer)),
    }


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Half the sum of differences: 0 for the same hues, 1 for none in common."""
    return float(np.abs(one - other).sum() / 2)


if __name__ == "__main__":
    sys.exit(main())
