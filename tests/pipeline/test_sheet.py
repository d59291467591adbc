"""Contact sheets hold every clip, whatever its words and pictures are."""

import numpy as np
import pytest
from PIL import Image

from pipeline.report.font import font_for, wrap
from pipeline.report.sheet import ROW_PX, ROWS_A_PAGE, SheetRow, draw_page, overlay, write_sheets
from pipeline.report.text import one_line

RED = np.full((40, 60, 3), (250, 0, 0), np.uint8)


def row(title="a.mp4", verdict="kept", caption="a red thing", pictures=(RED,)):
    return SheetRow(title, verdict, caption, pictures, ["frame"] * len(pictures), {"size": "60x40"})


def test_pages_hold_twelve_rows_and_the_last_one_the_rest(tmp_path):
    pages = write_sheets((row() for _ in range(2 * ROWS_A_PAGE + 1)), str(tmp_path))
    heights = [Image.open(page).height for page in pages]
    assert heights == [12 * ROW_PX, 12 * ROW_PX, ROW_PX]


def test_a_shorter_series_leaves_no_page_of_the_longer_one(tmp_path):
    write_sheets([row()] * 13, str(tmp_path))
    (tmp_path / "other.png").write_text("not ours")
    assert write_sheets([row()], str(tmp_path)) == [str(tmp_path / "sheet-001.png")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.png", "sheet-001.png"]


def test_the_picture_is_there_in_its_colours():
    drawn = np.asarray(draw_page([row()]))
    assert (drawn == (250, 0, 0)).all(axis=2).sum() > 10_000


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "one\nline\tafter another\x00\x1b[31m",
        "\u202eright to left \u2066 and سلام שלום 漢字 😀",
        "\udcff\udcfe from a name that is no UTF-8",
        "x" * 50_000,
        "漢" * 50_000,
        " ".join(["word"] * 10_000),
    ],
)
def test_any_words_are_drawn_and_stay_in_their_column(caption):
    words = row(caption, f"failed: probe {caption}", caption, pictures=())
    drawn = np.asarray(draw_page([words, row()]).convert("L"))
    assert (drawn[:ROW_PX, :420] < 128).any()
    assert (drawn[: ROW_PX - 1, 424:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 4000, 3), (4000, 1, 3), (1, 1, 3)])
def test_pictures_of_any_shape_fit(shape):
    assert draw_page([row(pictures=(np.zeros(shape, np.uint8),))]).height == ROW_PX


def test_wrapped_text_ends_with_an_ellipsis_exactly_when_it_is_cut():
    font = font_for("a", 12)
    text = "a rabbit on a meadow under a blue sky"
    assert " ".join(wrap(text, font, 80, 9)) == text
    cut = wrap(text, font, 80, 2)
    assert len(cut) == 2
    assert cut[-1].endswith("…")
    assert max(font.getlength(line) for line in cut) <= 80


def test_one_line_cuts_where_it_says():
    assert one_line("12345", 5) == "12345"
    assert one_line("123456", 5) == "1234…"
    assert one_line("a \n\t b", 5) == "a b"


def test_an_overlay_keeps_the_subject_and_darkens_the_rest():
    image = np.full((200, 200, 3), 200, np.uint8)
    mask = np.zeros((200, 200), bool)
    mask[50:150, 50:150] = True
    shown = overlay(image, mask)
    assert (shown[mask] == 200).all()
    assert (shown[0, 0] < 100).all()
    assert tuple(shown[49, 100]) == (255, 64, 160)
    assert (image == 200).all(), "the frame itself is untouched"


def test_a_verdict_names_its_outcome_and_reason():
    assert (row().outcome, row().reason) == ("kept", "")
    rejected = row(verdict="rejected: motion.top5 0.006, wanted >= 0.015")
    assert (rejected.outcome, rejected.reason) == ("rejected", "motion.top5")
    failed = row(verdict="failed: probe unreadable (no moov atom)")
    assert (failed.outcome, failed.reason) == ("failed", "probe unreadable")
