"""Segment Anything: the mask of what lies in a box.

Two implementations behind one interface: the authors' package and transformers' class. This file
imports neither, nor torch, so that settings stay light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.errors import InputError
from pipeline.weights import ONE_FILE, Weights, find
from stages.networks.placement import Placement

_PUBLISHED = {
    "vit_b": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
    "vit_l": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
    "vit_h": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
}


@dataclass(frozen=True, slots=True)
class Cutout:
    """A mask, and how far it can be trusted.

    mask: (H, W) bool; predicted_iou: the network's own guess of the overlap with the truth, about
    0..1; stability: overlap of the masks at a stricter and a looser threshold, 0..1.
    """

    mask: np.ndarray
    predicted_iou: float
    stability: float


class Cutter(Protocol):
    """Cuts things out of pictures; made by `load_cutter`, once per host."""

    def cut(
        self,
        pictures: Sequence[np.ndarray],
        boxes: Sequence[tuple[float, float, float, float]],
    ) -> list[Cutout]:
        """What boxes[i] holds of pictures[i].

        pictures: (H, W, 3) uint8 RGB, of any sizes; boxes: x0, y0, x1, y1 as shares, 0..1. What
        else is in the call changes no number beyond rounding.
        """
        ...


@dataclass(frozen=True, slots=True)
class SamSettings:
    """package: whose implementation.

    model: a folder or a hub name, original: a .pth file or its address; "" the published
    weights, ViT-H. revision: of the hub; kind: of the original's encoder, a name in its registry.
    """

    package: Literal["original", "transformers"] = "transformers"
    model: str = ""
    revision: str = ""
    kind: str = "vit_h"
    placement: Placement = Placement(batch=4)


def cutter_weights(settings: SamSettings, table: str = "segment.sam") -> tuple[Weights, ...]:
    """What `load_cutter` loads, for `Stage.weights`. table: of the run file, for messages.

    Raises InputError on a kind without published weights, when none are named.
    """
    if settings.package == "transformers":
        name = settings.model or "facebook/sam-vit-huge"
        return (Weights(name, f"{table}.model", settings.revision),)
    if not settings.model and settings.kind not in _PUBLISHED:
        known = ", ".join(_PUBLISHED)
        raise InputError(f"{table}.kind: found {settings.kind}, wanted one of {known}")
    return (Weights(settings.model or _PUBLISHED[settings.kind], f"{table}.model", files=ONE_FILE),)


def cutter_numbers(settings: SamSettings) -> Mapping[str, Any]:
    """What changes the masks, for `Stage.settings`: of the settings, those that are used."""
    (weights,) = cutter_weights(settings)
    return {
        "package": settings.package,
        "weights": [weights.name, weights.revision],
        "dtype": settings.placement.dtype,
    }


def load_cutter(settings: SamSettings, table: str = "segment.sam") -> Cutter:
    """The network with its weights, on its device. Raises InputError when they are not here."""
    from stages.networks.sam_masks import BatchedCutter

    (place,) = [find(weights) for weights in cutter_weights(settings, table)]
    if settings.package == "original":
        from stages.networks.sam_original import OriginalSam

        network = OriginalSam.load(place, settings.kind, table)
    else:
        from stages.networks.sam_transformers import TransformersSam

        network = TransformersSam.load(place, f"{table}.model")
    return BatchedCutter(network, settings.placement)
