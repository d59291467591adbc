"""Scenes on purpose: one function per kind of clip that a corpus must hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from jobs.synthetic.background import PLACES, Place
from jobs.synthetic.nouns import BY_WORD, NOUNS
from jobs.synthetic.scene import Actor, Camera, Route, Scene, Subject
from jobs.synthetic.solid import extent
from jobs.synthetic.texture import COLOURS, PATTERNS

MIN_SUBJECT_PX = 165
"""Short side of a kept subject: above the 128 px that a reference must have at least (ours)."""

DARK_PLACES: tuple[Place, ...] = (("bokeh", "wood"), ("bokeh", "stone"), ("curtain", "carpet"))
BRIGHT_PLACES: tuple[Place, ...] = (("sea", "sand"), ("hills", "sand"), ("sea", "grass"))
"""Two places whose colours differ so much that a change between them is plainly a cut."""


FEATURED_PLACES: tuple[Place, ...] = (("plaster", "wood"), ("plaster", "stone"), ("town", "sand"))
"""Places of features so large that fast motion can be measured."""


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A plain float between two bounds."""
    return float(rng.uniform(low, high))


def aspect(word: str) -> float:
    """Width over height of a noun, at its widest."""
    half, top, bottom = extent(BY_WORD[word].parts)
    return 2 * half / (bottom - top)


def subjects(rng: np.random.Generator, count: int) -> list[Subject]:
    """`count` subjects, no two alike; every noun comes before one is used twice."""
    words: list[str] = []
    while len(words) < count:
        words += [NOUNS[i].word for i in rng.permutation(len(NOUNS))]
    colours, patterns = list(COLOURS), list(PATTERNS)
    made: list[Subject] = []
    for number in range(count):
        pattern = patterns[(number + int(rng.integers(2))) % len(patterns)]
        first, second = (colours[int(i)] for i in rng.choice(len(colours), 2, replace=False))
        while math.dist(COLOURS[first], COLOURS[second]) < 110:
            second = colours[int(rng.integers(len(colours)))]
        gloss, seed = uniform(rng, 0, 0.9), int(rng.integers(1 << 30))
        made.append(Subject(words[number], pattern, first, second, gloss, seed))
    return made


def _camera(rng: np.random.Generator) -> Camera:
    kinds = ("static",) * 8 + ("pan_left", "pan_right", "zoom_in", "zoom_out", "tilt_up")
    kind = (*kinds, "handheld", "handheld")[int(rng.integers(len(kinds) + 2))]
    amount = {"static": 0.0, "handheld": uniform(rng, 0.003, 0.007)}
    return Camera(kind, amount.get(kind, uniform(rng, 0.05, 0.12)))


def _size(rng: np.random.Generator, word: str, width: int, height: int) -> float:
    """Height as a share of the shorter side: neither too small to use nor too wide to move."""
    short, wide = min(width, height), aspect(word)
    least = MIN_SUBJECT_PX / (short * min(1.0, 0.85 * wide))
    most = 0.5 * width / (short * wide)
    return min(max(uniform(rng, 0.42, 0.62), least), most, 0.72)


def single(rng: np.random.Generator, subject: Subject, width: int, height: int) -> Scene:
    """One subject that moves within the frame for the whole clip: what should be kept."""
    noun, camera = BY_WORD[subject.noun], _camera(rng)
    size = _size(rng, subject.noun, width, height)
    grow = uniform(rng, 0, 0.1) if rng.random() < 0.5 else 0.0
    reach = aspect(subject.noun) * size * min(width, height) / (2 * width) * (1 + grow)
    edge = reach + 0.03 + (camera.amount if camera.kind != "static" else 0.0) / 2
    sweep = min(uniform(rng, 0.07, 0.2), max(0.0, 0.5 - edge))
    middle = max(0.0, 0.5 - edge - sweep)
    tall = size * min(width, height) / height * (1 + grow)
    hop = uniform(rng, 0.02, 0.06) if rng.random() < 0.25 else 0.0
    route = Route(
        x=0.5 + uniform(rng, -middle, middle),
        y=min(max(uniform(rng, 0.74, 0.88), tall + hop + 0.08), 0.92),
        sweep=sweep,
        period=2 * math.pi * sweep / uniform(rng, 0.1, 0.2),
        phase=uniform(rng, -0.7, 0.7) + math.pi * int(rng.integers(2)),
        hop=hop,
        hop_period=uniform(rng, 0.6, 0.9),
        grow=grow,
        roll=uniform(rng, 0, 0.07) if rng.random() < 0.6 else 0.0,
        yaw=uniform(rng, -0.35, 0.35),
        spin=uniform(rng, 0.5, 1.3) * (-1) ** int(rng.integers(2)) if noun.turns else 0.0,
        sway=0.0 if noun.turns else uniform(rng, 0.25, 0.55),
    )
    place = PLACES[int(rng.integers(len(PLACES)))]
    return Scene(
        place, (Actor(subject, route, size),), camera, int(rng.integers(1 << 30)),
        uniform(rng, 1.0, 3.0),
    )  # fmt: skip


def still(scene: Scene, noise: float) -> Scene:
    """The same scene with nothing moving; noise alone differs between frames."""
    actor = scene.actors[0]
    held = Route(x=actor.route.x, y=actor.route.y, yaw=actor.route.yaw)
    return replace(
        scene, actors=(replace(actor, route=held),), camera=Camera("static"), noise=noise
    )


def frantic(scene: Scene, kind: str) -> Scene:
    """The same subject seen by a camera that is thrown about.

    The place has large features: where all is fine and alike, no flow can follow such motion.
    """
    place = FEATURED_PLACES[scene.seed % len(FEATURED_PLACES)]
    amount = {"shake": 0.16, "whip": 0.34}[kind]
    return replace(scene, place=place, camera=Camera(kind, amount), margin=1.8)


def twins(scene: Scene, rng: np.random.Generator) -> Scene:
    """Two subjects of one kind, side by side, both moving."""
    actor = scene.actors[0]
    size = min(actor.size, 0.5)
    pair = []
    for x in (0.29, 0.71):
        route = replace(actor.route, x=x, sweep=0.07, period=uniform(rng, 2.5, 3.5), hop=0.0)
        twin = replace(actor.subject, seed=int(rng.integers(1 << 30)))
        pair.append(Actor(twin, route, size))
    return replace(scene, actors=(pair[0], pair[1]), camera=Camera("static"))


def cluttered(scene: Scene) -> Scene:
    """The same scene with many things lying about."""
    return replace(scene, clutter=34)


def at_border(scene: Scene, rng: np.random.Generator) -> Scene:
    """The subject stands in a lower corner, for the most part outside of the frame."""
    actor, side = scene.actors[0], int(rng.integers(2))
    size = max(actor.size, 0.7)
    route = replace(
        actor.route, x=float(side), y=1.0 + 0.48 * size, sweep=0.04, period=2.5, hop=0.0, grow=0.0
    )
    return replace(scene, actors=(replace(actor, route=route, size=size),), camera=Camera("static"))


def leaving(scene: Scene, rng: np.random.Generator) -> Scene:
    """The subject leaves the frame within the first 1.4 s and stays away; the camera pans on."""
    actor, way = scene.actors[0], (-1) ** int(rng.integers(2))
    route = replace(actor.route, x=0.5 + 0.14 * way, sweep=0.0, drift=0.58 * way, hop=0.0, grow=0.0)
    camera = Camera("pan_left" if way > 0 else "pan_right", 0.12)
    small = replace(actor, route=route, size=min(actor.size, 0.45))
    return replace(scene, actors=(small,), camera=camera)


def view(rng: np.random.Generator, kind: str) -> Scene:
    """A place without a subject, seen by a moving camera."""
    place: Place = {"abstract": ("abstract", None), "hills": ("hills", "grass")}.get(
        kind, ("sea", "sand")
    )
    way = ("pan_left", "pan_right")[int(rng.integers(2))]
    return Scene(place, (), Camera(way, 0.26), int(rng.integers(1 << 30)))
