"""Text of any script in a picture, with the fonts that a machine happens to have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

INSTALLED = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
)
"""Looked for by name among the machine's fonts, before the one that Pillow brings."""
NOWHERE = "\U0010fffe"
"""A code point that no font draws: what appears in its place is the font's box."""


def font_for(text: str, size: int) -> Font:
    """The font that lacks the fewest characters of `text`; what none has is drawn as a box."""
    characters = sorted(set(text))
    lacking = [
        sum(not _draws(number, character) for character in characters)
        for number in range(len(_fonts(16)))
    ]
    return _fonts(size)[lacking.index(min(lacking))]


def wrap(text: str, font: Font, width_px: int, lines: int) -> list[str]:
    """At most `lines` lines of at most `width_px`; a last line that does not end ends in `…`."""
    wrapped = []
    for line in _lines(text, font, width_px):
        if len(wrapped) == lines:
            wrapped[-1] = _shortened(wrapped[-1], font, width_px)
            break
        wrapped.append(line)
    return wrapped


def _lines(text: str, font: Font, width_px: int) -> Iterator[str]:
    """Breaks at spaces; a word wider than a line (or a script without spaces) anywhere."""
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width_px:
            line = joined
            continue
        if line:
            yield line
        line = word
        while font.getlength(line) > width_px and len(line) > 1:
            fits = _fitting(line, font, width_px)
            yield line[:fits]
            line = line[fits:]
    if line:
        yield line


def _fitting(line: str, font: Font, width_px: int) -> int:
    fits = 1
    while fits < len(line) and font.getlength(line[: fits + 1]) <= width_px:
        fits += 1
    return fits


def _shortened(line: str, font: Font, width_px: int) -> str:
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line.rstrip() + "…"


@lru_cache(maxsize=8)
def _fonts(size: int) -> tuple[Font, ...]:
    found: list[Font] = []
    for name in INSTALLED:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # not on this machine
            continue
    return *found, ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def _draws(number: int, character: str) -> bool:
    drawn, box = (_drawn(_fonts(16)[number], text) for text in (character, NOWHERE))
    return drawn != box


def _drawn(font: Font, text: str) -> bytes:
    image = Image.new("L", (32, 32))
    ImageDraw.Draw(image).text((4, 4), text, font=font, fill=255)
    return image.tobytes()
