"""Which clips a seed makes: 60 manifest rows, each with its expected verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np

from jobs.synthetic import staging
from jobs.synthetic.captions import caption
from jobs.synthetic.scene import Scene, Subject

Damage = Literal["", "empty", "text", "no_moov", "cut_file", "audio_only", "missing", "duplicate"]

KEPT = ("kept",)
LANDSCAPE, PORTRAIT = (1920, 1080), (1080, 1920)
SMALL, SMALL_PORTRAIT, CLASSIC = (854, 480), (480, 854), (640, 480)
NTSC, FILM = Fraction(30_000, 1001), Fraction(24_000, 1001)


@dataclass(frozen=True, slots=True)
class Shot:
    """A scene and for how many frames it is shown."""

    scene: Scene
    frames: int


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """One row of the manifest, and what is true of it.

    size: (width, height) upright; rotation: degrees clockwise that a player must turn; published:
    the OpenVid columns after the caption; expected: the right verdicts, `kept` or
    `rejected:stage` or `failed:stage`, nearly always one; reason: the class that recall is counted
    by; tags: what else is odd about it.
    """

    row: int
    video: str
    size: tuple[int, int]
    rate: Fraction
    shots: tuple[Shot, ...]
    rotation: int
    caption: str
    published: tuple[str, ...]
    damage: Damage
    expected: tuple[str, ...]
    reason: str
    tags: tuple[str, ...]
    seed: int

    @property
    def frames(self) -> int:
        """Of the whole clip."""
        return sum(shot.frames for shot in self.shots)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of row before chance has filled it in. frames: 0 lets chance choose."""

    reason: str
    expected: tuple[str, ...] = KEPT
    size: tuple[int, int] = SMALL
    rate: Fraction = Fraction(25)
    frames: int = 0
    rotation: int = 0
    damage: Damage = ""
    name: str = "{id}_{scene}_{start}to{end}.mp4"
    tags: tuple[str, ...] = ()
    count: int = 1


KINDS: tuple[Kind, ...] = (
    Kind("kept", size=LANDSCAPE, count=4),
    Kind("kept", size=LANDSCAPE, rate=Fraction(24), count=4),
    Kind("kept", size=LANDSCAPE, rate=Fraction(30), count=3),
    Kind("kept", size=LANDSCAPE, rate=NTSC, count=3),
    Kind("kept", size=LANDSCAPE, rate=FILM, count=3, tags=("23.976 fps",)),
    Kind("kept", size=LANDSCAPE, rate=Fraction(24), tags=("no scores",)),
    Kind("kept", size=PORTRAIT, rate=Fraction(30), tags=("portrait",), count=2),
    Kind("kept", size=PORTRAIT, rotation=90, tags=("portrait", "rotated")),
    Kind("kept", size=SMALL, rotation=180, tags=("rotated",)),
    Kind("kept", size=SMALL_PORTRAIT, rotation=270, tags=("portrait", "rotated")),
    Kind("kept", rate=Fraction(25, 2), frames=86, tags=("12.5 fps",)),
    Kind("kept", size=CLASSIC, rate=FILM, tags=("23.976 fps",)),
    Kind("kept", rate=Fraction(60), frames=150, tags=("60 fps",)),
    Kind("kept", name="-{id}_{scene}_{start}to{end}.mp4", tags=("leading dash",)),
    Kind("kept", size=CLASSIC, name="{id}.{noun}.take.2.mp4", tags=("dots",)),
    Kind("kept", name="{noun} in the room {id} (3).mp4", tags=("spaces",)),
    Kind("kept", size=SMALL_PORTRAIT, name="Übung_花瓶_{id}.mp4", tags=("portrait", "non-ASCII")),
    Kind("low_aesthetic", ("rejected:appearance",), LANDSCAPE),
    Kind("low_aesthetic", ("rejected:appearance",)),
    Kind("static", ("rejected:motion",), LANDSCAPE, tags=("noise",)),
    Kind("static", ("rejected:motion",), CLASSIC, tags=("no noise",)),
    Kind("two_of_a_kind", ("rejected:entities",), LANDSCAPE),
    Kind("two_of_a_kind", ("rejected:entities",), CLASSIC),
    Kind("cluttered", ("rejected:entities",), LANDSCAPE),
    Kind("cluttered", ("rejected:entities",)),
    Kind("no_subject", ("rejected:entities",), tags=("hills",)),
    Kind("no_subject", ("rejected:entities",), CLASSIC, tags=("abstract",)),
    Kind("no_caption", ("failed:entities",)),
    Kind("too_small", ("rejected:probe",), (320, 180)),
    Kind("too_small", ("rejected:probe",), (180, 320), tags=("portrait",)),
    Kind("too_short", ("rejected:probe",), frames=60),
    Kind("too_short", ("rejected:probe",), CLASSIC, Fraction(30), frames=72),
    Kind("cut_early", ("rejected:appearance",), tags=("cut",)),
    Kind("cut_late", ("rejected:appearance",), CLASSIC, tags=("cut",)),
    Kind("cut_middle", ("rejected:appearance",), tags=("cut",)),
    Kind("frantic", ("rejected:motion",), tags=("shake",)),
    Kind("frantic", ("rejected:motion",), CLASSIC, tags=("whip",)),
    Kind("at_border", ("rejected:segment",), count=2),
    Kind("leaving", ("rejected:segment",)),
    Kind("empty", ("failed:probe",), damage="empty"),
    Kind("renamed_text", ("failed:probe",), damage="text"),
    Kind("no_moov", ("failed:probe",), damage="no_moov"),
    Kind("cut_after_moov", ("failed:appearance",), damage="cut_file"),
    Kind("audio_only", ("failed:probe",), damage="audio_only"),
    Kind("missing", ("failed:probe",), damage="missing"),
    Kind("listed_twice", ("rejected:manifest",), damage="duplicate"),
)

NAME_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


def _staged(kind: Kind, scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene that a kind wants, out of one that would be kept."""
    tag = kind.tags[0] if kind.tags else ""
    change: dict[str, Callable[[], Scene]] = {
        "static": lambda: staging.still(scene, 2.5 if tag == "noise" else 0.0),
        "frantic": lambda: staging.frantic(scene, tag),
        "two_of_a_kind": lambda: staging.twins(scene, rng),
        "cluttered": lambda: staging.cluttered(scene),
        "at_border": lambda: staging.at_border(scene, rng),
        "leaving": lambda: staging.leaving(scene, rng),
        "no_subject": lambda: staging.view(rng, tag),
    }
    return change.get(kind.reason, lambda: scene)()


def _shots(
    kind: Kind, scene: Scene, other: Scene, frames: int, rng: np.random.Generator
) -> tuple[Shot, ...]:
    """One shot, or two around a cut."""
    early = round(0.3 * float(kind.rate))
    at = {"cut_early": early, "cut_late": frames - early, "cut_middle": frames // 2}
    if kind.reason not in at:
        return (Shot(scene, frames),)
    dark, bright = (
        staging.DARK_PLACES[int(rng.integers(len(staging.DARK_PLACES)))],
        staging.BRIGHT_PLACES[int(rng.integers(len(staging.BRIGHT_PLACES)))],
    )
    first, second = (dark, bright) if rng.random() < 0.5 else (bright, dark)
    before = Shot(replace(scene, place=first), at[kind.reason])
    return before, Shot(replace(other, place=second), frames - at[kind.reason])


def _published(kind: Kind, camera: str, frames: int, rng: np.random.Generator) -> tuple[str, ...]:
    """The columns after the caption, in OpenVid's ranges; a few scores are empty."""
    good = staging.uniform(rng, 5.32, 5.6) + float(rng.gamma(2.0, 0.35))
    low = staging.uniform(rng, 5.0, 5.26)
    aesthetic = f"{low if kind.reason == 'low_aesthetic' else min(good, 8.76):.6f}"
    moved = f"{staging.uniform(rng, 0.4, 22):.6f}"
    steady = f"{staging.uniform(rng, 0.95, 0.9995):.6f}"
    scores = ("", "", "") if "no scores" in kind.tags else (aesthetic, moved, steady)
    if kind.reason == "kept" and rng.random() < 0.1:
        scores = ("", moved, steady)
    word = "Undetermined" if camera in ("handheld", "shake", "whip") else camera
    rate = round(float(kind.rate), 3)
    return (*scores, word, str(frames), f"{rate:g}", f"{frames / float(kind.rate):.6f}")


def _name(kind: Kind, subject: Subject, frames: int, rng: np.random.Generator) -> str:
    letters = "".join(NAME_LETTERS[int(i)] for i in rng.integers(0, len(NAME_LETTERS), 11))
    start = int(rng.integers(0, 400))
    return kind.name.format(
        id=letters,
        scene=int(rng.integers(0, 60)),
        start=start,
        end=start + frames,
        noun=subject.noun,
    )


def _suited(kind: Kind, pool: list[Subject]) -> Subject:
    """The next subject whose shape fits the frame: wide ones need a wide and large one."""
    tight = kind.size[0] < 1000 or kind.size[0] < kind.size[1] or kind.reason == "two_of_a_kind"
    for number, subject in enumerate(pool):
        if not tight or 0.68 <= staging.aspect(subject.noun) <= 1.25:
            return pool.pop(number)
    return pool.pop(0)


def make_plan(seed: int) -> list[ClipPlan]:
    """The rows of a corpus, in the manifest's order."""
    rng = np.random.default_rng(seed)
    kinds = [replace(kind, count=1) for kind in KINDS for _ in range(kind.count)]
    pool = staging.subjects(rng, 2 * len(kinds))
    tight_first = sorted(range(len(kinds)), key=lambda i: -kinds[i].size[0])
    chosen = {i: _suited(kinds[i], pool) for i in tight_first}
    plans = [
        _plan(kind, chosen[i], pool[i], np.random.default_rng((seed, i)))
        for i, kind in enumerate(kinds)
    ]
    rows = [plans[int(i)] for i in rng.permutation(len(plans))]
    _list_twice(rows)
    return [replace(plan, row=row) for row, plan in enumerate(rows)]


def _list_twice(rows: list[ClipPlan]) -> None:
    """Fills the row that repeats another one: the later of the two is the repetition."""
    at = next((i for i, plan in enumerate(rows) if plan.damage == "duplicate"), None)
    original = next((i for i, p in enumerate(rows) if p.reason == "kept" and not p.tags), None)
    if at is None or original is None:
        return
    repeated, twice = rows[at], rows[original]
    first, second = sorted((at, original))
    rows[first] = twice
    rows[second] = replace(
        twice, damage="duplicate", expected=repeated.expected, reason=repeated.reason
    )


def _plan(kind: Kind, subject: Subject, other: Subject, rng: np.random.Generator) -> ClipPlan:
    seconds = staging.uniform(rng, 3.4, 4.2)
    frames = kind.frames or max(84, round(seconds * float(kind.rate)))
    scene = _staged(kind, staging.single(rng, subject, *kind.size), rng)
    second = staging.single(rng, other, *kind.size)
    shots = _shots(kind, scene, second, frames, rng)
    return ClipPlan(
        row=-1,
        video=_name(kind, subject, frames, rng),
        size=kind.size,
        rate=kind.rate,
        shots=shots,
        rotation=kind.rotation,
        caption="" if kind.reason == "no_caption" else caption(shots[0].scene, rng),
        published=_published(kind, scene.camera.kind, frames, rng),
        damage=kind.damage,
        expected=kind.expected,
        reason=kind.reason,
        tags=kind.tags,
        seed=int(rng.integers(1 << 30)),
    )
