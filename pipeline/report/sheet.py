"""Contact sheets: clips, what became of them and why, as pictures to leaf through."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline import storage
from pipeline.report.font import font_for, wrap
from pipeline.report.text import one_line

ROWS_A_PAGE = 12
PICTURES_A_ROW = 7
TEXT_PX, CELL_PX, ROW_PX, GAP_PX = 420, (208, 140), 180, 8
"""Width of the words, (width, height) of a picture, height of a row, space between two (ours)."""
PAPER, INK, FAINT, RULE = "#ffffff", "#1b1f24", "#626b75", "#d9dee3"
EDGE = (255, 64, 160)
COLOURS = {"kept": "#1a7f37", "rejected": "#b35900", "failed": "#b3261e", "pending": "#626b75"}


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One clip to be shown.

    verdict: `kept`, or with its reason: `rejected: motion.top5 0.006, wanted >= 0.015`.
    pictures: (H, W, 3) uint8 RGB of any size, labels: one for each; numbers: what to print of its
    facts, ready to read.
    """

    title: str
    verdict: str
    caption: str
    pictures: Sequence[np.ndarray]
    labels: Sequence[str]
    numbers: Mapping[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """The verdict's first word: kept, rejected, failed, pending."""
        return self.verdict.partition(":")[0]

    @property
    def reason(self) -> str:
        """What the verdict names: `motion.top5`, `probe unreadable`; "" when there is nothing."""
        words = self.verdict.partition(":")[2].replace(",", " ").split()
        return " ".join(words[:1] if words and "." in words[0] else words[:2])


def write_sheets(rows: Iterable[SheetRow], folder: str) -> list[str]:
    """Writes `sheet-001.png`, ... of 12 rows each below a url; returns their urls, in order.

    Pages of an earlier, longer series are removed. One page of rows is in memory at a time.
    """
    waiting = iter(rows)
    written: list[str] = []
    while page := list(itertools.islice(waiting, ROWS_A_PAGE)):
        url = storage.join(folder, f"sheet-{len(written) + 1:03}.png")
        buffer = io.BytesIO()
        draw_page(page).save(buffer, "PNG")
        storage.write(url, buffer.getvalue())
        written.append(url)
    for name in storage.names(folder):
        url = storage.join(folder, name)
        if name.startswith("sheet-") and name.endswith(".png") and url not in written:
            storage.remove(url)
    return written


def draw_page(rows: Sequence[SheetRow]) -> Image.Image:
    """One page: a row for each clip, words on the left, pictures on the right."""
    cells = max(min(len(row.pictures), PICTURES_A_ROW) for row in rows)
    width = TEXT_PX + 2 * GAP_PX + cells * (CELL_PX[0] + GAP_PX)
    page = Image.new("RGB", (width, len(rows) * ROW_PX), PAPER)
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        top = number * ROW_PX
        _draw_words(draw, row, top)
        for cell, (picture, label) in enumerate(
            zip(row.pictures[:PICTURES_A_ROW], row.labels, strict=False)
        ):
            _draw_picture(page, picture, label, TEXT_PX + 2 * GAP_PX, cell, top)
        draw.line([(0, top + ROW_PX - 1), (width, top + ROW_PX - 1)], fill=RULE)
    return page


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with its mask in sight: the rest greyed and darkened, the edge drawn.

    image: (H, W, 3) uint8 RGB; mask: (H, W) bool. Returns a new (H, W, 3) uint8.
    """
    grey = image.mean(axis=2, keepdims=True) * 0.45
    shown = np.where(mask[..., None], image, grey).astype(np.uint8)
    thick = max(1, round(min(mask.shape) / 160))
    grown = Image.fromarray(mask.astype(np.uint8)).filter(ImageFilter.MaxFilter(2 * thick + 1))
    shown[np.asarray(grown).astype(bool) & ~mask] = EDGE
    return shown


def fitted(picture: np.ndarray, box_px: tuple[int, int]) -> Image.Image:
    """The (H, W, 3) uint8 picture as large as fits into (width, height), its aspect kept."""
    height, width = picture.shape[:2]
    scale = min(box_px[0] / width, box_px[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BICUBIC)


def _draw_words(draw: ImageDraw.ImageDraw, row: SheetRow, top: int) -> None:
    numbers = " · ".join(f"{name} {value}" for name, value in row.numbers.items())
    paragraphs = [
        (one_line(row.title, 120), 16, INK, 1),
        (one_line(row.verdict, 200), 14, COLOURS.get(row.outcome, INK), 2),
        (one_line(numbers, 300), 12, FAINT, 3),
        (one_line(row.caption, 600) or "(no caption)", 13, INK, 9),
    ]
    y, bottom = top + GAP_PX, top + ROW_PX - GAP_PX
    for text, size, colour, most in paragraphs:
        height = round(size * 1.3)
        font = font_for(text, size)
        for line in wrap(text, font, TEXT_PX - GAP_PX, min(most, (bottom - y) // height)):
            draw.text((GAP_PX, y), line, font=font, fill=colour)
            y += height
        y += 2


def _draw_picture(
    page: Image.Image, picture: np.ndarray, label: str, left: int, cell: int, top: int
) -> None:
    x = left + cell * (CELL_PX[0] + GAP_PX)
    shown = fitted(picture, CELL_PX)
    corner = (x + (CELL_PX[0] - shown.width) // 2, top + GAP_PX)
    page.paste(shown, corner)
    draw = ImageDraw.Draw(page)
    right, bottom = corner[0] + shown.width, corner[1] + shown.height
    draw.rectangle((corner[0] - 1, corner[1] - 1, right, bottom), outline=RULE)
    text = one_line(label, 40)
    font = font_for(text, 12)
    for line in wrap(text, font, CELL_PX[0], 1):
        middle = x + (CELL_PX[0] - round(font.getlength(line))) // 2
        draw.text((middle, bottom + 4), line, font=font, fill=FAINT)
