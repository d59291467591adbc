"""From shards to videos and their scores, with the real networks, small."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from jobs import evaluate, generate, train
from jobs.attention_report import MAPS, NUMBERS
from model.text import build_tiny
from pipeline import generated, shards, video
from pipeline.clip import Clip, Measurement, clip_id
from pipeline.errors import InputError
from pipeline.reference import VERSION
from pipeline.report.videos import scores_section
from pipeline.sample_tar import pack
from pipeline.video import VideoSettings
from stages.encoders import LatentsSettings
from stages.latents import Latents
from stages.networks.placement import Placement

SETTINGS = LatentsSettings("dct", "tiny", 96, 64, max_tokens=16, placement=Placement())
LATENTS = """
[latents]
codec = "dct"
text = "tiny"
width = 96
height = 64
max_tokens = 16
[latents.placement]
dtype = "f32"
"""
TRAIN = """
name = "{name}"
base = "{base}"
base_dtype = "f32"
threads = 1
{adapter}
[loop]
steps = {steps}
global_batch = 2
batch = 2
[held_out]
share = 0.5
samples = 4
draws = 1
"""
ADAPTER = "[adapter]\nrank = 4\nalpha = 4"
GENERATE = """
base_dtype = "f32"
threads = 1
held_out = 2
{more}
[sampling]
steps = {steps}
"""


def _job(main: Callable[[], int], file: Path, text: str, out: Path, code: int = 0) -> None:
    file.write_text(text)
    heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["job", "--config", str(file), "--out", str(out)])
        try:
            assert main() == code
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)


def _train(out: Path, name: str, base: str, adapter: str, steps: int = 2) -> None:
    text = TRAIN.format(name=name, base=base, adapter=adapter, steps=steps)
    _job(train.main, out / f"{name}.toml", text, out)


def _generate(out: Path, more: str = "", steps: int = 2, code: int = 0) -> None:
    _job(generate.main, out / "generate.toml", GENERATE.format(more=more, steps=steps), out, code)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, texture: Callable[..., np.ndarray]) -> Path:
    """A run folder as curation, latents and two short trainings leave it; six subjects."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("house")
    out, facts = root / "runs" / "small", root / "runs" / "facts" / "id"
    out.mkdir(parents=True)
    (out / "config.toml").write_text(LATENTS)
    (out / "manifest.json").write_text(json.dumps({"id": "id"}))
    captions = [f"A {colour} ball rolls." for colour in ("red", "green", "blue") * 2]
    build_tiny(str(facts / "text"), captions)
    rows, built = [], []
    clips = [Clip(clip_id(f"{n}"), f"{n}", "", captions[n], f"source{n}") for n in range(6)]
    for number, clip in enumerate(clips):
        packed = pack(clip.clip_id, _members(number, captions[number], texture))
        (facts / "samples").mkdir(exist_ok=True)
        (facts / "samples" / f"{number}.tar").write_bytes(packed)
        rows.append({"name": f"{number}.tar", "sha256": hashlib.sha256(packed).hexdigest()})
    stage = Latents(SETTINGS, str(facts / "text"), str(facts / "samples"), str(facts / "encoded"))
    stage.setup()
    for clip, row in zip(clips, rows, strict=True):
        known = {"sample": row, "entities": {"phrase": f"{clip.caption.split()[1]} ball"}}
        (outcome,) = stage.measure([clip], [None], [known])
        assert isinstance(outcome, Measurement)
        built.append(outcome.values)
    _pack(
        clips,
        [{**row, "address": row["sha256"]} for row in rows],
        facts / "samples",
        out / "shards",
    )
    _pack(clips, built, facts / "encoded", out / "latents")
    _train(out, "base", "tiny", 'adapter = "none"')
    _train(out, "train", str(out / "base"), ADAPTER)
    return out


def _members(number: int, caption: str, texture: Callable[..., np.ndarray]) -> dict[str, bytes]:
    subject = texture(32, 32, number)
    subject[..., number % 3] = 240
    ground = texture(64, 96, 50 + number) // 3 + 80
    images = np.stack([ground] * 25)
    for n, image in enumerate(images):
        image[16:48, 4 + 2 * n : 36 + 2 * n] = subject
    reference = np.full((64, 96, 3), 255, np.uint8)
    reference[16:48, 32:64] = subject
    phrase = f"{caption.split()[1]} ball"
    built = {"interval": 3, "reference_version": VERSION}
    note = {
        "caption": caption,
        "facts": {"entities": {"phrase": phrase}},
        "provenance": {"settings": built},
    }
    return {
        "json": json.dumps(note).encode(),
        "mask.png": b"",
        "mp4": video.encode(images, VideoSettings(96, 64)),
        "reference.png": _png(reference),
    }


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _pack(clips: list[Clip], rows: list, source: Path, out: Path) -> None:
    table = pa.Table.from_pylist(
        [
            {"clip_id": c.clip_id, "source_id": c.source_id}
            | {key: row[key] for key in ("address", "name", "sha256")}
            for c, row in zip(clips, rows, strict=True)
        ]
    )
    shards.build(table, str(source), str(out))


def _pixels(out: Path) -> dict[str, bytes]:
    url = str(out / "samples")
    return {r.name: generated.read_frames(url, r).tobytes() for r in generated.read_index(url)}


def test_held_out_subjects_are_made_with_and_without_their_reference(run: Path) -> None:
    _generate(run)
    records = generated.read_index(str(run / "samples"))
    assert [record.group for record in records] == ["reference", "none"] * 2
    first = records[0]
    assert generated.read_frames(str(run / "samples"), first).shape == (25, 64, 96, 3)
    assert (run / "samples" / first.name / "video.mp4").exists()
    assert [told["timestep"] for told in first.seen] == [999, 499]
    assert {"weight", "covered"} <= first.seen[0].keys()
    shown = [(run / "samples" / record.name / NUMBERS).exists() for record in records]
    assert shown == [True, False, True, False]
    numbers = json.loads((run / "samples" / first.name / NUMBERS).read_text())
    assert [len(layers) for layers in numbers["weight"]] == [4, 4]
    assert (run / "samples" / first.name / MAPS).exists()
    pixels = list(_pixels(run).values())
    assert len(set(pixels)) == 4


def test_a_second_run_makes_nothing_and_a_lost_video_comes_back_to_the_bit(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _generate(run)
    before = _pixels(run)
    capsys.readouterr()
    _generate(run)
    assert "0 of them new" in capsys.readouterr().out
    shutil.rmtree(run / "samples" / list(before)[1])
    _generate(run)
    assert "1 of them new" in capsys.readouterr().out
    assert _pixels(run) == before


def test_the_baseline_of_an_extra_frame_makes_videos_too(run: Path) -> None:
    _train(run, "extra", str(run / "base"), f'{ADAPTER}\nkind = "extra_frame"')
    _generate(run, "training = 'extra'\nname = 'extra'")
    records = generated.read_index(str(run / "extra"))
    pixels = {generated.read_frames(str(run / "extra"), r).tobytes() for r in records}
    assert len(pixels) == 4
    assert not (run / "extra" / records[0].name / NUMBERS).exists()


def test_a_stopped_run_goes_on(run: Path) -> None:
    _generate(run)
    before = _pixels(run)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    _generate(run, "seeds = [7]", steps=1000, code=143)
    timer.join()
    assert _pixels(run) == before


def test_another_seed_makes_another_video_and_the_old_one_stays(run: Path) -> None:
    _generate(run)
    before = _pixels(run)
    _generate(run, "seeds = [1]\nwithout = false")
    after = _pixels(run)
    assert len(after) == 2
    assert not set(after.values()) & set(before.values())
    assert (run / "samples" / next(iter(before))).exists()


def test_a_picture_of_ones_own_is_a_wish(run: Path, tmp_path: Path) -> None:
    pixels = np.zeros((50, 50, 4), np.uint8)
    pixels[5:45, 5:45] = (0, 0, 255, 255)
    (tmp_path / "mine.png").write_bytes(_png(pixels))
    wish = (
        "held_out = 0\n[[wishes]]\nname = 'mine'\nprompt = 'A big blue ball jumps.'\n"
        f"entity = 'blue ball'\nreference = '{tmp_path}/mine.png'"
    )
    text = GENERATE.format(more=wish, steps=2).replace("held_out = 2\n", "")
    _job(generate.main, run / "wish.toml", text, run)
    (record, _) = generated.read_index(str(run / "samples"))
    assert record.subject == "mine"
    reference = generated.read_reference(str(run / "samples"), record)
    assert reference is not None
    assert tuple(reference[240, 360]) == (0, 0, 255)
    bad = text.replace("entity = 'blue ball'", "entity = 'cat'")
    with pytest.raises(InputError, match="'cat' in the prompt"):
        _job(generate.main, run / "wish.toml", bad, run)


def test_real_clips_of_the_subjects_score_best_and_results_hold_every_video(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _generate(run)
    _job(evaluate.main, run / "evaluate.toml", "", run)
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert len(results["videos"]) == 6
    groups = results["groups"]
    assert groups["real"]["found"]["mean"] == 1.0
    assert groups["real"]["distance"]["mean"] < groups["none"]["distance"]["mean"]
    for means in groups.values():
        for mean in means.values():
            assert mean["low"] <= mean["mean"] <= mean["high"]
    gain = results["gains"]["distance"]["mean"]
    assert gain == pytest.approx(
        groups["reference"]["distance"]["mean"] - groups["none"]["distance"]["mean"]
    )
    assert "distance" in capsys.readouterr().out
    assert scores_section(groups, {}).count("<tr>") == 4


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("training = 'gone'", r"gone: found no checkpoint; run `python -m jobs.train` first"),
        ("num_frames = 24", "num_frames: found 24"),
        ("trainings = 'x'", "unknown key trainings; did you mean training"),
    ],
)
def test_bad_run_files_are_one_line(run: Path, more: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        _generate(run, more)


def test_an_adapter_of_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "runs" / "small"
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(moved / "base")
    _train(moved, "base", "tiny", 'adapter = "none"', steps=3)
    own = moved / "train" / "config.toml"
    own.write_text(own.read_text().replace(str(run), str(moved)))
    with pytest.raises(InputError, match=r"this adapter was trained on .*; found the base"):
        _generate(moved)


def _retold(file: Path, **made_with: str | None) -> None:
    """The same adapter, whose header says something else of its data, or leaves it out."""
    with safe_open(file, "pt") as opened:
        names = opened.keys()
        weights = {name: opened.get_tensor(name) for name in names}
        about = opened.metadata()
    header = json.loads(about["customvideox"])
    told = {**header["made_with"], **made_with}
    header["made_with"] = {what: value for what, value in told.items() if value is not None}
    save_file(weights, file, {**about, "customvideox": json.dumps(header)})


def test_an_adapter_of_other_pictures_is_refused_and_an_old_one_taken_for_what_it_says(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    moved = tmp_path / "runs" / "small"
    (file,) = (moved / "train").rglob("adapter.safetensors")
    for told, error in (
        ({"width": "720"}, "was trained at 720x64, this run's latents are 96x64"),
        ({"reference_version": "0"}, "on reference pictures of version 0, they are made by"),
    ):
        kept = file.read_bytes()
        _retold(file, **told)
        with pytest.raises(InputError, match=error) as caught:
            _generate(moved)
        assert "\n" not in str(caught.value)
        file.write_bytes(kept)
    _retold(file, width=None, height=None, interval=None, reference_version=None)
    _generate(moved, "seeds = [9]\nwithout = false", steps=1)


def test_a_short_prompt_is_warned_of_once(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    _generate(run, "seeds = [0, 1]", steps=1)
    said = [record.getMessage() for record in caplog.records if "long captions" in record.message]
    assert len(said) == 2
    assert len(set(said)) == 2
    assert all("has 4 words" in line for line in said)


def test_another_text_encoder_than_that_of_the_training_is_refused(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    text = tmp_path / "runs" / "facts" / "id" / "text"
    shutil.rmtree(text)
    build_tiny(str(text), ["Other words."])
    with pytest.raises(InputError, match="was trained on latents of the text"):
        _generate(tmp_path / "runs" / "small")


def test_without_videos_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run `python -m jobs.generate` first"):
        _job(evaluate.main, tmp_path / "e.toml", "", tmp_path)
