"""From shards to videos and their scores, with the real networks, small."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from small_run import ADAPTER, build_run, png, run_generate, run_job, run_train

from jobs import evaluate
from jobs.attention_report import MAPS, NUMBERS
from model.text import build_tiny
from pipeline import generated
from pipeline.errors import InputError
from pipeline.report.videos import scores_section


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, texture: Callable[..., np.ndarray]) -> Path:
    return build_run(tmp_path_factory.mktemp("house"), texture)


def _pixels(out: Path) -> dict[str, bytes]:
    url = str(out / "samples")
    return {r.name: generated.read_frames(url, r).tobytes() for r in generated.read_index(url)}


def test_held_out_subjects_are_made_with_and_without_their_reference(run: Path) -> None:
    run_generate(run)
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
    run_generate(run)
    before = _pixels(run)
    capsys.readouterr()
    run_generate(run)
    assert "0 of them new" in capsys.readouterr().out
    shutil.rmtree(run / "samples" / list(before)[1])
    run_generate(run)
    assert "1 of them new" in capsys.readouterr().out
    assert _pixels(run) == before


def test_the_baseline_of_an_extra_frame_makes_videos_too(run: Path) -> None:
    run_train(run, "extra", str(run / "base"), f'{ADAPTER}\nkind = "extra_frame"')
    run_generate(run, "training = 'extra'\nname = 'extra'")
    records = generated.read_index(str(run / "extra"))
    pixels = {generated.read_frames(str(run / "extra"), r).tobytes() for r in records}
    assert len(pixels) == 4
    assert not (run / "extra" / records[0].name / NUMBERS).exists()


def test_a_stopped_run_goes_on(run: Path) -> None:
    run_generate(run)
    before = _pixels(run)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    run_generate(run, "seeds = [7]", steps=1000, code=143)
    timer.join()
    assert _pixels(run) == before


def test_another_seed_makes_another_video_and_the_old_one_stays(run: Path) -> None:
    run_generate(run)
    before = _pixels(run)
    run_generate(run, "seeds = [1]\nwithout = false")
    after = _pixels(run)
    assert len(after) == 2
    assert not set(after.values()) & set(before.values())
    assert (run / "samples" / next(iter(before))).exists()


def test_a_picture_of_ones_own_is_a_wish(run: Path, tmp_path: Path) -> None:
    pixels = np.zeros((50, 50, 4), np.uint8)
    pixels[5:45, 5:45] = (0, 0, 255, 255)
    (tmp_path / "mine.png").write_bytes(png(pixels))
    wish = (
        "[[wishes]]\nname = 'mine'\nprompt = 'A big blue ball jumps.'\n"
        f"entity = 'blue ball'\nreference = '{tmp_path}/mine.png'"
    )
    run_generate(run, wish, held_out=0)
    (record, _) = generated.read_index(str(run / "samples"))
    assert record.subject == "mine"
    reference = generated.read_reference(str(run / "samples"), record)
    assert reference is not None
    assert tuple(reference[240, 360]) == (0, 0, 255)
    with pytest.raises(InputError, match="'cat' in the prompt"):
        run_generate(run, wish.replace("entity = 'blue ball'", "entity = 'cat'"), held_out=0)


def test_real_clips_of_the_subjects_score_best_and_results_hold_every_video(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_generate(run)
    run_job(evaluate.main, run / "evaluate.toml", "", run)
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
        run_generate(run, more)


def test_an_adapter_of_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "runs" / "small"
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(moved / "base")
    run_train(moved, "base", "tiny", 'adapter = "none"', steps=3)
    own = moved / "train" / "config.toml"
    own.write_text(own.read_text().replace(str(run), str(moved)))
    with pytest.raises(InputError, match=r"this adapter was trained on .*; found the base"):
        run_generate(moved)


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
            run_generate(moved)
        assert "\n" not in str(caught.value)
        file.write_bytes(kept)
    _retold(file, width=None, height=None, interval=None, reference_version=None)
    run_generate(moved, "seeds = [9]\nwithout = false", steps=1)


def test_a_short_prompt_is_warned_of_once(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_generate(run, "seeds = [0, 1]", steps=1)
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
        run_generate(tmp_path / "runs" / "small")


def test_without_videos_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run `python -m jobs.generate` first"):
        run_job(evaluate.main, tmp_path / "e.toml", "", tmp_path)
