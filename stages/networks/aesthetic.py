"""LAION's improved aesthetic predictor: a score for an embedding of CLIP ViT-L/14."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pipeline.weights import Weights, find
from stages.networks.stored import reading, saved_state

_KEY = re.compile(r"layers\.(\d+)\.(?:weight|bias)")


class AestheticHead:
    """Linear layers 768-1024-128-64-16-1 with nothing between them: one affine map, in float64.

    So it is multiplied out once. (The dropout between the layers is for training.) The file is a
    state dict with keys `layers.<n>.weight` and `layers.<n>.bias`; other widths are taken as well.
    Source: christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE.pth.
    """

    def __init__(self, weights: Weights) -> None:
        """Raises InputError when the file is not there, or is no such head."""
        file = find(weights)
        state = saved_state(file, weights.setting)
        with reading(weights.setting, file, "an aesthetic head: linear layers to one number"):
            self._weight, self._bias = _multiplied_out(state)

    @property
    def width(self) -> int:
        """How many numbers an embedding has to have."""
        return len(self._weight)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, width), each of length 1 -> (N,) float64 on LAION's scale, about 1..10."""
        return embeddings.astype(np.float64) @ self._weight + self._bias


def _multiplied_out(state: Mapping[str, Tensor]) -> tuple[np.ndarray, float]:
    """(width,) and a number: the layers, last to first, as one."""
    keys = [_KEY.fullmatch(key) for key in state]
    if not keys or None in keys:
        raise ValueError("its keys are not layers.<n>.weight and layers.<n>.bias")
    layers = sorted({int(key[1]) for key in keys if key})
    weight, bias = np.ones((1, 1)), np.zeros(1)
    for layer in reversed(layers):
        bias = bias + weight @ state[f"layers.{layer}.bias"].double().numpy()
        weight = weight @ state[f"layers.{layer}.weight"].double().numpy()
    return weight[0], float(bias[0])
