"""Captions in the manner of OpenVid's: two or three sentences that are honest about the clip."""

from __future__ import annotations

import numpy as np

from jobs.synthetic.background import BACKDROPS, GROUNDS
from jobs.synthetic.nouns import BY_WORD
from jobs.synthetic.scene import Scene, Subject

LOOKS: dict[str, tuple[str, ...]] = {
    "plain": ("{first} {noun}", "{first} {noun}"),
    "striped": ("{first} and {second} striped {noun}", "striped {first} {noun}"),
    "banded": ("{first} and {second} striped {noun}", "{first} {noun} with {second} bands"),
    "checkered": ("{first} and {second} checkered {noun}", "checkered {first} {noun}"),
    "spotted": ("{first} {noun} with {second} spots", "{first} spotted {noun}"),
    "speckled": ("speckled {first} {noun}", "{first} {noun} with {second} speckles"),
    "marbled": ("marbled {first} {noun}", "{first} and {second} marbled {noun}"),
    "floral": ("{first} {noun} with a {second} floral pattern", "floral {first} {noun}"),
    "patchwork": ("{first} and {second} patchwork {noun}", "{first} patchwork {noun}"),
}

OPENINGS = (
    "In the video, {one} is {verb} {where}.",
    "The video shows {one} {verb} {where}.",
    "The video features {one} {verb} {where}.",
    "The video is a display of {one} {where}.",
    "The video captures {one} {verb} {where}.",
    "In this video, we see {one} {verb} {where}.",
    "The video is a close-up of {one} {verb} {where}.",
    "{one} is seen {verb} {where}.",
)

MIDDLES = (
    "The {noun} is the main focus of the video, with {back} behind it.",
    "In the background, slightly out of focus, one can see {back}.",
    "Its {first} surface catches the light as it moves.",
    "It moves at an unhurried pace, with {back} in the background.",
    "The light comes from the left and the {noun} casts a soft shadow.",
)

CLUTTERED = (
    "The background is cluttered with boxes, toys, bottles and many other things.",
    "It is surrounded by a cluttered, busy scene full of toys, jars and other objects.",
)

CAMERAS = {
    "static": ("The camera remains static throughout the video.", "The camera is fixed."),
    "pan_left": ("The camera pans slowly to the left.",),
    "pan_right": ("The camera pans slowly to the right.",),
    "tilt_up": ("The camera tilts slowly upwards.",),
    "zoom_in": ("The camera slowly zooms in.",),
    "zoom_out": ("The camera slowly zooms out.",),
    "handheld": ("The camera is handheld and moves slightly.",),
    "shake": ("The camera shakes violently.",),
    "whip": ("The camera swings quickly from side to side.",),
}

STYLES = (
    "The overall style of the video is simple and playful.",
    "The lighting is soft and even.",
    "The mood of the video is calm.",
    "",
    "",
)

VIEWS = {
    "abstract": (
        "The video is an abstract display of swirling colours that blend into one another.",
        "The video features an abstract pattern of flowing colours and shapes.",
    ),
    "hills": (
        "The video captures a scenic view of rolling green hills under a cloudy sky.",
        "The video is a landscape of green hills and meadows stretching into the distance.",
    ),
    "sea": (
        "The video shows a calm sea and a sandy beach under a wide sky.",
        "The video captures a peaceful view of the ocean meeting the beach.",
    ),
}


def _choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def name(subject: Subject, rng: np.random.Generator, plural: bool = False) -> str:
    """What a person would call a subject: `red and white striped vase`."""
    noun = BY_WORD[subject.noun]
    look = _choose(rng, LOOKS[subject.pattern])
    return look.format(
        first=subject.first, second=subject.second, noun=noun.plural if plural else noun.word
    )


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """The caption of a clip, from its first scene."""
    camera = _choose(rng, CAMERAS[scene.camera.kind])
    if not scene.actors:
        return " ".join([_choose(rng, VIEWS[scene.place[0]]), camera])
    subject = scene.actors[0].subject
    noun = BY_WORD[subject.noun]
    several = len(scene.actors) > 1
    called = name(subject, rng, several)
    article = "two" if several else "an" if called[0] in "aeiou" else "a"
    back = BACKDROPS[scene.place[0]][1]
    ground = GROUNDS[scene.place[1] or "wood"][1]
    opening = _choose(rng, OPENINGS).format(
        one=f"{article} {called}",
        verb=_choose(rng, noun.verbs) if _moves(scene) else "standing",
        where=_choose(rng, (f"on {ground}", f"on {ground} in front of {back}")),
    )
    if several:
        opening = opening.replace(f"{called} is ", f"{called} are ")
        middle = f"Both are {subject.first} and move at the same time."
    elif scene.clutter:
        middle = _choose(rng, CLUTTERED)
    else:
        middle = _choose(rng, MIDDLES if _moves(scene) else MIDDLES[:2]).format(
            noun=noun.word, back=back, first=subject.first
        )
    sentences = (opening[0].upper() + opening[1:], middle, camera, _choose(rng, STYLES))
    return " ".join(sentence for sentence in sentences if sentence)


def _moves(scene: Scene) -> bool:
    route = scene.actors[0].route
    return any((route.sweep, route.drift, route.spin, route.hop, route.sway, route.grow))
