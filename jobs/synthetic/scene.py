"""A scene in motion: who moves how, before what, and how the camera looks on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from jobs.synthetic.background import Place, paint
from jobs.synthetic.nouns import BY_WORD
from jobs.synthetic.solid import Picture, draw, extent
from jobs.synthetic.texture import COLOURS, surface

SPRITE_PX = 190.0
"""Pixels per unit at which a subject is drawn at most; larger ones are enlarged, as lenses do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is seen: a noun in a pattern of two colours; gloss: 0 cloth .. 1 glaze."""

    noun: str
    pattern: str
    first: str
    second: str
    gloss: float
    seed: int


@dataclass(frozen=True, slots=True)
class Route:
    """How a subject moves. Places are shares of the frame; angles radians; times seconds.

    x, y: where its foot stands at rest; sweep: half width of its walk to and fro; drift: shares of
    the width per second; hop: height of its hops; grow: how much it comes nearer and goes away.
    """

    x: float
    y: float
    sweep: float = 0.0
    period: float = 4.0
    phase: float = 0.0
    drift: float = 0.0
    hop: float = 0.0
    hop_period: float = 0.8
    grow: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    spin: float = 0.0
    sway: float = 0.0

    def place(self, t: float) -> tuple[float, float, float]:
        """(x, y, size factor) at time t."""
        turn = 2 * math.pi * t / self.period + self.phase
        x = self.x + self.sweep * math.sin(turn) + self.drift * t
        y = self.y - self.hop * abs(math.sin(math.pi * t / self.hop_period + self.phase))
        return x, y, 1 + self.grow * math.sin(0.8 * turn)

    def turned(self, t: float) -> tuple[float, float]:
        """(yaw, roll) at time t."""
        turn = 2 * math.pi * t / self.period + self.phase
        return self.yaw + self.spin * t + self.sway * math.sin(turn), self.roll * math.sin(
            1.7 * turn
        )


@dataclass(frozen=True, slots=True)
class Camera:
    """static, pan_left, pan_right, tilt_up, zoom_in, zoom_out, handheld, shake or whip.

    amount: share of the frame's width travelled in all (pans), or gained (zooms), or swung.
    """

    kind: str = "static"
    amount: float = 0.0

    def view(self, t: float, seconds: float) -> tuple[float, float, float]:
        """(x, y, zoom): shift of the view in shares of the frame's width and height."""
        along = t / seconds - 0.5
        a = self.amount
        match self.kind:
            case "pan_left":
                return -a * along, 0.0, 1.0
            case "pan_right":
                return a * along, 0.0, 1.0
            case "tilt_up":
                return 0.0, -a * along, 1.0
            case "zoom_in":
                return 0.0, 0.0, 1 + a * t / seconds
            case "zoom_out":
                return 0.0, 0.0, 1 + a * (1 - t / seconds)
            case "handheld":
                return (
                    a * math.sin(2.1 * t) + 0.4 * a * math.sin(5.3 * t),
                    a * math.sin(3.1 * t),
                    1.0,
                )
            case "shake":
                return a * math.sin(4.2 * t), 1.2 * a * math.sin(3.3 * t + 1), 1.0
            case "whip":
                return a * (4 * abs((0.26 * t) % 1 - 0.5) - 1), 0.0, 1.0
        return 0.0, 0.0, 1.0


@dataclass(frozen=True, slots=True)
class Actor:
    """A subject on its path. size: its height as a share of the frame's shorter side."""

    subject: Subject
    route: Route
    size: float


@dataclass(frozen=True, slots=True)
class Scene:
    """One shot without a cut.

    noise: grey levels of the sensor's noise; clutter: how many things lie about; margin: the
    painted place as a multiple of the frame.
    """

    place: Place
    actors: tuple[Actor, ...]
    camera: Camera
    seed: int
    noise: float = 2.0
    clutter: int = 0
    margin: float = 1.3


class Painted:
    """A scene ready to be seen at any time."""

    def __init__(self, scene: Scene, width: int, height: int, seconds: float) -> None:
        self.scene, self.width, self.height, self.seconds = scene, width, height, seconds
        rng = np.random.default_rng(scene.seed)
        rows, columns = round(height * scene.margin), round(width * scene.margin)
        self.canvas = paint(scene.place, rng, rows, columns)
        for depth in np.sort(rng.uniform(0.5, 0.98, scene.clutter)):
            self._litter(rng, float(depth))
        self._seen: tuple[np.ndarray, np.ndarray] | None = None
        self.surfaces = [_surfaces(actor.subject) for actor in scene.actors]

    def frame(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """The picture at time t: rgb (H, W, 3) uint8, and alpha (H, W) uint8 of the first actor."""
        view = self._view(t)
        rgb = self._place(view)
        mask = np.zeros((self.height, self.width), np.uint8)
        order = sorted(enumerate(self.scene.actors), key=lambda pair: pair[1].route.y)
        for number, actor in order:
            alpha = self._act(rgb, actor, self.surfaces[number], view, t)
            mask = alpha if number == 0 else cv2.subtract(mask, alpha)
        return rgb, mask

    def _place(self, view: np.ndarray) -> np.ndarray:
        """The place without actors; drawn once for as long as the camera rests."""
        if self._seen is None or not np.array_equal(view, self._seen[0]):
            size = (self.width, self.height)
            picture = cv2.warpAffine(self.canvas, view, size, borderMode=cv2.BORDER_REPLICATE)
            self._seen = view, picture
        return self._seen[1].copy()

    def _view(self, t: float) -> np.ndarray:
        """(2, 3) from the painted place to the frame."""
        x, y, zoom = self.scene.camera.view(t, self.seconds)
        rows, columns = self.canvas.shape[:2]
        centre = columns / 2 + x * self.width, rows / 2 + y * self.height
        return np.array(
            [
                [zoom, 0, self.width / 2 - zoom * centre[0]],
                [0, zoom, self.height / 2 - zoom * centre[1]],
            ]
        )

    def _act(
        self,
        rgb: np.ndarray,
        actor: Actor,
        surfaces: list[np.ndarray],
        view: np.ndarray,
        t: float,
    ) -> np.ndarray:
        """Draws an actor with its shadow into rgb; its alpha (H, W)."""
        x, y, size = actor.route.place(t)
        yaw, roll = actor.route.turned(t)
        rows, columns = self.canvas.shape[:2]
        foot = (
            view[:, :2]
            @ [
                columns / 2 + (x - 0.5) * self.width,
                rows / 2 + (y - 0.5) * self.height,
            ]
            + view[:, 2]
        )
        zoom = float(view[0, 0]) * size
        ground = foot[1] + zoom * (actor.route.y - y) * self.height
        parts = BY_WORD[actor.subject.noun].parts
        half, top, bottom = extent(parts)
        unit = actor.size * min(self.width, self.height) / (bottom - top) * zoom
        fixed = actor.size * min(self.width, self.height) / (bottom - top)
        picture = draw(parts, surfaces, yaw, min(fixed, SPRITE_PX), actor.subject.gloss)
        _shadow(rgb, float(foot[0]), ground, half * unit)
        return _paste(rgb, picture, (float(foot[0]), float(foot[1])), unit / picture.scale, roll)

    def _litter(self, rng: np.random.Generator, depth: float) -> None:
        """Stands one still thing into the painted place, at a share of its height."""
        rows, columns = self.canvas.shape[:2]
        words, colours = list(BY_WORD), list(COLOURS)
        first, second = rng.choice(len(colours), 2, replace=False)
        word = words[int(rng.integers(len(words)))]
        pattern = ("plain", "striped", "checkered", "spotted")[int(rng.integers(4))]
        subject = Subject(
            word, pattern, colours[first], colours[second], 0.3, int(rng.integers(1 << 30))
        )
        picture = draw(
            BY_WORD[word].parts, _surfaces(subject), rng.uniform(-0.6, 0.6), rows / 13, 0.3
        )
        foot = (float(rng.uniform(0, columns)), depth * rows)
        _shadow(self.canvas, *foot, picture.rgb.shape[1] / 2)
        _paste(self.canvas, picture, foot, rng.uniform(0.6, 1.1), 0.0)


def _surfaces(subject: Subject) -> list[np.ndarray]:
    rng = np.random.default_rng(subject.seed)
    first, second = COLOURS[subject.first], COLOURS[subject.second]
    return [surface(subject.pattern, first, second, rng), surface("plain", second, first, rng)]


def _box(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels that points cover, inside the frame: x0, y0, x1, y1."""
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0)) + 1
    x0, x1 = (int(np.clip(v, 0, width)) for v in (low[0], high[0]))
    y0, y1 = (int(np.clip(v, 0, height)) for v in (low[1], high[1]))
    return x0, y0, x1, y1


def _shadow(rgb: np.ndarray, x: float, y: float, half: float) -> None:
    """A soft shadow on the ground, a little to the right: the lamp is on the left."""
    height, width = rgb.shape[:2]
    reach = np.array([1.25 * half, 0.3 * half])
    centre = np.array([x + 0.15 * half, y])
    x0, y0, x1, y1 = _box(np.stack([centre - reach, centre + reach]), width, height)
    if x0 >= x1 or y0 >= y1:
        return
    xs = (np.arange(x0, x1, dtype=np.float32) - centre[0]) / reach[0]
    ys = (np.arange(y0, y1, dtype=np.float32) - centre[1]) / reach[1]
    near = np.clip(1 - xs[None] ** 2 - ys[:, None] ** 2, 0, 1)
    weight = np.asarray(0.55 * near * (2 - near), np.float32)
    spot = np.ascontiguousarray(rgb[y0:y1, x0:x1])
    rgb[y0:y1, x0:x1] = cv2.blendLinear(spot, np.zeros_like(spot), 1 - weight, weight)


def _paste(
    rgb: np.ndarray, picture: Picture, foot: tuple[float, float], scale: float, roll: float
) -> np.ndarray:
    """Draws a picture standing at foot (pixels), rolled about its middle; its alpha (H, W)."""
    height, width = rgb.shape[:2]
    rows, columns = picture.alpha.shape
    c, s = math.cos(roll) * scale, math.sin(roll) * scale
    middle = np.array([foot[0], foot[1] - rows * scale / 2])
    turn = np.array([[c, -s], [s, c]])
    corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=float)
    shift = middle - turn @ [columns / 2, rows / 2]
    x0, y0, x1, y1 = _box(corners @ turn.T + shift, width, height)
    whole = np.zeros((height, width), np.uint8)
    if x0 >= x1 or y0 >= y1:
        return whole
    place = np.hstack([turn, (shift - [x0, y0])[:, None]])
    size = (x1 - x0, y1 - y0)
    colour = cv2.warpAffine(picture.rgb, place, size, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(picture.alpha, place, size)
    weight = alpha.astype(np.float32) / 255
    behind = np.ascontiguousarray(rgb[y0:y1, x0:x1])
    rgb[y0:y1, x0:x1] = cv2.blendLinear(behind, colour, 1 - weight, weight)
    whole[y0:y1, x0:x1] = alpha
    return whole
