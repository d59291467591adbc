"""Grounding DINO: the boxes in a picture of what a few words name.

Two implementations behind one interface: the authors' package and transformers' class. This file
imports neither, nor torch, so that settings stay light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.bounds import Share
from pipeline.weights import Weights, find
from stages.networks.placement import Placement

ORIGINAL_FILE = "groundingdino_swint_ogc.pth"


@dataclass(frozen=True, slots=True)
class Detection:
    """A box that the words were found in.

    box: x0, y0, x1, y1 as shares of the picture, 0..1. score: the best of the words' probabilities,
    0..1. phrase: the words above the text threshold, may be "".
    """

    box: tuple[float, float, float, float]
    score: float
    phrase: str


class Detector(Protocol):
    """Finds named things in pictures; made by `load_detector`, once per host."""

    def detect(
        self, pictures: Sequence[np.ndarray], entities: Sequence[str]
    ) -> list[list[Detection]]:
        """The boxes of entities[i] in pictures[i], best first; [] where there is none.

        pictures: (H, W, 3) uint8 RGB, of any sizes, enlarged or reduced here; entities: as people
        write them ("toy frog"), one per picture. Pictures of one size go through the network
        together; what else is in the call changes no number beyond rounding.
        """
        ...


@dataclass(frozen=True, slots=True)
class GroundingSettings:
    """package: whose implementation.

    model: a folder or a hub name, original also: a .pth file or its address; "" the published
    Swin-T weights. revision: of the hub. For the original alone: text, BERT's configuration and
    tokenizer (its weights are in the model's), at text_revision of the hub, and config, one of the
    package's or a .json file.
    short_side_px, long_side_px: what pictures are resized to, as in training. box_threshold,
    text_threshold: the authors' demo; nms_iou: of boxes that overlap more, the best stays.
    """

    package: Literal["original", "transformers"] = "transformers"
    model: str = ""
    revision: str = ""
    text: str = "google-bert/bert-base-uncased"
    text_revision: str = ""
    config: str = "GroundingDINO_SwinT_OGC"
    short_side_px: int = 800
    long_side_px: int = 1333
    box_threshold: Share = 0.35
    text_threshold: Share = 0.25
    nms_iou: Share = 0.8
    placement: Placement = Placement(batch=8)


def detector_weights(
    settings: GroundingSettings, table: str = "segment.detector"
) -> tuple[Weights, ...]:
    """What `load_detector` loads, for `Stage.weights`. table: of the run file, for messages."""
    if settings.package == "transformers":
        name = settings.model or "IDEA-Research/grounding-dino-tiny"
        return (Weights(name, f"{table}.model", settings.revision),)
    name = settings.model or "ShilongLiu/GroundingDINO"
    return (
        Weights(
            name, f"{table}.model", settings.revision, (ORIGINAL_FILE,), needed=(ORIGINAL_FILE,)
        ),
        Weights(
            settings.text,
            f"{table}.text",
            settings.text_revision,
            files=("*.json", "*.txt"),
            needed=("config.json", "tokenizer.json|vocab.txt"),
        ),
    )


def detector_numbers(settings: GroundingSettings) -> Mapping[str, Any]:
    """What changes the boxes, for `Stage.settings`: of the settings, those that are used."""
    numbers = {
        "package": settings.package,
        "weights": [(weights.name, weights.revision) for weights in detector_weights(settings)],
        "short_side_px": settings.short_side_px,
        "long_side_px": settings.long_side_px,
        "box_threshold": settings.box_threshold,
        "text_threshold": settings.text_threshold,
        "nms_iou": settings.nms_iou,
        "dtype": settings.placement.dtype,
    }
    return {**numbers, "config": settings.config} if settings.package == "original" else numbers


@cache
def load_detector(settings: GroundingSettings, table: str = "segment.detector") -> Detector:
    """The network with its weights, on its device: once per process, whoever asks.

    Raises InputError when they are not here.
    """
    from stages.networks.grounding_boxes import BatchedDetector

    places = [find(weights) for weights in detector_weights(settings, table)]
    if settings.package == "original":
        from stages.networks.grounding_original import OriginalGrounding

        model, text = places
        network = OriginalGrounding.load(model, text, settings.config, table)
    else:
        from stages.networks.grounding_transformers import TransformersGrounding

        network = TransformersGrounding.load(places[0], f"{table}.model")
    return BatchedDetector(network, settings)
