"""What is left of a step whose loss or gradient is not finite, so that it can be done again alone.

`diverged/step-<number>` of a training's folder holds the weights as they stood before the step,
`worker-<rank>.safetensors` with what each worker was given, and `report.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline import storage
from pipeline.errors import InputError
from training.checkpoint import Weights
from training.step import DivergedError, Example

FOLDER = "diverged"
_REPORT = "report.json"
_TENSORS = ("latents", "noise", "text", "reference", "entity")
"""Of an example: the last two may be missing."""

Batches = Sequence[Sequence[Example]]


@dataclass(frozen=True, slots=True)
class Given:
    """What a worker was given in a step, counted from 1. position: of its first sample in the run,
    counted from 0.
    """

    step: int
    rank: int
    position: int
    batches: Batches


def dump(folder: Path, error: DivergedError, given: Given, weights: Weights | None) -> Path:
    """Writes what a worker knows; weights: None where another one writes them. Returns the place.

    Raises InputError on a full disk.
    """
    place = folder / FOLDER / f"step-{given.step:08d}"
    examples = [example for batch in given.batches for example in batch]
    tensors = {
        f"{number}.{name}": tensor.clone(memory_format=torch.contiguous_format)
        for number, example in enumerate(examples)
        for name in _TENSORS
        if (tensor := getattr(example, name)) is not None
    }
    told = {
        "keys": [example.key for example in examples],
        "timesteps": [example.timestep for example in examples],
        "position": given.position,
        "batches": [len(batch) for batch in given.batches],
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(tensors, place / _name(given.rank), {"told": json.dumps(told)})
        if weights is not None:
            weights.save(place)
    except (OSError, SafetensorError) as problem:
        raise InputError(f"{place}: cannot be written: {problem}; {error}") from problem
    if weights is not None:
        report = {
            "step": given.step,
            "error": str(error),
            "loss": _said(error.loss),
            "gradient_norm": _said(error.norm),
            "gradient_norms": {name: _said(norm) for name, norm in error.norms.items()},
        }
        storage.write(str(place / _REPORT), json.dumps(report, indent=1).encode())
    return place


def read(place: Path) -> list[Given]:
    """What every worker was given, by rank. Raises InputError."""
    try:
        step = json.loads((place / _REPORT).read_text())["step"]
        files = sorted(place.glob(_name("*")), key=_rank)
        return [_read(file, step) for file in files]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{place}: found no step that can be done again: {error}; wanted a folder below "
            f"'{FOLDER}' of a training"
        ) from error


def _read(file: Path, step: int) -> Given:
    with safe_open(file, "pt") as opened:
        told, names = json.loads(opened.metadata()["told"]), set(opened.keys())

        def there(number: int, name: str) -> Tensor | None:
            name = f"{number}.{name}"
            return opened.get_tensor(name) if name in names else None

        examples = [
            Example(
                key=key,
                latents=opened.get_tensor(f"{number}.latents"),
                noise=opened.get_tensor(f"{number}.noise"),
                timestep=told["timesteps"][number],
                text=opened.get_tensor(f"{number}.text"),
                reference=there(number, "reference"),
                entity=there(number, "entity"),
            )
            for number, key in enumerate(told["keys"])
        ]
    left = iter(examples)
    batches = [[next(left) for _ in range(size)] for size in told["batches"]]
    return Given(step, _rank(file), told["position"], batches)


def _name(rank: int | str) -> str:
    return f"worker-{rank}.safetensors"


def _rank(file: Path) -> int:
    return int(file.stem.removeprefix("worker-"))


def _said(number: float) -> float | str:
    """JSON has no other word for what is not finite."""
    return number if math.isfinite(number) else str(number)
