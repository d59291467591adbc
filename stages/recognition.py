"""Whether networks recognise a subject: a detector by its name, CLIP by its looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.mask import box_iou, box_of
from pipeline.weights import Weights
from stages.networks.aesthetic import AestheticHead
from stages.networks.clip import ClipImages
from stages.networks.clip_words import ClipWords
from stages.networks.grounding import Detection, GroundingSettings, load_detector
from stages.networks.placement import Placement
from stages.rediscovery import Views

_MEAN = (123, 117, 104)  # red, green, blue: OpenAI's CLIP, of 0.4815, 0.4578, 0.4082
Box = tuple[float, float, float, float]


class Recognition:
    """Detector, CLIP's two towers and LAION's head, loaded at once.

    Raises InputError when one of them is not there, or the head is another model's.
    """

    def __init__(
        self, model: Weights, head: Weights, detector: GroundingSettings, placement: Placement
    ) -> None:
        self._images = ClipImages(model, placement)
        self._words = ClipWords(model, placement)
        self._head = AestheticHead(head)
        if self._images.width != self._head.width:
            raise InputError(
                f"{head.setting}: '{head.name}' takes {self._head.width} numbers and "
                f"'{model.name}' gives {self._images.width}; wanted the head of this model"
            )
        self._detector = load_detector(detector)

    def compare(self, clips: Sequence[Views]) -> list[Mapping[str, Any]]:
        """The measures of `stages.pair.Pair`, one per clip."""
        if not clips:
            return []
        names = [views.entity for views in clips]
        seen = self._detector.detect(
            [views.last for views in clips] + [views.first for views in clips], names + names
        )
        lasts = [found[0] if found else None for found in seen[: len(clips)]]
        own = [_box_of_mask(views.mask) for views in clips]
        firsts = [_nearest(found, box) for found, box in zip(seen[len(clips) :], own, strict=True)]
        crops = [square_of(views.reference, box) for views, box in zip(clips, own, strict=True)]
        references = np.concatenate(self._images.embed(crops))
        words = self._words.embed([f"a photo of a {name}" for name in names])
        aesthetics = self._head.scores(references)
        likeness = self._likeness(clips, firsts, references)
        return [
            {
                **_found(last),
                "likeness": like,
                "crop_aesthetic": float(aesthetic),
                "word_similarity": float(reference @ word),
            }
            for last, like, aesthetic, reference, word in zip(
                lasts, likeness, aesthetics, references, words, strict=True
            )
        ]

    def _likeness(
        self, clips: Sequence[Views], boxes: Sequence[Box | None], references: np.ndarray
    ) -> list[float | None]:
        """Of each reference's crop and the subject's in the first training frame."""
        there = [number for number, box in enumerate(boxes) if box is not None]
        crops = [square_of(clips[n].first, box) for n in there if (box := boxes[n]) is not None]
        likeness: list[float | None] = [None] * len(clips)
        for number, (embedding,) in zip(there, self._images.embed(crops), strict=True):
            likeness[number] = float(references[number] @ embedding)
        return likeness


def _found(last: Detection | None) -> dict[str, float | None]:
    sides = ("x0", "y0", "x1", "y1")
    if last is None:
        return {"found_again": 0.0, **dict.fromkeys(sides)}
    return {"found_again": last.score, **dict(zip(sides, last.box, strict=True))}


def _nearest(found: Sequence[Detection], box: Box) -> Box | None:
    """The box that overlaps most with where the subject was a moment ago."""
    best = max(found, key=lambda one: box_iou(one.box, box), default=None)
    return None if best is None or box_iou(best.box, box) == 0 else best.box


def _box_of_mask(mask: np.ndarray) -> Box:
    x0, y0, x1, y1 = box_of(mask) or (0, 0, mask.shape[1], mask.shape[0])
    height, width = mask.shape
    return x0 / width, y0 / height, x1 / width, y1 / height


def square_of(picture: np.ndarray, box: Box) -> np.ndarray:
    """(1, side, side, 3): what is in the box, a pixel at least, on a square of CLIP's mean colour.

    CLIP sees the middle square of a picture alone, of a standing man his chest. The mean colour is
    0 to it, so LLaVA pads with it too; a larger crop would compare what stands around the subject.
    """
    height, width = picture.shape[:2]
    x0, y0 = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    x1, y1 = max(round(box[2] * width), x0 + 1), max(round(box[3] * height), y0 + 1)
    side = max(y1 - y0, x1 - x0)
    square = np.full((1, side, side, 3), _MEAN, np.uint8)
    top, left = (side - (y1 - y0)) // 2, (side - (x1 - x0)) // 2
    square[0, top : top + y1 - y0, left : left + x1 - x0] = picture[y0:y1, x0:x1]
    return square
