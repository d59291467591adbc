"""A corpus without captions, from videos to shards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_server import MODEL, Body, serving

from jobs import caption, dataset
from pipeline.errors import InputError
from pipeline.shard_reader import ShardReader

ROOT = Path(__file__).parents[2]

RUN_FILE = """
out = "{folder}/runs/mute"
[corpus]
manifest = "{folder}/clips"
[engine]
runner = "local"
[caption]
backend = "server"
model = "{model}"
[caption.server]
base_url = "{url}"
[entities]
backend = "server"
model = "{model}"
[entities.server]
base_url = "{url}"
[filters.probe.short_side]
min = 160
[filters.segment.crop_short_side_px]
min = 32
"""


def reply(body: Body) -> str:
    """A vision model where there are pictures, a reader of captions where there are none."""
    if not isinstance(body["messages"][-1]["content"], str):
        return "The video shows a green ball that rolls over a floor."
    return json.dumps(
        {
            "main_entity": "ball",
            "phrase": "green ball",
            "category": "object",
            "other_entities": [],
            "entity_count": 1,
            "background_complexity": "simple",
            "reason": "one object",
        }
    )


def test_a_corpus_without_captions_gets_them_and_its_samples_hold_them(
    draw: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "clips").mkdir()
    for number in range(2):
        draw(tmp_path / "clips" / f"{number}.mp4", seed=number, speed=2.0)
    run = tmp_path / "run.toml"
    with serving(reply) as server:
        run.write_text(RUN_FILE.format(folder=tmp_path, model=MODEL, url=server.url))
        command = [sys.executable, "-m", "jobs.dataset", "--config", str(run)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "caption: 2 of 2 clips done" in ended.stdout
    assert len(server.asked) == 4
    samples = list(ShardReader(str(tmp_path / "runs/mute/shards")))
    notes = [json.loads(members["json"]) for _, members in samples]
    assert [note["caption"] for note in notes] == [
        "The video shows a green ball that rolls over a floor."
    ] * 2
    assert {note["facts"]["caption"]["caption_source"] for note in notes} == {"model"}
    assert {note["entity"]["phrase"] for note in notes} == {"green ball"}
    kept = pq.read_table(tmp_path / "runs/mute/verdicts.parquet")["verdict"].to_pylist()
    assert kept == ["kept", "kept"]


def test_a_server_that_is_not_there_is_found_out_before_any_clip_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"x")
    run = tmp_path / "run.toml"
    run.write_text(RUN_FILE.format(folder=tmp_path, model=MODEL, url="http://127.0.0.1:1/v1"))
    monkeypatch.setattr("sys.argv", ["dataset", "--config", str(run)])
    with pytest.raises(InputError, match=r"caption\.server\.base_url: nothing answers at"):
        dataset.main()
    assert not list(tmp_path.rglob("part-*.parquet"))


def test_without_a_model_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips.csv").write_text("video,caption\na.mp4,A dog.\n")
    corpus = ["--corpus", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["caption", *corpus])
    with pytest.raises(InputError, match=r'caption\.backend: found "off", wanted "server"'):
        caption.main()
