"""From pictures and names to boxes, whichever implementation of Grounding DINO runs in between.

B pictures, Q queries, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, nms
from torchvision.transforms.v2 import functional as pixel

from stages.networks.grounding import Detection, GroundingSettings

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's
_MARKS = ("[CLS]", "[SEP]", "[PAD]", ".", "?")


class Grounding(Protocol):
    """One implementation. tokenizer: of transformers; model: what moves to the device."""

    tokenizer: Any
    model: nn.Module

    def __call__(self, pixels: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits (B, Q, 256), -inf behind a caption's tokens, and boxes (B, Q, 4).

        pixels: (B, 3, H, W), normalised; boxes: centre, width and height, 0..1.
        """
        ...


class BatchedDetector:
    """The `Detector` that `load_detector` makes.

    Only pictures of one size share a batch: the backbone looks across the edge of a padded
    picture, so with padding a clip's numbers would depend on the company that it keeps.
    """

    def __init__(self, network: Grounding, settings: GroundingSettings) -> None:
        self._network = network
        self._settings = settings
        network.model.eval().requires_grad_(False).to(settings.placement.torch_device)

    def detect(
        self, pictures: Sequence[np.ndarray], entities: Sequence[str]
    ) -> list[list[Detection]]:
        """As `Detector.detect`."""
        captions = [caption_of(entity) for entity in entities]
        found: list[list[Detection]] = [[] for _ in pictures]
        asked = [i for i, caption in enumerate(captions) if caption]
        for batch in _of_one_size(asked, pictures, self._settings.placement.batch):
            texts = [captions[i] for i in batch]
            answers = self._run(np.stack([pictures[i] for i in batch]), texts)
            for i, logits, boxes in zip(batch, *answers, strict=True):
                found[i] = self._read(captions[i], logits, boxes)
        return found

    @torch.inference_mode()
    def _run(self, pictures: np.ndarray, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Half precision is by autocast: weights, and boxes as they are refined, stay f32."""
        settings, place = self._settings, self._settings.placement
        half = place.torch_dtype != torch.float32
        with torch.autocast(place.torch_device.type, place.torch_dtype, enabled=half):
            size = network_size(pictures.shape[1:3], settings.short_side_px, settings.long_side_px)
            logits, boxes = self._network(prepared(place.load(pictures), size), captions)
        return logits.float(), boxes.float()

    def _read(self, caption: str, logits: Tensor, boxes: Tensor) -> list[Detection]:
        corners, words = chosen(logits, boxes, self._settings)
        return [
            Detection(
                (x0, y0, x1, y1), float(probabilities.max()), self._phrase(caption, probabilities)
            )
            for (x0, y0, x1, y1), probabilities in zip(corners.tolist(), words.cpu(), strict=True)
        ]

    def _phrase(self, caption: str, probabilities: Tensor) -> str:
        """The caption's words above the text threshold; probabilities: (256,)."""
        tokenizer = self._network.tokenizer
        marks = set(tokenizer.convert_tokens_to_ids(list(_MARKS)))
        ids = tokenizer(caption).input_ids[: len(probabilities)]
        above = probabilities[: len(ids)] > self._settings.text_threshold
        return tokenizer.decode(
            [i for i, yes in zip(ids, above, strict=True) if yes and i not in marks]
        )


def chosen(logits: Tensor, boxes: Tensor, settings: GroundingSettings) -> tuple[Tensor, Tensor]:
    """What is found in one picture, best first: corners (N, 4), 0..1, and probabilities (N, T).

    logits: (Q, T); boxes: (Q, 4) centre, width and height. A box's score is its best token's.
    """
    words = logits.sigmoid()
    above = words.amax(-1) > settings.box_threshold
    words, corners = words[above], box_convert(boxes[above], "cxcywh", "xyxy").clamp(0, 1)
    kept = nms(corners, words.amax(-1), settings.nms_iou)
    return corners[kept], words[kept]


def caption_of(entity: str) -> str:
    """The entity as it was trained to be asked: "toy frog."; "" when nothing is named.

    A dot or question mark inside would make two phrases of it.
    """
    words = re.sub(r"[.?\s]+", " ", entity).strip().lower()
    return f"{words}." if words else ""


def network_size(native: Sequence[int], short_px: int, long_px: int) -> tuple[int, int]:
    """(height, width) that the network sees: the short side at short_px, the long at most long_px.

    native: (height, width). Source: DETR's resizing, which both packages have.
    """
    height, width = native
    short, long = min(height, width), max(height, width)
    reduced = max(1, min(short_px, round(long_px * short / long)))
    longer = int(reduced * long / short)
    return (longer, reduced) if height > width else (reduced, longer)


def prepared(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) uint8 to what the network wants: float, resized and normalised."""
    resized = pixel.resize(pictures, list(size), antialias=True)
    return pixel.normalize(resized.float() / 255, _MEAN, _STD)


def _of_one_size(
    asked: Sequence[int], pictures: Sequence[np.ndarray], batch: int
) -> Iterator[list[int]]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i in asked:
        sizes.setdefault(pictures[i].shape, []).append(i)
    for group in sizes.values():
        for start in range(0, len(group), batch):
            yield group[start : start + batch]
