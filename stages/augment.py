"""Other views of a reference picture: turned, moved and tinted, on the same white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Interval

from pipeline.bounds import Share
from pipeline.chance import uniform

WHITE = (255, 255, 255)

Part = Annotated[float, Interval(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """variants: of each reference, beside the picture as it is; 0 for none.

    flip: share that is mirrored. rotate_deg, scale, shift: up to so many degrees, so much larger or
    smaller, and so large a part of each side, either way. gamma, saturation: from 1 - x to 1 + x;
    hue: up to that part of the circle, either way. All uniform.
    """

    variants: Annotated[int, Interval(ge=0)] = 0  # the paper's run
    flip: Share = 0.5
    # The rest is ours, and small: a reference has to stay its subject.
    rotate_deg: Annotated[float, Interval(ge=0, le=180)] = 10.0
    scale: Part = 0.1
    shift: Part = 0.05
    gamma: Part = 0.2
    saturation: Part = 0.2
    hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.02


def augmented(picture: np.ndarray, name: str, settings: AugmentSettings) -> np.ndarray:
    """(H, W, 3) uint8 on white, as before: the variant that belongs to this name."""

    def drawn(what: str, reach: float) -> float:
        return reach * (2 * uniform(f"{what}/{name}") - 1)

    height, width = picture.shape[:2]
    middle = ((width - 1) / 2, (height - 1) / 2)
    turn, scale = drawn("rotate", settings.rotate_deg), 1 + drawn("scale", settings.scale)
    matrix = cv2.getRotationMatrix2D(middle, turn, scale)
    matrix[:, 2] += drawn("right", settings.shift) * width, drawn("down", settings.shift) * height
    if uniform(f"flip/{name}") < settings.flip:
        picture = cv2.flip(picture, 1)
    # Not torchvision's: it darkens the seam between a picture and what it is filled up with.
    moved = cv2.warpAffine(picture, matrix, (width, height), borderValue=WHITE)
    return _tinted(
        moved,
        1 + drawn("gamma", settings.gamma),
        1 + drawn("saturation", settings.saturation),
        drawn("hue", settings.hue),
    )


def _tinted(picture: np.ndarray, gamma: float, saturation: float, hue: float) -> np.ndarray:
    """By what leaves white white, as brightness and contrast do not: references stand on it."""
    import torch
    from torchvision.transforms.v2 import functional

    image = torch.tensor(picture).permute(2, 0, 1).float() / 255  # rounded once, at the end
    image = functional.adjust_gamma(image, gamma)
    image = functional.adjust_saturation(image, saturation)
    image = functional.adjust_hue(image, hue)
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
