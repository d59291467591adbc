"""Nouns that a lathe or a pair of hands turns out: vessels, fruit, toys of one piece."""

from __future__ import annotations

from jobs.synthetic.forms import BLOCK, CAN, IVORY, LEAF, WOOD, Noun, arc, ball, lathe, opening
from jobs.synthetic.solid import Part, Profile

_VASE = lathe(
    (-1, 0.5), (-0.85, 0.36), (-0.6, 0.4), (-0.1, 0.85), (0.25, 0.95), (0.7, 0.6), (1, 0.5)
)
_BOTTLE = lathe(
    (-1, 0.3), (-0.5, 0.3), (-0.3, 0.5), (-0.1, 0.95), (0.9, 0.95), (1, 0.8), radius=0.5
)
_JAR = lathe((-1, 0.7), (-0.8, 0.7), (-0.65, 0.95), (0.8, 1), (1, 0.85), radius=0.72)
_LAMP_FOOT = Part((0, 0.4, 0), (0.45, 0.6, 0.45), ((-1, 0.2), (0.3, 0.3), (0.7, 0.9), (1, 1)), 1)
_BELL = lathe((-1, 0.12), (-0.8, 0.4), (-0.2, 0.55), (0.5, 0.75), (0.85, 1), (1, 1), radius=0.85)
_PAWN = lathe(
    (-1, 0.3), (-0.8, 0.62), (-0.55, 0.55), (-0.42, 0.3), (-0.36, 0.6), (-0.28, 0.3),
    (0.5, 0.6), (0.7, 1), (1, 1), radius=0.62,
)  # fmt: skip
_PEAR = lathe(
    (-1, 0.2), (-0.8, 0.4), (-0.35, 0.5), (0.2, 0.9), (0.55, 1), (0.85, 0.75), (1, 0.3), radius=0.75
)
_TOP = lathe(
    (-1, 0.1), (-0.6, 0.12), (-0.5, 0.6), (-0.2, 1), (0.1, 0.9), (0.8, 0.2), (1, 0.05), radius=0.9
)
_BARREL = lathe((-1, 0.8), (-0.5, 0.95), (0, 1), (0.5, 0.95), (1, 0.8), radius=0.75)
_CAP: Profile = ((-1, 0.1), (-0.8, 0.5), (0, 0.85), (0.8, 1), (1, 0.7))
_CREAM = ((-0.05, 0.85), (-0.35, 0.62), (-0.65, 0.39))

TURNED: tuple[Noun, ...] = (
    Noun("ball", "balls", (ball(0, 0, 0, 1),), verbs=("rolling", "moving", "drifting")),
    Noun("egg", "eggs", (ball(0, 0, 0, 0.76, 1, 0.76),), verbs=("moving", "rocking")),
    Noun("vase", "vases", (_VASE, opening(-0.97, 0.36))),
    Noun("bottle", "bottles", (_BOTTLE, ball(0, -0.95, 0, 0.18, 0.1, 0.18, paint=1))),
    Noun("jar", "jars", (_JAR, Part((0, -0.98, 0), (0.56, 0.12, 0.56), CAN, 1))),
    Noun(
        "mug",
        "mugs",
        (
            Part((0, 0, 0), (0.75, 0.9, 0.75), CAN),
            opening(-0.86, 0.7),
            *arc((0.75, 0.05), (0.42, 0.5), (100, -100), 0.1),
        ),
        turns=False,
    ),
    Noun(
        "teapot",
        "teapots",
        (
            ball(0, 0.15, 0, 0.85, 0.75, 0.85),
            ball(0, -0.58, 0, 0.45, 0.14, 0.45, paint=1),
            ball(0, -0.76, 0, 0.13, paint=1),
            *arc((0.78, 0.1), (0.42, 0.42), (100, -100), 0.09),
            *(ball(-0.8 - 0.09 * i, 0.2 - 0.1 * i, 0, 0.2 - 0.02 * i, paint=1) for i in range(6)),
            Part((0, 0.88, 0), (0.5, 0.1, 0.5), CAN, 1),
        ),
        turns=False,
    ),
    Noun(
        "table lamp",
        "table lamps",
        (Part((0, -0.45, 0), (0.8, 0.55, 0.8), ((-1, 0.55), (1, 1))), _LAMP_FOOT),
    ),
    Noun("bell", "bells", (_BELL, ball(0, 0.95, 0, 0.2, paint=1)), verbs=("swinging", "moving")),
    Noun("chess pawn", "chess pawns", (_PAWN,)),
    Noun("pear", "pears", (_PEAR, ball(0, -1.05, 0, 0.05, 0.18, 0.05, paint=WOOD))),
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
            *(ball(0, y, 0, wide, 0.28, wide) for y, wide in _CREAM),
            ball(0, -0.92, 0, 0.14, paint=(190, 24, 40)),
        ),
    ),
    Noun(
        "potted cactus",
        "potted cacti",
        (
            ball(0, -0.25, 0, 0.42, 0.75, 0.42, paint=LEAF),
            ball(-0.5, -0.25, 0, 0.17, 0.38, 0.17, paint=LEAF),
            ball(0.5, -0.1, 0, 0.17, 0.36, 0.17, paint=LEAF),
            Part((0, 0.65, 0), (0.62, 0.4, 0.62), ((-1, 1), (1, 0.7))),
        ),
    ),
)
