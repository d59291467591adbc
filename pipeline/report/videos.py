"""Sections of the page about training and generation: curves, videos, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np

from pipeline.report.curves import Curve, chart, smoothed
from pipeline.report.page import figure
from pipeline.report.text import escaped

VIDEO_PX = (288, 192)
"""Width and height in the page: what the tiny model makes, half as large again."""


@dataclass(frozen=True, slots=True)
class Shot:
    """What was made of one subject. videos: (label, path relative to the page) of each."""

    title: str
    prompt: str
    reference: np.ndarray | None
    videos: Sequence[tuple[str, str]]


def training_section(name: str, lines: Iterable[Mapping[str, float]]) -> str:
    """The losses of one training, "" when it has none.

    lines: of its metrics: step, loss, held_out_right, held_out_shuffled, held_out_none, and the
    ends of the interval of shuffled - right, held_out_gap_low and held_out_gap_high.
    """
    rows = list(lines)
    right, shuffled, none, loss = (
        _points(rows, key)
        for key in ("held_out_right", "held_out_shuffled", "held_out_none", "loss")
    )
    curves = [
        Curve("right reference", right, 0),
        Curve("shuffled", shuffled, 1),
        Curve("no reference", none, 2),
    ]
    if not right:  # else the loss on samples of all timesteps would flatten the three
        curves.append(Curve("trained on", smoothed(loss), 3))
    gaps = [(step, other - own) for (step, own), (_, other) in zip(right, shuffled, strict=False)]
    ends = [
        Curve(f"95 % interval, {end}", _points(rows, f"held_out_gap_{end}"), 3)
        for end in ("low", "high")
    ]
    pictures = [
        chart(curves, "step"),
        chart([Curve("shuffled - right", gaps, 1), *ends], "step", in_sight=(0.0,)),
    ]
    if not any(pictures):
        return ""
    words = [
        "<p>The loss on v; held-out subjects were never trained on, and are measured with the same "
        "noise every time.</p>",
        pictures[0],
    ]
    if pictures[1]:
        words += [
            "<p>What another subject's reference costs on them: above 0, the reference helps; over "
            "subjects, with its 95 % interval.</p>",
            pictures[1],
        ]
    return f"<h2>Training <small>{escaped(name)}</small></h2>" + "\n".join(words)


def _points(rows: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    """(step, value) where it was measured."""
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def videos_section(shots: Iterable[Shot]) -> str:
    """Every subject with its reference and its videos, "" when there are none."""
    articles = [_shot(shot) for shot in shots]
    if not articles:
        return ""
    return f"<h2>Generated <small>{len(articles):,} shown</small></h2>" + "\n".join(articles)


def scores_section(
    groups: Mapping[str, Mapping[str, Mapping[str, float]]], words: Mapping[str, str]
) -> str:
    """Means with their 95 % intervals: group -> measure -> mean, low, high.

    words: what a measure says, for those that need it.
    """
    if not groups:
        return ""
    measures = list(dict.fromkeys(measure for means in groups.values() for measure in means))
    head = "".join(f"<th>{escaped(measure)}</th>" for measure in measures)
    lines = [f"<h2>Evaluation</h2><table><tr><th></th>{head}</tr>"]
    for group, means in groups.items():
        cells = "".join(_cell(means.get(measure)) for measure in measures)
        lines.append(f"<tr><td>{escaped(group)}</td>{cells}</tr>")
    meanings = [f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in words.items()]
    return "\n".join([*lines, "</table>", f"<dl>{''.join(meanings)}</dl>"])


def _cell(mean: Mapping[str, float] | None) -> str:
    if mean is None:
        return "<td></td>"
    return f"<td>{mean['mean']:.3f}<br><small>{mean['low']:.3f} to {mean['high']:.3f}</small></td>"


def _shot(shot: Shot) -> str:
    shown = [] if shot.reference is None else [figure(shot.reference, "reference")]
    shown += [_video(label, path) for label, path in shot.videos]
    return (
        f'<article><p><b dir="auto">{escaped(shot.title)}</b></p>'
        f'<p dir="auto">{escaped(shot.prompt, 1000)}</p>'
        f'<div class="pictures">{"".join(shown)}</div></article>'
    )


def _video(label: str, path: str) -> str:
    width, height = VIDEO_PX
    return (
        f'<figure><video src="{quote(path)}" width="{width}" height="{height}" '
        "controls autoplay loop muted playsinline></video>"
        f"<figcaption>{escaped(label, 60)}</figcaption></figure>"
    )
