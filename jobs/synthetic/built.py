"""Nouns that are put together: animals, robots, vehicles, houses."""

from __future__ import annotations

from jobs.synthetic.forms import (
    AMBER,
    BLOCK,
    CAN,
    CONE,
    DARK,
    GLASS,
    IVORY,
    ROOF,
    STEEL,
    Noun,
    arc,
    ball,
    eyes,
    pair,
    wheels,
)
from jobs.synthetic.solid import Part, Profile

_HULL: Profile = ((-1, 1), (0, 0.9), (1, 0.45))

BUILT: tuple[Noun, ...] = (
    Noun(
        "robot",
        "robots",
        (
            Part((0, 0.15, 0), (0.55, 0.45, 0.4), BLOCK, square=True),
            Part((0, -0.58, 0), (0.4, 0.27, 0.34), BLOCK, 1, square=True),
            *eyes(0.17, -0.6, 0.33, 0.1),
            ball(0, -0.92, 0, 0.07, 0.12, 0.07, paint=STEEL),
            *pair(0.68, 0.12, 0, 0.13, 0.4, 0.16, paint=STEEL),
            *(Part((s * 0.27, 0.8, 0), (0.19, 0.22, 0.26), BLOCK, 1, True) for s in (-1, 1)),
        ),
        turns=False,
        verbs=("walking", "turning", "moving"),
    ),
    Noun(
        "rubber duck",
        "rubber ducks",
        (
            ball(0, 0.4, -0.05, 0.72, 0.58, 0.9),
            ball(0, -0.4, 0.3, 0.5, 0.48, 0.5),
            ball(0, -0.3, 0.85, 0.22, 0.09, 0.22, paint=AMBER),
            *eyes(0.24, -0.5, 0.68, 0.09),
            *pair(0.66, 0.35, -0.15, 0.14, 0.28, 0.42, paint=1),
            ball(0, 0.05, -0.9, 0.2, 0.22, 0.2),
        ),
        verbs=("swimming", "turning", "drifting"),
    ),
    Noun(
        "teddy bear",
        "teddy bears",
        (
            ball(0, 0.3, 0, 0.6, 0.6, 0.5),
            ball(0, -0.45, 0.05, 0.5, 0.46, 0.45),
            *pair(0.4, -0.83, 0, 0.19, 0.19, 0.12),
            *pair(0.66, 0.1, 0.15, 0.2, 0.36, 0.2),
            *pair(0.38, 0.78, 0.25, 0.24, 0.24, 0.36),
            ball(0, -0.35, 0.42, 0.22, 0.17, 0.14, paint=IVORY),
            ball(0, -0.4, 0.56, 0.07, 0.05, 0.05, paint=DARK),
            *eyes(0.18, -0.55, 0.42, 0.07),
        ),
        turns=False,
        verbs=("dancing", "waving", "turning"),
    ),
    Noun(
        "plush cat",
        "plush cats",
        (
            ball(0, 0.38, 0, 0.5, 0.62, 0.45),
            ball(0, -0.42, 0.12, 0.52, 0.42, 0.42),
            *(Part((s * 0.33, -0.84, 0.1), (0.18, 0.2, 0.12), CONE, 0) for s in (-1, 1)),
            ball(0, -0.32, 0.5, 0.16, 0.1, 0.1, paint=IVORY),
            ball(0, -0.37, 0.6, 0.05, 0.04, 0.04, paint=(220, 120, 130)),
            *eyes(0.2, -0.5, 0.46, 0.09),
            *pair(0.26, 0.88, 0.3, 0.18, 0.14, 0.24, paint=1),
            *(ball(0.45 + 0.07 * i, 0.7 - 0.14 * i, -0.2, 0.1, paint=1) for i in range(6)),
        ),
        turns=False,
        verbs=("moving", "turning", "swaying"),
    ),
    Noun(
        "toy rabbit",
        "toy rabbits",
        (
            ball(0, 0.5, 0, 0.52, 0.5, 0.46),
            ball(0, -0.15, 0.1, 0.42, 0.36, 0.38),
            *pair(0.2, -0.7, 0, 0.13, 0.4, 0.09),
            *pair(0.2, -0.68, 0.06, 0.07, 0.28, 0.06, paint=1),
            *eyes(0.16, -0.22, 0.42, 0.07),
            ball(0, -0.08, 0.47, 0.06, 0.045, 0.05, paint=(214, 110, 120)),
            *pair(0.3, 0.9, 0.28, 0.2, 0.12, 0.3),
        ),
        turns=False,
        verbs=("hopping", "turning", "moving"),
    ),
    Noun(
        "toy penguin",
        "toy penguins",
        (
            ball(0, 0.1, 0, 0.58, 0.86, 0.5),
            ball(0, 0.25, 0.16, 0.42, 0.62, 0.38, paint=IVORY),
            *pair(0.6, 0.15, 0, 0.11, 0.46, 0.2, paint=1),
            *eyes(0.17, -0.45, 0.4, 0.08),
            ball(0, -0.32, 0.5, 0.12, 0.07, 0.2, paint=AMBER),
            *pair(0.26, 0.93, 0.2, 0.2, 0.08, 0.28, paint=AMBER),
        ),
        turns=False,
        verbs=("waddling", "turning", "moving"),
    ),
    Noun(
        "toy owl",
        "toy owls",
        (
            ball(0, 0.05, 0, 0.66, 0.9, 0.55),
            *(Part((s * 0.36, -0.82, 0), (0.15, 0.18, 0.12), CONE) for s in (-1, 1)),
            *pair(0.25, -0.35, 0.42, 0.23, 0.23, 0.12, paint=IVORY),
            *pair(0.25, -0.35, 0.53, 0.1, 0.1, 0.06, paint=DARK),
            ball(0, -0.18, 0.56, 0.08, 0.12, 0.08, paint=AMBER),
            *pair(0.62, 0.2, 0, 0.12, 0.5, 0.32, paint=1),
        ),
        turns=False,
        verbs=("turning", "swaying", "moving"),
    ),
    Noun(
        "snowman",
        "snowmen",
        (
            ball(0, 0.5, 0, 0.55, 0.5, 0.55, paint=IVORY),
            ball(0, -0.12, 0, 0.4, 0.38, 0.4),
            ball(0, -0.58, 0, 0.29, paint=IVORY),
            Part((0, -0.9, 0), (0.24, 0.2, 0.24), BLOCK, DARK),
            Part((0, -0.76, 0), (0.38, 0.04, 0.38), CAN, DARK),
            ball(0, -0.55, 0.34, 0.05, 0.05, 0.16, paint=AMBER),
            *pair(0.11, -0.64, 0.25, 0.045, paint=DARK),
        ),
        turns=False,
        verbs=("sliding", "turning", "moving"),
    ),
    Noun(
        "piggy bank",
        "piggy banks",
        (
            ball(0, 0.05, 0, 0.95, 0.68, 0.66),
            ball(-0.85, -0.05, 0, 0.3, 0.3, 0.32, paint=1),
            *(ball(-0.55, -0.62, s * 0.25, 0.13, 0.18, 0.1, paint=1) for s in (-1, 1)),
            *(ball(x, 0.72, z, 0.17, 0.24, 0.17) for x in (-0.5, 0.5) for z in (-0.3, 0.3)),
            ball(-0.74, -0.28, 0.36, 0.07, paint=DARK),
            *arc((0.98, -0.1), (0.14, 0.14), (-60, 220), 0.06),
        ),
        verbs=("sliding", "moving", "turning"),
    ),
    Noun(
        "toy turtle",
        "toy turtles",
        (
            Part((0, 0, 0), (1, 0.5, 0.8), ((-1, 0.1), (-0.85, 0.45), (0, 0.85), (1, 1))),
            ball(-1.15, 0.15, 0, 0.32, 0.28, 0.26, paint=1),
            ball(-1.28, 0.05, 0.2, 0.06, paint=DARK),
            *(
                ball(x, 0.52, z, 0.26, 0.24, 0.22, paint=1)
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
            ball(0, 0, 0, 1, 0.62, 0.36),
            *(
                ball(1.0 + 0.08 * i, 0.08 * i * s, 0, 0.14, paint=1)
                for i in range(5)
                for s in (-1, 1)
            ),
            ball(0.1, -0.6, 0, 0.38, 0.2, 0.06, paint=1),
            *(ball(-0.62, -0.15, s * 0.27, 0.11, paint=IVORY) for s in (-1, 1)),
            *(ball(-0.64, -0.15, s * 0.35, 0.06, paint=DARK) for s in (-1, 1)),
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
            *wheels(0.72, 0.45, 0.48, 0.26),
            *(ball(-1.2, 0.18, s * 0.3, 0.06, 0.09, 0.09, paint=IVORY) for s in (-1, 1)),
        ),
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
            *wheels(0.75, 0.55, 0.46, 0.25),
        ),
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
        turns=False,
        verbs=("floating", "drifting", "moving"),
    ),
    Noun(
        "toy rocket",
        "toy rockets",
        (
            Part((0, 0.15, 0), (0.42, 0.7, 0.42), ((-1, 0.7), (-0.3, 1), (0.6, 0.95), (1, 0.7))),
            Part((0, -0.77, 0), (0.31, 0.25, 0.31), ((-1, 0.03), (0, 0.65), (1, 1)), 1),
            *(ball(s * 0.46, 0.72, 0, 0.14, 0.3, 0.06, paint=1) for s in (-1, 1)),
            *(ball(0, 0.72, s * 0.46, 0.06, 0.3, 0.14, paint=1) for s in (-1, 1)),
            ball(0, -0.1, 0.38, 0.15, 0.15, 0.08, paint=(90, 150, 190)),
        ),
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
        turns=False,
        verbs=("turning", "moving", "sliding"),
    ),
    Noun(
        "gift box",
        "gift boxes",
        (
            Part((0, 0.15, 0), (0.8, 0.7, 0.8), BLOCK, square=True),
            Part((0, -0.6, 0), (0.88, 0.12, 0.88), BLOCK, 1, True),
            *pair(0.22, -0.82, 0, 0.24, 0.14, 0.12, paint=1),
        ),
        verbs=("turning", "sliding", "moving"),
    ),
)
