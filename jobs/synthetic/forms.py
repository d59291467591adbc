"""What subjects are made of: balls, turned solids, pairs, handles, wheels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.synthetic.solid import Part, Profile
from jobs.synthetic.texture import Colour

DARK: Colour = (34, 30, 32)
IVORY: Colour = (240, 236, 224)
AMBER: Colour = (236, 142, 30)
LEAF: Colour = (62, 126, 48)
STEEL: Colour = (150, 156, 166)
WOOD: Colour = (128, 84, 48)
GLASS: Colour = (180, 210, 224)

CAN: Profile = ((-1, 0.8), (-0.94, 1), (0.94, 1), (1, 0.85))
CONE: Profile = ((-1, 0.02), (1, 1))
ROOF: Profile = ((-1, 0.05), (1, 1))
BLOCK: Profile = ((-1, 1), (1, 1))


@dataclass(frozen=True, slots=True)
class Noun:
    """One kind of subject.

    turns: it may spin right round, else it sways about its front; verbs: what a caption may say
    that it does.
    """

    word: str
    plural: str
    parts: tuple[Part, ...]
    turns: bool = True
    verbs: tuple[str, ...] = ("moving", "gliding", "drifting")


def lathe(*profile: tuple[float, float], radius: float = 0.8) -> Part:
    """A turned solid as high as the subject, from its (height, width) pairs."""
    return Part((0, 0, 0), (radius, 1, radius), profile)


def ball(x: float, y: float, z: float, *radii: float, paint: int | Colour = 0) -> Part:
    """A ball, or with three radii an ellipsoid."""
    sizes = radii * 3 if len(radii) == 1 else radii
    return Part((x, y, z), (sizes[0], sizes[1], sizes[2]), paint=paint)


def eyes(x: float, y: float, z: float, size: float = 0.07) -> tuple[Part, ...]:
    """Two eyes that look ahead."""
    whites = tuple(ball(side * x, y, z, size, paint=IVORY) for side in (-1, 1))
    pupils = tuple(ball(side * x, y, z + 0.7 * size, size * 0.6, paint=DARK) for side in (-1, 1))
    return whites + pupils


def pair(x: float, y: float, z: float, *radii: float, paint: int | Colour = 0) -> tuple[Part, ...]:
    """An ellipsoid on the right, and its twin on the left."""
    return tuple(ball(side * x, y, z, *radii, paint=paint) for side in (-1, 1))


def arc(
    centre: tuple[float, float], radius: tuple[float, float], turn: tuple[float, float], size: float
) -> tuple[Part, ...]:
    """A row of balls along an arc in the picture plane: a handle."""
    parts = []
    for step in range(11):
        angle = math.radians(turn[0] + (turn[1] - turn[0]) * step / 10)
        x = centre[0] + radius[0] * math.cos(angle)
        y = centre[1] - radius[1] * math.sin(angle)
        parts.append(ball(x, y, 0, size, paint=1))
    return tuple(parts)


def opening(y: float, radius: float, paint: Colour = DARK) -> Part:
    """The dark mouth of a vessel, as one looks slightly into it."""
    return ball(0, y, 0.02, radius, 0.07, radius, paint=paint)


def wheels(x: float, y: float, z: float, size: float) -> tuple[Part, ...]:
    """Four wheels with hubs."""
    return tuple(
        ball(sx * x, y, sz * z, size * scale, size * scale, depth, paint=paint)
        for sx in (-1, 1)
        for sz in (-1, 1)
        for scale, depth, paint in ((1.0, 0.1, DARK), (0.5, 0.13, STEEL))
    )
