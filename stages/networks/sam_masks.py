"""From pictures and boxes to masks, whichever implementation of SAM runs in between.

B pictures; S the side of the square that the network sees; s of its masks, S / 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as pixel

from stages.networks.placement import Placement
from stages.networks.sam import Cutout

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's
_OFFSET = 1.0  # of the two thresholds, in logits: SAM's mask generator


class Sam(Protocol):
    """One implementation. side_px: S; model: what moves to the device."""

    side_px: int
    model: nn.Module

    def encode(self, pixels: Tensor) -> Tensor:
        """What is seen, (B, C, S/16, S/16). pixels: (B, 3, S, S), normalised."""
        ...

    def decode(self, seen: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """One mask a box, as logits (B, s, s), and its predicted IoU (B,).

        boxes: (B, 4) corners in pixels of the square.
        """
        ...


class BatchedCutter:
    """The `Cutter` that `load_cutter` makes."""

    def __init__(self, network: Sam, placement: Placement) -> None:
        self._network = network
        self._placement = placement
        network.model.eval().requires_grad_(False).to(placement.torch_device)

    def cut(
        self,
        pictures: Sequence[np.ndarray],
        boxes: Sequence[tuple[float, float, float, float]],
    ) -> list[Cutout]:
        """As `Cutter.cut`.

        Of the network's masks the one that its authors advise where a prompt is not ambiguous, and
        that Grounded-SAM's demo takes of a box. The three others are for a click: a whole, its
        part, a part of that.
        """
        out: list[Cutout] = []
        for start in range(0, len(pictures), self._placement.batch):
            chosen = slice(start, start + self._placement.batch)
            out += self._cut(pictures[chosen], boxes[chosen])
        return out

    @torch.inference_mode()
    def _cut(
        self,
        pictures: Sequence[np.ndarray],
        boxes: Sequence[tuple[float, float, float, float]],
    ) -> list[Cutout]:
        """Half precision, by autocast, is for the encoder alone, which is all but a few per cent of
        the work: the decoder tells places apart by sines of many periods, which half would blur.
        """
        place, side = self._placement, self._network.side_px
        pixels = torch.cat([squared(place.load(picture[None]), side) for picture in pictures])
        sizes = [network_size(picture.shape[:2], side) for picture in pictures]
        scales = torch.tensor([(width, height, width, height) for height, width in sizes])
        corners = (torch.tensor(boxes) * scales).to(pixels.device)
        half = place.torch_dtype != torch.float32
        with torch.autocast(place.torch_device.type, place.torch_dtype, enabled=half):
            seen = self._network.encode(pixels)
        logits, ious = self._network.decode(seen.float(), corners)
        out: list[Cutout] = []
        for picture, size, found, iou in zip(pictures, sizes, logits, ious, strict=True):
            mask = enlarged(found, size, picture.shape[:2], side)
            out.append(Cutout((mask > 0).cpu().numpy(), float(iou), stability(mask)))
        return out


def network_size(native: Sequence[int], side: int) -> tuple[int, int]:
    """(height, width) of the picture in the network's square: the long side fills it.

    native: (height, width).
    """
    height, width = (max(1, int(length * side / max(native) + 0.5)) for length in native)
    return height, width


def squared(picture: Tensor, side: int) -> Tensor:
    """(1, 3, H, W) uint8 to (1, 3, side, side) float: resized, normalised, then padded with 0."""
    height, width = network_size(picture.shape[-2:], side)
    resized = pixel.resize(picture, [height, width], antialias=True)
    normal = pixel.normalize(resized.float() / 255, _MEAN, _STD)
    return functional.pad(normal, (0, side - width, 0, side - height))


def enlarged(logits: Tensor, size: Sequence[int], native: Sequence[int], side: int) -> Tensor:
    """(s, s) to (*native): to the square, without its padding, to the picture's size."""
    square = _resized(logits, (side, side))
    return _resized(square[: size[0], : size[1]], native)


def stability(logits: Tensor) -> float:
    """Overlap of a mask (H, W) cut strictly and loosely, 0..1; 0 when even that is empty.

    The one lies within the other, so it is the ratio of their areas. Source: SAM's mask generator.
    """
    strict, loose = int((logits > _OFFSET).sum()), int((logits > -_OFFSET).sum())
    return strict / loose if loose else 0.0


def _resized(logits: Tensor, size: Sequence[int]) -> Tensor:
    resized = functional.interpolate(
        logits[None, None], tuple(size), mode="bilinear", align_corners=False
    )
    return resized[0, 0]
