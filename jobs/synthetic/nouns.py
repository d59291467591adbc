"""What a subject can be: nouns, their solids, and how a caption sorts them."""

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

    category: object, animal, vehicle or building; turns: it may spin right round (else it sways
    about its front); verbs: what a caption may say that it does.
    """

    word: str
    plural: str
    parts: tuple[Part, ...]
    category: str = "object"
    turns: bool = True
    verbs: tuple[str, ...] = ("moving", "gliding", "drifting")


def _lathe(*profile: tuple[float, float], radius: float = 0.8) -> Part:
    return Part((0, 0, 0), (radius, 1, radius), profile)


def _ball(x: float, y: float, z: float, *radii: float, paint: int | Colour = 0) -> Part:
    sizes = radii * 3 if len(radii) == 1 else radii
    return Part((x, y, z), (sizes[0], sizes[1], sizes[2]), paint=paint)


def _eyes(x: float, y: float, z: float, size: float = 0.07) -> tuple[Part, ...]:
    whites = tuple(_ball(side * x, y, z, size, paint=IVORY) for side in (-1, 1))
    pupils = tuple(_ball(side * x, y, z + 0.7 * size, size * 0.6, paint=DARK) for side in (-1, 1))
    return whites + pupils


def _pair(x: float, y: float, z: float, *radii: float, paint: int | Colour = 0) -> tuple[Part, ...]:
    return tuple(_ball(side * x, y, z, *radii, paint=paint) for side in (-1, 1))


def _arc(
    centre: tuple[float, float], radius: tuple[float, float], turn: tuple[float, float], size: float
) -> tuple[Part, ...]:
    """A row of balls along an arc in the picture plane: a handle."""
    parts = []
    for step in range(11):
        angle = math.radians(turn[0] + (turn[1] - turn[0]) * step / 10)
        x = centre[0] + radius[0] * math.cos(angle)
        y = centre[1] - radius[1] * math.sin(angle)
        parts.append(_ball(x, y, 0, size, paint=1))
    return tuple(parts)


def _opening(y: float, radius: float, paint: Colour = DARK) -> Part:
    return _ball(0, y, 0.02, radius, 0.07, radius, paint=paint)


def _wheels(x: float, y: float, z: float, size: float) -> tuple[Part, ...]:
    return tuple(
        _ball(sx * x, y, sz * z, size * scale, size * scale, depth, paint=paint)
        for sx in (-1, 1)
        for sz in (-1, 1)
        for scale, depth, paint in ((1.0, 0.1, DARK), (0.5, 0.13, STEEL))
    )


_VASE = _lathe(
    (-1, 0.5), (-0.85, 0.36), (-0.6, 0.4), (-0.1, 0.85), (0.25, 0.95), (0.7, 0.6), (1, 0.5)
)
_BOTTLE = _lathe(
    (-1, 0.3), (-0.5, 0.3), (-0.3, 0.5), (-0.1, 0.95), (0.9, 0.95), (1, 0.8), radius=0.5
)
_JAR = _lathe((-1, 0.7), (-0.8, 0.7), (-0.65, 0.95), (0.8, 1), (1, 0.85), radius=0.72)
_LAMP_FOOT = Part((0, 0.4, 0), (0.45, 0.6, 0.45), ((-1, 0.2), (0.3, 0.3), (0.7, 0.9), (1, 1)), 1)
_BELL = _lathe((-1, 0.12), (-0.8, 0.4), (-0.2, 0.55), (0.5, 0.75), (0.85, 1), (1, 1), radius=0.85)
_PAWN = _lathe(
    (-1, 0.3), (-0.8, 0.62), (-0.55, 0.55), (-0.42, 0.3), (-0.36, 0.6), (-0.28, 0.3),
    (0.5, 0.6), (0.7, 1), (1, 1), radius=0.62,
)  # fmt: skip
_PEAR = _lathe(
    (-1, 0.2), (-0.8, 0.4), (-0.35, 0.5), (0.2, 0.9), (0.55, 1), (0.85, 0.75), (1, 0.3), radius=0.75
)
_TOP = _lathe(
    (-1, 0.1), (-0.6, 0.12), (-0.5, 0.6), (-0.2, 1), (0.1, 0.9), (0.8, 0.2), (1, 0.05), radius=0.9
)
_BARREL = _lathe((-1, 0.8), (-0.5, 0.95), (0, 1), (0.5, 0.95), (1, 0.8), radius=0.75)
_CAP: Profile = ((-1, 0.1), (-0.8, 0.5), (0, 0.85), (0.8, 1), (1, 0.7))
_CREAM = ((-0.05, 0.85), (-0.35, 0.62), (-0.65, 0.39))
_HULL: Profile = ((-1, 1), (0, 0.9), (1, 0.45))

NOUNS: tuple[Noun, ...] = (
    Noun("ball", "balls", (_ball(0, 0, 0, 1),), verbs=("rolling", "moving", "drifting")),
    Noun("egg", "eggs", (_ball(0, 0, 0, 0.76, 1, 0.76),), verbs=("moving", "rocking")),
    Noun("vase", "vases", (_VASE, _opening(-0.97, 0.36))),
    Noun("bottle", "bottles", (_BOTTLE, _ball(0, -0.95, 0, 0.18, 0.1, 0.18, paint=1))),
    Noun("jar", "jars", (_JAR, Part((0, -0.98, 0), (0.56, 0.12, 0.56), CAN, 1))),
    Noun(
        "mug",
        "mugs",
        (
            Part((0, 0, 0), (0.75, 0.9, 0.75), CAN),
            _opening(-0.86, 0.7),
            *_arc((0.75, 0.05), (0.42, 0.5), (100, -100), 0.1),
        ),
        turns=False,
    ),
    Noun(
        "teapot",
        "teapots",
        (
            _ball(0, 0.15, 0, 0.85, 0.75, 0.85),
            _ball(0, -0.58, 0, 0.45, 0.14, 0.45, paint=1),
            _ball(0, -0.76, 0, 0.13, paint=1),
            *_arc((0.78, 0.1), (0.42, 0.42), (100, -100), 0.09),
            *(_ball(-0.8 - 0.09 * i, 0.2 - 0.1 * i, 0, 0.2 - 0.02 * i, paint=1) for i in range(6)),
            Part((0, 0.88, 0), (0.5, 0.1, 0.5), CAN, 1),
        ),
        turns=False,
    ),
    Noun(
        "table lamp",
        "table lamps",
        (Part((0, -0.45, 0), (0.8, 0.55, 0.8), ((-1, 0.55), (1, 1))), _LAMP_FOOT),
    ),
    Noun("bell", "bells", (_BELL, _ball(0, 0.95, 0, 0.2, paint=1)), verbs=("swinging", "moving")),
    Noun("chess pawn", "chess pawns", (_PAWN,)),
    Noun("pear", "pears", (_PEAR, _ball(0, -1.05, 0, 0.05, 0.18, 0.05, paint=WOOD))),
    Noun("spinning top", "spinning tops", (_TOP,), verbs=("spinning", "whirling")),
    Noun("barrel", "barrels", (_BARREL,), verbs=("moving", "turning")),
    Noun(
        "toy drum",
        "toy drums",
        (
            Part((0, 0, 0), (0.95, 0.7, 0.95), BLOCK),
            *(Part((0, y, 0), (1, 0.09, 1), CAN, 1) for y in (-0.68, 0.68)),
        ),
    ),
    Noun(
        "toy mushroom",
        "toy mushrooms",
        (
            Part((0, -0.4, 0), (1, 0.6, 1), _CAP),
            Part((0, 0.5, 0), (0.38, 0.5, 0.38), ((-1, 0.8), (0.5, 0.85), (1, 1)), IVORY),
        ),
    ),
    Noun(
        "cupcake",
        "cupcakes",
        (
            Part((0, 0.5, 0), (0.75, 0.5, 0.75), ((-1, 1), (1, 0.7)), 1),
            *(_ball(0, y, 0, wide, 0.28, wide) for y, wide in _CREAM),
            _ball(0, -0.92, 0, 0.14, paint=(190, 24, 40)),
        ),
    ),
    Noun(
        "potted cactus",
        "potted cacti",
        (
            _ball(0, -0.25, 0, 0.42, 0.75, 0.42, paint=LEAF),
            _ball(-0.5, -0.25, 0, 0.17, 0.38, 0.17, paint=LEAF),
            _ball(0.5, -0.1, 0, 0.17, 0.36, 0.17, paint=LEAF),
            Part((0, 0.65, 0), (0.62, 0.4, 0.62), ((-1, 1), (1, 0.7))),
        ),
    ),
    Noun(
        "robot",
        "robots",
        (
            Part((0, 0.15, 0), (0.55, 0.45, 0.4), BLOCK, square=True),
            Part((0, -0.58, 0), (0.4, 0.27, 0.34), BLOCK, 1, square=True),
            *_eyes(0.17, -0.6, 0.33, 0.1),
            _ball(0, -0.92, 0, 0.07, 0.12, 0.07, paint=STEEL),
            *_pair(0.68, 0.12, 0, 0.13, 0.4, 0.16, paint=STEEL),
            *(Part((s * 0.27, 0.8, 0), (0.19, 0.22, 0.26), BLOCK, 1, True) for s in (-1, 1)),
        ),
        turns=False,
        verbs=("walking", "turning", "moving"),
    ),
    Noun(
        "rubber duck",
        "rubber ducks",
        (
            _ball(0, 0.4, -0.05, 0.72, 0.58, 0.9),
            _ball(0, -0.4, 0.3, 0.5, 0.48, 0.5),
            _ball(0, -0.3, 0.85, 0.22, 0.09, 0.22, paint=AMBER),
            *_eyes(0.24, -0.5, 0.68, 0.09),
            *_pair(0.66, 0.35, -0.15, 0.14, 0.28, 0.42, paint=1),
            _ball(0, 0.05, -0.9, 0.2, 0.22, 0.2),
        ),
        verbs=("swimming", "turning", "drifting"),
    ),
    Noun(
        "teddy bear",
        "teddy bears",
        (
            _ball(0, 0.3, 0, 0.6, 0.6, 0.5),
            _ball(0, -0.45, 0.05, 0.5, 0.46, 0.45),
            *_pair(0.4, -0.83, 0, 0.19, 0.19, 0.12),
            *_pair(0.66, 0.1, 0.15, 0.2, 0.36, 0.2),
            *_pair(0.38, 0.78, 0.25, 0.24, 0.24, 0.36),
            _ball(0, -0.35, 0.42, 0.22, 0.17, 0.14, paint=IVORY),
            _ball(0, -0.4, 0.56, 0.07, 0.05, 0.05, paint=DARK),
            *_eyes(0.18, -0.55, 0.42, 0.07),
        ),
        turns=False,
        verbs=("dancing", "waving", "turning"),
    ),
    Noun(
        "plush cat",
        "plush cats",
        (
            _ball(0, 0.38, 0, 0.5, 0.62, 0.45),
            _ball(0, -0.42, 0.12, 0.52, 0.42, 0.42),
            *(Part((s * 0.33, -0.84, 0.1), (0.18, 0.2, 0.12), CONE, 0) for s in (-1, 1)),
            _ball(0, -0.32, 0.5, 0.16, 0.1, 0.1, paint=IVORY),
            _ball(0, -0.37, 0.6, 0.05, 0.04, 0.04, paint=(220, 120, 130)),
            *_eyes(0.2, -0.5, 0.46, 0.09),
            *_pair(0.26, 0.88, 0.3, 0.18, 0.14, 0.24, paint=1),
            *(_ball(0.45 + 0.07 * i, 0.7 - 0.14 * i, -0.2, 0.1, paint=1) for i in range(6)),
        ),
        "object",
        turns=False,
        verbs=("moving", "turning", "swaying"),
    ),
    Noun(
        "toy rabbit",
        "toy rabbits",
        (
            _ball(0, 0.5, 0, 0.52, 0.5, 0.46),
            _ball(0, -0.15, 0.1, 0.42, 0.36, 0.38),
            *_pair(0.2, -0.7, 0, 0.13, 0.4, 0.09),
            *_pair(0.2, -0.68, 0.06, 0.07, 0.28, 0.06, paint=1),
            *_eyes(0.16, -0.22, 0.42, 0.07),
            _ball(0, -0.08, 0.47, 0.06, 0.045, 0.05, paint=(214, 110, 120)),
            *_pair(0.3, 0.9, 0.28, 0.2, 0.12, 0.3),
        ),
        turns=False,
        verbs=("hopping", "turning", "moving"),
    ),
    Noun(
        "toy penguin",
        "toy penguins",
        (
            _ball(0, 0.1, 0, 0.58, 0.86, 0.5),
            _ball(0, 0.25, 0.16, 0.42, 0.62, 0.38, paint=IVORY),
            *_pair(0.6, 0.15, 0, 0.11, 0.46, 0.2, paint=1),
            *_eyes(0.17, -0.45, 0.4, 0.08),
            _ball(0, -0.32, 0.5, 0.12, 0.07, 0.2, paint=AMBER),
            *_pair(0.26, 0.93, 0.2, 0.2, 0.08, 0.28, paint=AMBER),
        ),
        turns=False,
        verbs=("waddling", "turning", "moving"),
    ),
    Noun(
        "toy owl",
        "toy owls",
        (
            _ball(0, 0.05, 0, 0.66, 0.9, 0.55),
            *(Part((s * 0.36, -0.82, 0), (0.15, 0.18, 0.12), CONE) for s in (-1, 1)),
            *_pair(0.25, -0.35, 0.42, 0.23, 0.23, 0.12, paint=IVORY),
            *_pair(0.25, -0.35, 0.53, 0.1, 0.1, 0.06, paint=DARK),
            _ball(0, -0.18, 0.56, 0.08, 0.12, 0.08, paint=AMBER),
            *_pair(0.62, 0.2, 0, 0.12, 0.5, 0.32, paint=1),
        ),
        turns=False,
        verbs=("turning", "swaying", "moving"),
    ),
    Noun(
        "snowman",
        "snowmen",
        (
            _ball(0, 0.5, 0, 0.55, 0.5, 0.55, paint=IVORY),
            _ball(0, -0.12, 0, 0.4, 0.38, 0.4),
            _ball(0, -0.58, 0, 0.29, paint=IVORY),
            Part((0, -0.9, 0), (0.24, 0.2, 0.24), BLOCK, DARK),
            Part((0, -0.76, 0), (0.38, 0.04, 0.38), CAN, DARK),
            _ball(0, -0.55, 0.34, 0.05, 0.05, 0.16, paint=AMBER),
            *_pair(0.11, -0.64, 0.25, 0.045, paint=DARK),
        ),
        turns=False,
        verbs=("sliding", "turning", "moving"),
    ),
    Noun(
        "piggy bank",
        "piggy banks",
        (
            _ball(0, 0.05, 0, 0.95, 0.68, 0.66),
            _ball(-0.85, -0.05, 0, 0.3, 0.3, 0.32, paint=1),
            *(_ball(-0.55, -0.62, s * 0.25, 0.13, 0.18, 0.1, paint=1) for s in (-1, 1)),
            *(_ball(x, 0.72, z, 0.17, 0.24, 0.17) for x in (-0.5, 0.5) for z in (-0.3, 0.3)),
            _ball(-0.74, -0.28, 0.36, 0.07, paint=DARK),
            *_arc((0.98, -0.1), (0.14, 0.14), (-60, 220), 0.06),
        ),
        verbs=("sliding", "moving", "turning"),
    ),
    Noun(
        "toy turtle",
        "toy turtles",
        (
            Part((0, 0, 0), (1, 0.5, 0.8), ((-1, 0.1), (-0.85, 0.45), (0, 0.85), (1, 1))),
            _ball(-1.15, 0.15, 0, 0.32, 0.28, 0.26, paint=1),
            _ball(-1.28, 0.05, 0.2, 0.06, paint=DARK),
            *(
                _ball(x, 0.52, z, 0.26, 0.24, 0.22, paint=1)
                for x in (-0.6, 0.6)
                for z in (-0.5, 0.5)
            ),
        ),
        verbs=("crawling", "moving", "turning"),
    ),
    Noun(
        "toy fish",
        "toy fish",
        (
            _ball(0, 0, 0, 1, 0.62, 0.36),
            *(
                _ball(1.0 + 0.08 * i, 0.08 * i * s, 0, 0.14, paint=1)
                for i in range(5)
                for s in (-1, 1)
            ),
            _ball(0.1, -0.6, 0, 0.38, 0.2, 0.06, paint=1),
            *(_ball(-0.62, -0.15, s * 0.27, 0.11, paint=IVORY) for s in (-1, 1)),
            *(_ball(-0.64, -0.15, s * 0.35, 0.06, paint=DARK) for s in (-1, 1)),
        ),
        turns=False,
        verbs=("swimming", "gliding", "moving"),
    ),
    Noun(
        "toy car",
        "toy cars",
        (
            Part((0, 0.2, 0), (1.2, 0.26, 0.5), CAN, square=True),
            Part((0.08, -0.22, 0), (0.68, 0.26, 0.44), ((-1, 0.8), (1, 1)), (70, 92, 116), True),
            Part((0.08, -0.47, 0), (0.56, 0.05, 0.42), BLOCK, square=True),
            *_wheels(0.72, 0.45, 0.48, 0.26),
            *(_ball(-1.2, 0.18, s * 0.3, 0.06, 0.09, 0.09, paint=IVORY) for s in (-1, 1)),
        ),
        "vehicle",
        turns=False,
        verbs=("driving", "rolling", "moving"),
    ),
    Noun(
        "toy bus",
        "toy buses",
        (
            Part((0, 0, 0), (1.25, 0.55, 0.48), CAN, square=True),
            *(
                Part((-0.9 + 0.45 * i, -0.18, 0.02), (0.17, 0.18, 0.48), BLOCK, (62, 84, 106), True)
                for i in range(5)
            ),
            *_wheels(0.75, 0.55, 0.46, 0.25),
        ),
        "vehicle",
        turns=False,
        verbs=("driving", "rolling", "moving"),
    ),
    Noun(
        "toy boat",
        "toy boats",
        (
            Part((0, 0.5, 0), (1.15, 0.35, 0.45), _HULL),
            Part((0.15, 0.0, 0), (0.45, 0.2, 0.3), BLOCK, IVORY, True),
            Part((0.25, -0.45, 0), (0.17, 0.3, 0.17), BLOCK, 1),
        ),
        "vehicle",
        turns=False,
        verbs=("floating", "drifting", "moving"),
    ),
    Noun(
        "toy rocket",
        "toy rockets",
        (
            Part((0, 0.15, 0), (0.42, 0.7, 0.42), ((-1, 0.7), (-0.3, 1), (0.6, 0.95), (1, 0.7))),
            Part((0, -0.77, 0), (0.31, 0.25, 0.31), ((-1, 0.03), (0, 0.65), (1, 1)), 1),
            *(_ball(s * 0.46, 0.72, 0, 0.14, 0.3, 0.06, paint=1) for s in (-1, 1)),
            *(_ball(0, 0.72, s * 0.46, 0.06, 0.3, 0.14, paint=1) for s in (-1, 1)),
            _ball(0, -0.1, 0.38, 0.15, 0.15, 0.08, paint=(90, 150, 190)),
        ),
        "vehicle",
        verbs=("rising", "hovering", "floating"),
    ),
    Noun(
        "toy house",
        "toy houses",
        (
            Part((0, 0.35, 0), (0.7, 0.55, 0.6), BLOCK, square=True),
            Part((0, -0.5, 0), (0.9, 0.35, 0.8), ROOF, 1, True),
            Part((0, 0.58, 0.57), (0.15, 0.3, 0.06), BLOCK, DARK, True),
            *(Part((s * 0.4, 0.15, 0.57), (0.13, 0.13, 0.05), BLOCK, GLASS, True) for s in (-1, 1)),
        ),
        "building",
        turns=False,
        verbs=("turning", "moving", "sliding"),
    ),
    Noun(
        "gift box",
        "gift boxes",
        (
            Part((0, 0.15, 0), (0.8, 0.7, 0.8), BLOCK, square=True),
            Part((0, -0.6, 0), (0.88, 0.12, 0.88), BLOCK, 1, True),
            *_pair(0.22, -0.82, 0, 0.24, 0.14, 0.12, paint=1),
        ),
        verbs=("turning", "sliding", "moving"),
    ),
)
