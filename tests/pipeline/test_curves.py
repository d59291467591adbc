"""Curves and videos in the page: what they show, and that nobody's words become markup."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from pipeline.report.curves import Curve, chart, smoothed
from pipeline.report.page import FunnelRow, write_page
from pipeline.report.videos import Shot, scores_section, training_section, videos_section

FALLING = [(float(step), 1.0 / (1 + step)) for step in range(50)]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """The pixels of every curve."""
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]
        for line in re.findall(r'points="([^"]*)"', svg)
    ]


def test_a_falling_loss_falls_and_fills_its_frame() -> None:
    (line,) = lines(chart([Curve("loss", FALLING, 0)], "step"))
    xs, ys = zip(*line, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # pixels count downwards
    assert ys[-1] - ys[0] > 200
    ET.fromstring(chart([Curve("loss", FALLING, 0)], "step"))


def test_two_curves_share_their_scale() -> None:
    twice = [(x, 2 * y) for x, y in FALLING]
    low, high = lines(chart([Curve("one", FALLING, 0), Curve("two", twice, 1)], "step"))
    assert all(b[1] < a[1] for a, b in zip(low, high, strict=True))


def test_what_is_not_a_number_is_left_out_and_one_point_is_no_curve() -> None:
    torn = [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 0.5)]
    assert len(lines(chart([Curve("loss", torn, 0)], "step"))[0]) == 2
    assert chart([Curve("loss", [(0.0, 1.0)], 0)], "step") == ""


def test_a_constant_curve_has_a_scale_too() -> None:
    (line,) = lines(chart([Curve("none", [(0.0, 0.7), (9.0, 0.7)], 2)], "step"))
    assert all(0 < y < 300 for _, y in line)


def test_ten_thousand_points_are_thinned_and_the_last_one_stays() -> None:
    many = [(float(step), 1.0 + step) for step in range(10_000)]
    (line,) = lines(chart([Curve("loss", many, 0)], "step"))
    (few,) = lines(chart([Curve("loss", [many[0], many[-1]], 0)], "step"))
    assert len(line) < 700
    assert (line[0], line[-1]) == (few[0], few[-1])


def test_smoothing_keeps_a_constant_and_its_length() -> None:
    assert smoothed([(0.0, 2.0), (1.0, 2.0)]) == [(0.0, 2.0), (1.0, 2.0)]
    assert smoothed([(0.0, 0.0), (1.0, 1.0)], 0.5)[-1] == (1.0, 0.5)


def test_a_training_shows_its_three_losses_and_the_gap() -> None:
    rows = [
        {"step": 0, "held_out_right": 1.0, "held_out_shuffled": 1.0, "held_out_none": 0.9},
        {"step": 1, "loss": 1.1},
        {"step": 2, "loss": 1.0, "held_out_right": 0.7, "held_out_shuffled": 0.8}
        | {"held_out_none": 0.9},
    ]
    section = training_section("train", rows)
    for name in ("right reference", "shuffled", "no reference", "shuffled - right"):
        assert name in section
    assert len(lines(section)) == 4
    ends = {"held_out_gap_low": 0.05, "held_out_gap_high": 0.15}
    with_ends = training_section("train", [row | ends if row["step"] != 1 else row for row in rows])
    assert "95 % interval, low" in with_ends
    assert len(lines(with_ends)) == 6
    base = training_section("base", [{"step": 1, "loss": 1.1}, {"step": 2, "loss": 1.0}])
    assert "trained on" in base
    assert training_section("empty", []) == ""


HOSTILE = '"><script>alert(1)</script>'


class _Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


@pytest.mark.parametrize("words", [HOSTILE, "' autoplay onplay='alert(1)", "a & b"])
def test_words_stay_words_in_every_section(words: str) -> None:
    def sections(word: str) -> str:
        shot = Shot(word, word, np.zeros((8, 8, 3), np.uint8), [(word, f"../samples/{word}.mp4")])
        means = {word: {word: {"mean": 1.0, "low": 0.0, "high": 2.0}}}
        curve = chart([Curve(word, FALLING, 0)], word)
        return videos_section([shot]) + scores_section(means, {word: word}) + curve

    assert _Reader(sections(words)).tags == _Reader(sections("plain")).tags


def test_videos_are_named_relative_to_the_page_and_allowed_by_its_policy(tmp_path: Path) -> None:
    shot = Shot("a frog", "A frog.", None, [("with the reference", "../samples/a b/video.mp4")])
    page = write_page(
        "run", [FunnelRow("probe", 1)], [], {}, str(tmp_path), [videos_section([shot])]
    )
    text = Path(page).read_text()
    assert 'src="../samples/a%20b/video.mp4"' in text
    assert "media-src 'self' file:" in text
    assert "script" not in text
