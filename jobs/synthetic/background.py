"""What stands behind a subject: places painted once per scene, larger than the frame."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from jobs.synthetic.texture import Colour, clouds, mix

Painter = Callable[[np.random.Generator, int, int], np.ndarray]
"""(rng, height, width) -> (height, width, 3) float32 RGB in 0..255."""

WALLS_SOFT: tuple[Colour, ...] = (
    (206, 196, 176), (168, 186, 190), (188, 172, 190), (172, 186, 158), (214, 186, 160),
    (140, 152, 172), (222, 218, 208),
)  # fmt: skip
"""Paints of a room: paler than the subjects, as rooms are."""


BOOKS: tuple[Colour, ...] = (
    (126, 52, 44), (52, 72, 108), (62, 92, 66), (170, 140, 90), (208, 196, 170), (70, 58, 66),
    (146, 96, 58), (104, 110, 116),
)  # fmt: skip


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, int(v * factor)) for v in colour)
    return red, green, blue


def _plaster(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, WALLS_SOFT)
    rough = 0.6 * clouds(rng, height, width, 9) + 0.4 * clouds(rng, height, width, 120, 2)
    return mix(_shade(colour, 0.72), _shade(colour, 1.1), rough)


def _wallpaper(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, WALLS_SOFT)
    ys, xs = np.ogrid[:height, :width]
    period = width / rng.integers(12, 22)
    bands = np.broadcast_to(np.sin(2 * np.pi * xs / period) > 0.2, (height, width))
    dots = np.hypot(xs % period - period / 2, ys % period - period / 2) < 0.17 * period
    share = 0.35 * bands + 0.5 * dots + 0.3 * clouds(rng, height, width, 30, 3)
    return mix(colour, _shade(colour, 0.62), np.asarray(np.clip(share, 0, 1), np.float32))


def _bricks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, ((158, 86, 66), (176, 128, 96), (150, 148, 144), (196, 186, 172)))
    course = height / rng.integers(13, 20)
    row = np.floor(np.arange(height) / course).astype(int)[:, None]
    along = np.arange(width)[None] / (2.4 * course) + 0.5 * (row % 2)
    tones = rng.random((int(row.max()) + 1, int(along.max()) + 2), np.float32)
    share = tones[row, np.floor(along).astype(int)]
    share = 0.6 * share + 0.4 * clouds(rng, height, width, 90, 2)
    wall = mix(_shade(colour, 0.7), _shade(colour, 1.15), share)
    joint = ((np.arange(height)[:, None] % course) < 0.1 * course) | (along % 1 < 0.045)
    wall[joint] = _shade(colour, 0.55) if rng.random() < 0.5 else (198, 192, 182)
    return wall


def _tiles(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, ((214, 222, 222), (126, 166, 172), (196, 182, 150), (150, 160, 190)))
    size = height / rng.integers(6, 11)
    rows = np.floor(np.arange(height) / size).astype(int)[:, None]
    columns = np.floor(np.arange(width) / size).astype(int)[None]
    tones = rng.random((int(rows.max()) + 1, int(columns.max()) + 1), np.float32)
    share = 0.65 * tones[rows, columns] + 0.35 * clouds(rng, height, width, 60, 3)
    wall = mix(_shade(colour, 0.7), _shade(colour, 1.08), share)
    edge = 0.04 * size
    joint = (np.arange(height)[:, None] % size < edge) | (np.arange(width)[None] % size < edge)
    wall[joint] = _shade(colour, 0.5)
    return wall


def _curtain(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, ((112, 62, 70), (72, 92, 116), (122, 112, 84), (84, 106, 88)))
    sway = 1.5 * clouds(rng, height, width, 4, 2)
    folds = np.sin(2 * np.pi * (np.arange(width)[None] / width * rng.integers(9, 15) + sway))
    share = 0.5 + 0.34 * folds + 0.3 * (clouds(rng, height, width, 140, 2) - 0.5)
    return mix(
        _shade(colour, 0.45), _shade(colour, 1.5), np.asarray(np.clip(share, 0, 1), np.float32)
    )


def _shelves(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.float32)
    picture[:] = (58, 40, 28)
    rows = int(rng.integers(4, 6))
    gap = height // rows
    for row in range(rows):
        floor = (row + 1) * gap - gap // 10
        x = 0
        while x < width:
            thick = int(gap * rng.uniform(0.1, 0.26))
            tall = int(gap * rng.uniform(0.55, 0.85))
            tone = np.asarray(_pick(rng, BOOKS), np.float32) * rng.uniform(0.6, 1.1)
            picture[floor - tall : floor, x : x + thick - 2] = tone
            picture[floor - int(0.8 * tall) : floor - int(0.7 * tall), x : x + thick - 2] = (
                tone * 0.6
            )
            x += thick
        picture[floor : floor + gap // 10] = (122, 86, 56)
    picture *= 0.8 + 0.4 * clouds(rng, height, width, 80, 2)[..., None]
    return cv2.GaussianBlur(picture, (0, 0), max(0.8, height / 500))


def _wood(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    colour = _pick(rng, ((150, 104, 66), (120, 82, 54), (186, 150, 108), (96, 76, 64)))
    veins = cv2.resize(clouds(rng, height, max(8, width // 9), 40, 4), (width, height))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * 6 * veins)
    share = 0.55 * rings + 0.45 * clouds(rng, height, width, 90, 3)
    board = mix(_shade(colour, 0.68), _shade(colour, 1.2), share)
    plank = height / rng.integers(5, 8)
    board[np.arange(height) % plank < 0.03 * plank] *= 0.45
    return board


def _carpet(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    first = _pick(rng, ((110, 58, 54), (62, 76, 104), (104, 100, 82), (70, 92, 82)))
    ys, xs = np.mgrid[:height, :width].astype(np.float32) * (2 * np.pi * 9 / height)
    lattice = np.sin(xs + ys) * np.sin(xs - ys) + 0.5 * np.sin(2 * xs) * np.sin(2 * ys)
    share = np.clip(0.5 + 0.6 * lattice, 0, 1) * 0.6 + 0.4 * clouds(rng, height, width, 200, 2)
    return mix(_shade(first, 0.65), _shade(first, 1.55), np.asarray(share, np.float32))


def _grass(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    blades = cv2.resize(clouds(rng, max(8, height // 4), width, 260, 2), (width, height))
    share = 0.65 * blades + 0.35 * clouds(rng, height, width, 10, 3)
    return mix((44, 66, 28), (142, 158, 78), np.clip(1.7 * share - 0.35, 0, 1))


def _sand(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    ripples = 0.5 + 0.5 * np.sin(60 * clouds(rng, height, width, 3, 2))
    share = 0.3 * ripples + 0.7 * clouds(rng, height, width, 160, 3)
    return mix((158, 130, 94), (232, 210, 168), share)


def _stone(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    share = 0.5 * clouds(rng, height, width, 14, 5) + 0.5 * clouds(rng, height, width, 240, 1)
    tone = _pick(rng, ((136, 136, 138), (128, 122, 112), (112, 120, 126)))
    return mix(_shade(tone, 0.55), _shade(tone, 1.35), np.clip(1.6 * share - 0.3, 0, 1))


def _bokeh(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    tone = _pick(rng, ((30, 36, 60), (54, 34, 44), (26, 52, 50)))
    picture = mix(_shade(tone, 0.6), _shade(tone, 1.9), clouds(rng, height, width, 5))
    lights = np.zeros_like(picture)
    for _ in range(46):
        at = (int(rng.integers(width)), int(rng.integers(height)))
        warm = tuple(float(v) for v in rng.uniform((110, 60, 30), (240, 200, 150)))
        cv2.circle(lights, at, int(height * rng.uniform(0.015, 0.06)), warm, -1, cv2.LINE_AA)
    picture += 0.55 * cv2.GaussianBlur(lights, (0, 0), height / 220)
    return picture + 14 * (clouds(rng, height, width, 260, 1)[..., None] - 0.5)


def _sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    high, low = ((84, 132, 190), (190, 212, 226)) if rng.random() < 0.6 else (
        (120, 110, 150), (240, 186, 140))  # fmt: skip
    drop = np.broadcast_to(np.linspace(0, 1, height, dtype=np.float32)[:, None], (height, width))
    cover = np.clip(2.6 * clouds(rng, height, width, 5, 5) - 1.1, 0, 1)[..., None]
    return mix(high, low, drop) * (1 - 0.8 * cover) + 0.8 * cover * np.asarray(
        (240, 240, 242), np.float32
    )


def _hills(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    picture = _sky(rng, height, width)
    ys = np.arange(height)[:, None]
    for layer in range(4):
        ridge = clouds(rng, 2, width, 5 + 3 * layer, 4)[0] * 0.2
        top = height * (0.14 + 0.11 * layer + ridge)
        leaf = 0.5 * clouds(rng, height, width, 60 + 40 * layer, 3)
        far = 0.75 - 0.2 * layer
        tone = mix((40, 68, 34), (128, 146, 84), leaf + 0.25) * (1 - far) + far * np.asarray(
            (150, 172, 190), np.float32
        )
        below = (ys > top[None])[..., None]
        picture = np.where(below, tone, picture)
    return np.asarray(picture, np.float32)


def _sea(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    picture = _sky(rng, height, width)
    line = int(height * 0.36)
    waves = cv2.resize(clouds(rng, height, max(8, width // 6), 160, 3), (width, height))
    picture[line:] = mix((38, 92, 120), (142, 186, 194), waves)[line:]
    return picture


def _town(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    picture = _sky(rng, height, width) * 0.85
    glass = np.array((120, 134, 150), np.float32)
    x = 0
    while x < width:
        wide, top = int(width * rng.uniform(0.06, 0.13)), int(height * rng.uniform(0.1, 0.55))
        tone = rng.uniform(70, 170) * rng.uniform(0.85, 1.1, 3)
        picture[top:, x : x + wide] = tone
        step = max(6, wide // int(rng.integers(4, 7)))
        for wy in range(top + step // 2, height, step):
            for wx in range(x + step // 4, x + wide - step // 2, step):
                pane = glass * rng.uniform(0.35, 1.3)
                picture[wy : wy + step // 2, wx : wx + step // 2] = pane
        x += wide
    return picture * (0.85 + 0.3 * clouds(rng, height, width, 120, 3)[..., None])


def _abstract(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    swirl = clouds(rng, height, width, 5, 3)
    bands = 0.5 + 0.5 * np.sin(2 * np.pi * (6 * swirl + np.linspace(0, 2, width)[None]))
    first, second, third = rng.uniform(30, 230, (3, 3))
    blend = mix(tuple(first), tuple(second), np.asarray(bands, np.float32))
    depth = clouds(rng, height, width, 8, 3)[..., None]
    return np.asarray(blend * (1 - depth) + third * depth, np.float32)


BACKDROPS: dict[str, tuple[Painter, str]] = {
    "plaster": (_plaster, "a painted wall"),
    "wallpaper": (_wallpaper, "a patterned wallpaper"),
    "bricks": (_bricks, "a brick wall"),
    "tiles": (_tiles, "a tiled wall"),
    "curtain": (_curtain, "a long curtain"),
    "shelves": (_shelves, "a wall of books"),
    "bokeh": (_bokeh, "softly blurred lights"),
    "hills": (_hills, "green hills under the sky"),
    "sea": (_sea, "the sea"),
    "town": (_town, "a row of town houses"),
    "abstract": (_abstract, "swirling colours"),
}
"""What is seen behind, and how a caption names it."""

GROUNDS: dict[str, tuple[Painter, str]] = {
    "wood": (_wood, "a wooden table"),
    "tiles": (_tiles, "a tiled floor"),
    "carpet": (_carpet, "a patterned carpet"),
    "grass": (_grass, "the grass"),
    "sand": (_sand, "the sand"),
    "stone": (_stone, "a stone slab"),
}
"""What a subject stands on."""

Place = tuple[str, str | None]
"""A backdrop and the ground before it; without ground the backdrop fills the picture."""

PLACES: tuple[Place, ...] = (
    *((back, "wood") for back in ("plaster", "wallpaper", "bricks", "tiles", "curtain", "bokeh")),
    *((back, "tiles") for back in ("plaster", "wallpaper", "curtain", "shelves")),
    *((back, "carpet") for back in ("plaster", "wallpaper", "shelves", "curtain", "bricks")),
    *((back, "grass") for back in ("hills", "bricks", "town", "sea")),
    *((back, "sand") for back in ("sea", "hills", "town")),
    *((back, "stone") for back in ("bokeh", "bricks", "hills", "town", "plaster")),
)
"""Pairs that go together."""

HORIZON = 0.58
"""Share of the canvas above the ground."""


def _lay(texture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A texture laid flat: seen in perspective, finer towards the horizon."""
    rows, columns = texture.shape[:2]
    source = np.asarray([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    target = np.asarray(
        [[0, 0], [width, 0], [1.7 * width, height], [-0.7 * width, height]], np.float32
    )
    turn = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(
        texture, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def paint(place: Place, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB: a backdrop, the ground before it if any, light falling off."""
    backdrop, ground = place
    scale = max(1.0, height / 720)  # no place needs finer detail; large ones are enlarged
    rows, columns = round(height / scale), round(width / scale)
    picture = BACKDROPS[backdrop][0](rng, rows, columns)
    if ground is None:
        return np.asarray(np.clip(cv2.resize(picture, (width, height)), 0, 255), np.uint8)
    line = round(rows * HORIZON)
    floor = _lay(GROUNDS[ground][0](rng, rows, columns), rows - line, columns)
    if backdrop == "bokeh":
        floor *= 0.62
    far = np.linspace(0.72, 1.06, rows - line, dtype=np.float32)[:, None, None]
    picture[line:] = floor * far
    xs = np.linspace(-1, 1, columns, dtype=np.float32)
    ys = np.linspace(-1, 1, rows, dtype=np.float32)
    fall = 1.06 - 0.16 * (xs[None] + 0.3) ** 2 - 0.12 * ys[:, None] ** 2
    lit = np.asarray(np.clip(picture * fall[..., None], 0, 255), np.uint8)
    return cv2.resize(lit, (width, height), interpolation=cv2.INTER_CUBIC)
