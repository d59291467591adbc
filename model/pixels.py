"""Pictures between what people see, uint8 RGB, and what codecs take and give, -1 to 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def from_rgb(images: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 RGB -> (1, 3, N, H, W) fp32 within [-1, 1], a copy."""
    return torch.tensor(images).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_rgb(video: Tensor) -> np.ndarray:
    """(3, N, H, W) within [-1, 1] -> (N, H, W, 3) uint8 RGB, rounded as diffusers rounds."""
    shown = (video * 0.5 + 0.5).clamp(0, 1) * 255
    return shown.round().to("cpu", torch.uint8).permute(1, 2, 3, 0).numpy()
