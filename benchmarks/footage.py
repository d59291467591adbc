"""The clips that speed is measured on: 24 rendered ones of 4 s, and 3 broken files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from jobs.synthetic.encode import Grain, write_video
from jobs.synthetic.scene import Painted
from jobs.synthetic.staging import single, still, subjects

FRAMES, RATE = 100, 25
BROKEN = 3


def render(corpus: Path) -> list[Path]:
    """Clips, broken files and `corpus.csv`; the paths of the clips.

    Broken: empty, no video, cut in half.
    """
    paths = render_clips(corpus)
    whole = paths[0].read_bytes()
    (corpus / "bad0.mp4").write_bytes(b"")
    (corpus / "bad1.mp4").write_text("I am no video")
    (corpus / "bad2.mp4").write_bytes(whole[: len(whole) // 2])
    names = [path.name for path in paths] + [f"bad{n}.mp4" for n in range(3)]
    rows = "\n".join(f"{name},A clip." for name in names)
    (corpus / "corpus.csv").write_text(f"video,caption\n{rows}\n")
    return paths


def render_clips(corpus: Path, count: int = 24) -> list[Path]:
    """The first of 8 of 1080p moving, 8 of 1080p static, 8 of 720p moving."""
    kinds = [((1920, 1080), True)] * 8 + [((1920, 1080), False)] * 8 + [((1280, 720), True)] * 8
    rng = np.random.default_rng(0)
    paths = []
    scenes = list(zip(subjects(rng, 24), kinds, strict=True))
    for number, (subject, (size, moves)) in enumerate(scenes[:count]):
        scene = single(rng, subject, *size)
        scene = scene if moves else still(scene, scene.noise)
        painted = Painted(scene, *size, seconds=FRAMES / RATE)
        pictures = (painted.frame(n / RATE)[0] for n in range(FRAMES))
        paths.append(corpus / f"clip{number:02}.mp4")
        write_video(paths[-1], pictures, size, Fraction(RATE), Grain(rng, *size, scene.noise))
    return paths
