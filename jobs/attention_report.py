"""What sampling saw of a video, as files beside it: numbers per step and layer, and maps."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.sampling import Step

NUMBERS, MAPS = "attention.json", "attention.png"
_FRAME_PX = 48  # ours: wide enough to see a subject, 50 steps of 7 frames are a page
_GAP_PX = 4


def told(step: Step) -> dict[str, float]:
    """Of one step, for the video's record."""
    values: dict[str, float] = {"number": step.number, "timestep": step.timestep}
    if step.saw is not None:
        values["weight"] = round(float(step.saw.weight.mean()), 5)
        if step.saw.covered is not None:
            values["covered"] = round(step.saw.covered, 5)
    return values


def files(steps: Sequence[Step], grid: tuple[int, int, int]) -> Mapping[str, bytes]:
    """By name; none where sampling saw nothing, and no maps without an entity.

    grid: latent frames, rows and columns of patches. `weight` holds the share of the video's
    attention on the reference, a row per step and in it a number per layer.
    """
    seen = [step for step in steps if step.saw is not None]
    if not seen:
        return {}
    numbers: dict[str, Any] = {
        "timesteps": [step.timestep for step in seen],
        "weight": [_rounded(step.saw.weight.mean(1)) for step in seen if step.saw],
        "covered": [step.saw.covered for step in seen if step.saw],
        "warnings": {
            step.number: step.saw.warning for step in seen if step.saw and step.saw.warning
        },
    }
    beside = {NUMBERS: json.dumps(numbers, indent=1).encode()}
    mapped = [step for step in seen if step.saw and step.saw.activation is not None]
    if not mapped:
        return beside
    picture = io.BytesIO()
    Image.fromarray(sheet(mapped, grid)).save(picture, "PNG")
    return {**beside, MAPS: picture.getvalue()}


def sheet(steps: Sequence[Step], grid: tuple[int, int, int]) -> np.ndarray:
    """(height, width) uint8: a row per step, of the first video: A_e's frames, then R's.

    A_e is stretched from its frame's least to its greatest; R is black and white, or where layers
    have their own, the share of them. With an entity per reference they follow one another.
    """
    rows: list[np.ndarray] = []
    for step in steps:
        if step.saw is None or step.saw.activation is None:
            continue
        maps = _stretched(step.saw.activation[0].float().unflatten(1, grid))  # (e, T, h, w)
        if step.saw.region is not None:
            region = step.saw.region.float()
            inside = region.mean(0) if region.dim() == 4 else region  # (B, e, V)
            maps = torch.cat([maps, inside[0].unflatten(1, grid)])
        rows.append(_row(maps))
    widest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]))) for row in rows])


def _stretched(maps: Tensor) -> Tensor:
    """(e, T, h, w), each frame to 0..1; a flat one is 0."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def _row(maps: Tensor) -> np.ndarray:
    """(k, T, h, w) in 0..1 -> (height, width) uint8, with whole pixels for every patch."""
    size = max(1, _FRAME_PX // maps.shape[3])
    pixels = (maps * 255).round().to(torch.uint8).cpu().numpy()
    large = pixels.repeat(size, axis=2).repeat(size, axis=3)
    framed = np.pad(large, ((0, 0), (0, 0), (0, _GAP_PX), (0, _GAP_PX)), constant_values=64)
    return np.concatenate([frame for some in framed for frame in some], axis=1)


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
