"""One HTML page about a run: how many clips got how far, and what they look like.

A single file: no script, no network, pictures inside. Words that come from captions and file names
are escaped, and the page's own policy forbids whatever would get past that.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import storage
from pipeline.report.sheet import SheetRow, fitted
from pipeline.report.text import escaped

THUMBNAIL_PX = (196, 150)
JPEG_QUALITY = 80
"""Seven in a line, some 6 kB each (ours): a page of 100 clips stays below 10 MB."""
HEADINGS = {"kept": "Kept", "rejected": "Rejected", "failed": "Failed", "pending": "Not yet judged"}

STYLE = """
:root { color-scheme: light dark; --faint: #68717b; --rule: #8884; --kept: #2da44e;
        --rejected: #d97706; --failed: #cf3a31; --pending: #8b949e; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1500px; margin: 2rem auto;
       padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--rule); }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
h2 small, h3 small, dt, .numbers, figcaption { color: var(--faint); font-weight: normal; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
td.bar { width: 45%; }
.bar div { display: flex; height: 1rem; }
.bar span { min-width: 0; }
.kept { background: var(--kept); } .rejected { background: var(--rejected); }
.failed { background: var(--failed); } .pending { background: var(--pending); }
article { padding: .7rem 0; border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }
article p { margin: .1rem 0; max-width: 75em; }
.verdict { font-weight: 600; background: none; }
.verdict.kept { color: var(--kept); } .verdict.rejected { color: var(--rejected); }
.verdict.failed { color: var(--failed); } .verdict.pending { color: var(--pending); }
.pictures { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .4rem; }
figure { margin: 0; } figcaption { font-size: .8rem; text-align: center; }
img, video { display: block; border: 1px solid var(--rule); }
video { image-rendering: pixelated; }
.chart { max-width: 760px; width: 100%; height: auto; font-size: 12px; }
.chart text { fill: currentColor; } .chart line { stroke: var(--rule); }
.chart polyline { fill: none; stroke-width: 2; }
.chart polyline.s0 { stroke: #2da44e; } .chart text.s0 { fill: #2da44e; }
.chart polyline.s1 { stroke: #d97706; } .chart text.s1 { fill: #d97706; }
.chart polyline.s2 { stroke: #3b82f6; } .chart text.s2 { fill: #3b82f6; }
.chart polyline.s3 { stroke: #8b949e; stroke-width: 1; } .chart text.s3 { fill: #8b949e; }
"""


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """One step of a run: what it took out, and how many clips are left after it."""

    step: str
    left: int
    rejected: int = 0
    failed: int = 0
    pending: int = 0

    def counts(self) -> dict[str, int]:
        """By outcome; together, the clips that came to this step."""
        return {
            "kept": self.left,
            "rejected": self.rejected,
            "failed": self.failed,
            "pending": self.pending,
        }


def write_page(
    title: str,
    funnel_rows: Sequence[FunnelRow],
    rows: Iterable[SheetRow],
    facts: Mapping[str, str],
    folder: str,
    sections: Sequence[str] = (),
) -> str:
    """Writes `index.html` below a url and returns its url.

    facts: what to know of the run (corpus, dataset, settings), in order. rows: the clips to show,
    in order; they are grouped by outcome and by the measure or stage that their verdict names.
    sections: what stands before them, as HTML that is escaped already.
    """
    parts = [
        f"<h1>{_text(title)}</h1>",
        _facts(facts),
        "<h2>How far the clips got</h2>",
        _funnel(funnel_rows),
        *sections,
        *_clips(rows),
    ]
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src 'self' file:; style-src 'unsafe-inline'">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{chr(10).join(parts)}
</body>
</html>
"""
    url = storage.join(folder, "index.html")
    storage.write(url, page.encode())
    return url


def _text(text: str, limit: int = 300) -> str:
    return escaped(text, limit)


def _facts(facts: Mapping[str, str]) -> str:
    pairs = [f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items()]
    return f"<dl>{''.join(pairs)}</dl>" if pairs else ""


def _funnel(rows: Sequence[FunnelRow]) -> str:
    lines = [
        "<table><tr><th>after</th><th>left</th><th>rejected</th><th>failed</th>"
        '<th>not yet judged</th><th class="bar"></th></tr>'
    ]
    all_clips = max([1, *(sum(row.counts().values()) for row in rows)])
    for row in rows:
        counts = row.counts()
        bars = "".join(
            f'<span class="{kind}" style="width:{100 * count / all_clips:.2f}%"'
            f' title="{count:,} {kind}"></span>'
            for kind, count in counts.items()
        )
        numbers = "".join(f"<td>{count:,}</td>" for count in counts.values())
        lines.append(
            f'<tr><td>{_text(row.step)}</td>{numbers}<td class="bar"><div>{bars}</div></td></tr>'
        )
    return "\n".join([*lines, "</table>"])


def _clips(rows: Iterable[SheetRow]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        outcome = row.outcome if row.outcome in HEADINGS else "pending"
        groups.setdefault((outcome, row.reason), []).append(_clip(row, outcome))
    parts: list[str] = []
    for outcome, heading in HEADINGS.items():
        reasons = sorted(reason for known, reason in groups if known == outcome)
        if not reasons:
            continue
        shown = sum(len(groups[outcome, reason]) for reason in reasons)
        parts.append(f"<h2>{heading} <small>{shown:,} shown</small></h2>")
        for reason in reasons:
            articles = groups[outcome, reason]
            if reason:
                parts.append(f"<h3>{_text(reason)} <small>{len(articles):,} shown</small></h3>")
            parts.extend(articles)
    return parts


def _clip(row: SheetRow, outcome: str) -> str:
    numbers = " · ".join(f"{name} {value}" for name, value in row.numbers.items())
    lines = [
        f'<p><b dir="auto">{_text(row.title)}</b> '
        f'<span class="verdict {outcome}" dir="auto">{_text(row.verdict)}</span></p>',
        f'<p class="numbers">{_text(numbers)}</p>' if numbers else "",
        f'<p dir="auto">{_text(row.caption, 1000) or "(no caption)"}</p>',
    ]
    pictures = zip(row.pictures, row.labels, strict=False)
    figures = "".join(figure(picture, label) for picture, label in pictures)
    if figures:
        lines.append(f'<div class="pictures">{figures}</div>')
    return "<article>" + "\n".join(line for line in lines if line) + "</article>"


def figure(picture: np.ndarray, label: str) -> str:
    """A (H, W, 3) uint8 RGB picture inside the page, with its label below."""
    thumbnail = fitted(picture, THUMBNAIL_PX)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=JPEG_QUALITY)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{thumbnail.width}" height="{thumbnail.height}"'
    name = _text(label, 60)
    return (
        f'<figure><img src="{source}" alt="{name}" {size}><figcaption>{name}</figcaption></figure>'
    )
