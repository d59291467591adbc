"""A small corpus on disk, and jobs as a user starts them: `python -m jobs.X` in a process."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.command import finish

ROOT = Path(__file__).parents[2]
HEADER = [
    "video",
    "caption",
    "aesthetic score",
    "motion score",
    "temporal consistency score",
    "camera motion",
    "frame",
    "fps",
    "seconds",
]
RUN_FILE = """
out = "{out}"
[corpus]
manifest = "{corpus}/corpus.csv"
[engine]
runner = "{runner}"
flush_s = 0.5
[[workers]]
count = 2
[filters.probe.short_side]
min = 160
[filters.segment.crop_short_side_px]
min = 32
{extra}
"""


@dataclass(frozen=True)
class Jobs:
    """The small corpus (10 rows, 5 of them good) in a folder, and runs over it."""

    folder: Path

    def run_file(self, name: str, runner: str = "local", extra: str = "", facts: str = "") -> Path:
        """A run file whose run folder is runs/<name>, with facts of its own in facts/<name>."""
        path = self.folder / f"{name}-{abs(hash(extra))}.toml"
        text = RUN_FILE.format(
            out=self.folder / "runs" / name, corpus=self.folder, runner=runner, extra=extra
        )
        place = facts or self.folder / "facts" / name
        path.write_text(f'facts = "{place}"\n{text}')
        return path

    def out(self, name: str) -> Path:
        return self.folder / "runs" / name

    def start(self, job: str, *arguments: str | Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.Popen(
            [sys.executable, "-m", f"jobs.{job}", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: str, *arguments: str | Path, code: int = 0) -> str:
        """What the job said; it has to end with this exit code."""
        process = self.start(job, *arguments)
        said, _ = process.communicate(timeout=240)
        assert process.returncode == code, said
        assert "Traceback" not in said
        return said


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Path]) -> Jobs:
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(5):
        name = f"good {number}.mp4"
        draw(folder / name, seed=number, speed=2.0)
        rows.append([name, f"In the video, a {COLOURS[number]} ball moves over a floor."])
    draw(folder / "still.mp4", seed=9, speed=0.0)
    rows.append(["still.mp4", "The video shows a red ball on a floor."])
    draw(folder / "-two.mp4", seed=11, speed=2.0)
    rows.append(["-two.mp4", "The video shows two women talking in a crowded market."])
    whole = (folder / "good 0.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    rows.append(["torn.mp4", "The video shows a ball."])
    rows.append(["gone.mp4", "The video shows a ball."])
    rows.append(["good 1.mp4", "The video shows a ball."])
    with (folder / "corpus.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows([*row, 6.0, 5.0, 0.98, "static", 80, 24, 3.3] for row in rows)
    return Jobs(folder)


COLOURS = ("red", "green", "blue", "yellow", "white")


@pytest.fixture(scope="session")
def draw(render: Callable[..., Path], texture: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Writes 80 frames, 320x180, of a textured disc that moves: (path, seed, speed px a frame)."""

    def write(path: Path, seed: int, speed: float) -> Path:
        ground, paint = texture(180, 320, seed) // 2 + 60, texture(64, 64, seed + 100)
        paint[..., seed % 3] = 255
        inside = np.zeros((64, 64), np.uint8)
        cv2.circle(inside, (32, 32), 28, 1, -1)
        frames = []
        for number in range(80):
            frame = ground.copy()
            x = int(40 + (speed * number) % 200)
            spot = frame[60:124, x : x + 64]
            spot[inside > 0] = paint[inside > 0]
            frames.append(frame)
        return render(path, frames)

    return write


@pytest.fixture
def say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """A job within this process, which spares the seconds of a new one: (main, *arguments, code=0)
    -> what it said; it has to end with this exit code.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(main: Callable[[], int], *arguments: str | Path, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["job", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            finish(main)
        said = capsys.readouterr()
        assert ended.value.code == code, said
        return said.out + said.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
