"""Other views of a reference picture: turned, moved and tinted, on the same white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

from pipeline.bounds import Share
from pipeline.chance import uniform

WHITE = 255.0

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
    """(H, W, 3) uint8 on white, as before: the variant that belongs to this name.

    Colours are changed by what leaves white white (not by brightness or contrast), for every
    reference that is not augmented stands on white.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode, functional

    def drawn(what: str, reach: float) -> float:
        return reach * (2 * uniform(f"{what}/{name}") - 1)

    height, width = picture.shape[:2]
    image = torch.tensor(picture).permute(2, 0, 1)
    if uniform(f"flip/{name}") < settings.flip:
        image = functional.horizontal_flip(image)
    image = functional.affine(
        image,
        angle=drawn("rotate", settings.rotate_deg),
        translate=[
            drawn("right", settings.shift) * width,
            drawn("down", settings.shift) * height,
        ],
        scale=1 + drawn("scale", settings.scale),
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=[WHITE] * 3,
    )
    image = functional.adjust_gamma(image, 1 + drawn("gamma", settings.gamma))
    image = functional.adjust_saturation(image, 1 + drawn("saturation", settings.saturation))
    image = functional.adjust_hue(image, drawn("hue", settings.hue))
    return image.permute(1, 2, 0).contiguous().numpy()
