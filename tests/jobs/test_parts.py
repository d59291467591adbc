"""Which zips to fetch, as a user asks it; then only those clips are measured that are there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
RUN_FILE = """
out = "{folder}/runs/one"
[corpus]
manifest = "{folder}/clips.csv"
videos = "{folder}"
[engine]
runner = "local"
[filters.manifest."aesthetic score"]
min = 5.3
"""


def said(job: str, config: Path) -> str:
    command = [sys.executable, "-m", f"jobs.{job}", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_corpus_in_zips_from_the_plan_to_the_facts(render, tmp_path: Path) -> None:
    clip = render(tmp_path / "loose.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2)
    held = {"part0": "ab", "part1": "c", "part2": "d"}
    for name, videos in held.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            for video in videos:
                file.write(clip, f"{name}/{video}.mp4")
    rows = ["a.mp4,c,5.3", "b.mp4,c,6", "c.mp4,c,5.2", "d.mp4,c,6", "short", "nowhere.mp4,c,6"]
    (tmp_path / "clips.csv").write_text("\n".join(["video,caption,aesthetic score", *rows]))
    config = tmp_path / "run.toml"
    config.write_text(RUN_FILE.format(folder=tmp_path))

    assert "2 of 3 parts hold clips that pass" in said("parts", config)
    assert (tmp_path / "runs/one/parts.txt").read_text().split() == ["part0.zip", "part2.zip"]
    parts = json.loads((tmp_path / "runs/one/parts.json").read_text())
    assert [(part["name"], part["kept"]) for part in parts] == [("part0", 2), ("part2", 1)]
    assert parts[0]["num_bytes"] == (tmp_path / "part0.zip").stat().st_size

    (tmp_path / "part2.zip").unlink()
    assert "2 of 2 clips done" in said("probe", config)
    verdicts = pq.read_table(tmp_path / "runs/one/verdicts.parquet")
    assert verdicts["code"].to_pylist()[3:] == ["missing", "malformed", "missing"]


def test_parts_that_are_not_fetched_yet_are_in_the_plan_of_a_mapping(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "part1.zip", "w") as file:
        file.writestr("a.mp4", b"x")
    (tmp_path / "parts.json").write_text('{"part1": ["a.mp4"], "part2": ["b.mp4", "c.mp4"]}')
    (tmp_path / "clips.csv").write_text("video,caption\na.mp4,c\nb.mp4,c\nc.mp4,c\n")
    config = tmp_path / "run.toml"
    corpus = f'manifest = "{tmp_path}/clips.csv"\nparts = "{tmp_path}/parts.json"\n'
    config.write_text(f'out = "{tmp_path}/run"\n[corpus]\n{corpus}')
    assert "2 of 2 parts hold clips that pass" in said("parts", config)
    assert (tmp_path / "run/parts.txt").read_text().split() == ["part1.zip", "part2"]
    config.write_text(config.read_text() + f'videos = "{tmp_path}/not fetched yet"\n')
    assert "2 parts whose size nobody says" in said("parts", config)


def test_bad_rows_are_listed_in_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("video,caption\na.mp4,c\nshort\na.mp4,d\n")
    config = tmp_path / "run.toml"
    config.write_text(f'out = "{tmp_path}/run"\n[corpus]\nmanifest = "{tmp_path}/clips.csv"\n')
    told = said("manifest", config)
    assert "1 clips, 1 listed twice, 1 malformed, 0 without a caption" in told
    assert "line 3: malformed (1 fields, wanted 2): 'short'" in told
    assert (tmp_path / "run/bad_rows.csv").read_text().splitlines()[2].startswith("4,")
