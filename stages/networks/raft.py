"""RAFT: where each pixel of one picture lies in the next, and how much that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.models import optical_flow

from pipeline.weights import Weights, find
from stages.networks.placement import Placement
from stages.networks.stored import reading, saved_state

MIN_SIDE_PX = 128
"""RAFT halves an eighth of the picture three times and wants two pixels there."""

Network = Literal["raft_large", "raft_small"]


class Raft:
    """torchvision's RAFT, loaded at once. Raises InputError when its weights are not there.

    updates: how often the flow is refined. In half precision the convolutions and products run in
    it; weights and coordinates stay float32, as torchvision's sampling demands.
    """

    def __init__(
        self, network: Network, weights: Weights, updates: int, placement: Placement
    ) -> None:
        file = find(weights)
        model = getattr(optical_flow, network)(weights=None)
        with reading(weights.setting, file, f"a state dict of torchvision's {network}"):
            model.load_state_dict(saved_state(file, weights.setting))
        self._model = model.to(placement.torch_device).eval()
        self._updates = updates
        self._placement = placement

    @torch.inference_mode()
    def walks(
        self,
        pictures: np.ndarray,
        pairs: Sequence[tuple[int, int]],
        seconds: Sequence[float],
        moving: float,
    ) -> np.ndarray:
        """(P, 3) float64: mean, top5 and moving_share of each pair, as `statistics` has them.

        pictures: (N, H, W, 3) uint8 RGB; pairs: numbers of two of them; seconds: between these.
        """
        placement = self._placement
        loaded = placement.load(pictures)
        first, second = torch.tensor(pairs, device=placement.torch_device).unbind(1)
        apart = torch.tensor(seconds, device=placement.torch_device)
        found = [
            statistics(flow_per_second(self.flow(loaded[a], loaded[b]), s), moving)
            for a, b, s in zip(
                *(x.split(placement.batch) for x in (first, second, apart)), strict=True
            )
        ]
        return torch.cat(found).cpu().numpy()

    @torch.inference_mode()
    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """(P, 3, H, W) uint8 twice -> (P, 2, H, W) float32: right and down, in pixels."""
        height, width = first.shape[-2:]
        sides = (*_halves(-width % 8), *_halves(-height % 8))
        placement = self._placement
        pair = [pad(x.float() / 127.5 - 1, sides, mode="replicate") for x in (first, second)]
        half = placement.dtype != "f32"
        with torch.autocast(placement.torch_device.type, placement.torch_dtype, enabled=half):
            flow = self._model(*pair, num_flow_updates=self._updates)[-1].float()
        left, _, top, _ = sides
        return flow[..., top : top + height, left : left + width]


def flow_per_second(flow: Tensor, seconds: Tensor) -> Tensor:
    """How far each pixel goes, as a share of the frame's diagonal per second.

    flow: (P, 2, H, W) pixels; seconds: (P,) between the two frames of a pair. Returns (P, H, W).
    The unit is ours, so that sizes and rates compare.
    """
    height, width = flow.shape[-2:]
    diagonal = math.hypot(height, width)
    return torch.linalg.vector_norm(flow, dim=1) / (diagonal * seconds[:, None, None])


def statistics(lengths: Tensor, moving: float) -> Tensor:
    """(P, H, W) lengths -> (P, 3) float64: mean, mean of the largest 5 %, share at `moving` or up.

    The same as the cpu backend takes of its flow.
    """
    each = lengths.flatten(1)
    fastest = each.topk(max(1, round(each.shape[1] * 0.05)), sorted=False).values
    share = (each >= moving).double().mean(1)
    return torch.stack([each.double().mean(1), fastest.double().mean(1), share], 1)


def _halves(number: int) -> tuple[int, int]:
    return number // 2, number - number // 2
