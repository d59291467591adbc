"""Prompts from a file, seeds and negative prompts, a run that is killed, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from small_run import ADAPTER, GENERATE, build_run, png, run_generate, run_train

from jobs.generate_settings import GenerateRun
from jobs.trained import open_adapter
from pipeline import generated
from pipeline.errors import InputError
from pipeline.video import VideoSettings

ROOT = Path(__file__).parents[2]
CSV = """prompt,entity,reference,name,seed,negative_prompt
A red ball rolls.,red ball,red.png,red,,
A blue ball rolls.,blue ball,red.png,,5,green
A green ball rolls.,,,,,
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, texture: Callable[..., np.ndarray]) -> Path:
    out = build_run(tmp_path_factory.mktemp("house"), texture)
    pixels = np.zeros((50, 50, 4), np.uint8)
    pixels[5:45, 5:45] = (255, 0, 0, 255)
    (out / "red.png").write_bytes(png(pixels))
    (out / "wishes.csv").write_text(CSV)
    return out


def _prompts(out: Path, more: str = "", **how: int) -> list[generated.Generated]:
    run_generate(out, f"prompts = '{out}/wishes.csv'\n{more}", held_out=0, **how)
    return generated.read_index(str(out / "samples"))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "status.json"
    }


def test_every_row_of_a_file_is_a_video_with_its_own_seed(run: Path) -> None:
    made = _prompts(run, "without = false\nseeds = [1, 2]")
    said = [(one.subject, one.seed, one.group, one.negative_prompt) for one in made]
    assert said == [
        ("red", 1, "reference", ""),
        ("red", 2, "reference", ""),
        ("wishes2", 5, "reference", "green"),
        ("wishes3", 1, "none", ""),
        ("wishes3", 2, "none", ""),
    ]
    pixels = {generated.read_frames(str(run / "samples"), one).tobytes() for one in made}
    assert len(pixels) == 5


def test_a_negative_prompt_makes_another_video_and_a_row_has_its_own(run: Path) -> None:
    plain = _prompts(run, "without = false")
    other = _prompts(run, "without = false\nnegative_prompt = 'blue'")
    assert [one.negative_prompt for one in other] == ["blue", "green", "blue"]
    assert [a.name == b.name for a, b in zip(plain, other, strict=True)] == [False, True, False]
    url = str(run / "samples")
    without, with_it = (generated.read_frames(url, made[0]) for made in (plain, other))
    assert not np.array_equal(without, with_it)


def test_the_mp4_is_8_fps_yuv420p_tagged_bt709_and_says_its_crf(run: Path) -> None:
    (made, *_) = _prompts(run, "without = false")
    assert (made.fps, made.crf, made.seed) == (8, VideoSettings().crf, 0)
    with av.open(str(run / "samples" / made.name / "video.mp4")) as container:
        (stream,) = container.streams.video
        tags = stream.codec_context
        assert (stream.average_rate, stream.frames, tags.pix_fmt) == (8, 25, "yuv420p")
        assert (tags.colorspace, tags.color_primaries, tags.color_trc) == (1, 1, 1)
        assert (tags.width, tags.height) == (96, 64)


def test_an_adapter_without_its_run_folder_makes_the_same_videos(run: Path, tmp_path: Path) -> None:
    """A person who was given the file: base and encoders by name, any folder to write to."""
    wanted = _prompts(run, "without = false")
    file = shutil.copy(next((run / "train").rglob("adapter.safetensors")), tmp_path)
    text = run.parent / "facts" / "id" / "text"
    more = f"prompts = '{run}/wishes.csv'\nadapter = '{file}'\ncodec = 'dct'\ntext = '{text}'"
    run_generate(tmp_path, f"{more}\nwithout = false")
    found = generated.read_index(str(tmp_path / "samples"))
    assert found == wanted
    for one in found:
        frames = generated.read_frames(str(tmp_path / "samples"), one)
        assert np.array_equal(frames, generated.read_frames(str(run / "samples"), one))
    with pytest.raises(InputError, match=r"was trained on .*: load the one that it belongs to"):
        run_generate(tmp_path, f"{more}\nbase = '{_other_base(run, tmp_path)}'")


def test_an_adapter_is_drawn_with_the_noise_that_its_base_was_trained_with(run: Path) -> None:
    """A base of ours has no scheduler beside it that could say so."""
    run_train(run, "noisy-base", "tiny", 'snr_shift = 2.0\nadapter = "none"')
    run_train(run, "noisy", str(run / "noisy-base"), f"snr_shift = 2.0\n{ADAPTER}")
    file = run / "noisy"  # the training's folder: its last checkpoint
    text = str(run.parent / "facts" / "id" / "text")
    for base in ("", str(run / "noisy-base")):  # as its file says; the training's folder
        asked = GenerateRun(adapter=str(file), base=base, codec="dct", text=text, base_dtype="f32")
        assert open_adapter(asked)[1].snr_shift == 2.0


def _other_base(run: Path, folder: Path) -> Path:
    (place,) = (run / "base").rglob("transformer")
    shutil.copytree(place, folder / "other" / "transformer")
    config = folder / "other" / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "norm_eps": 1e-6}))
    return folder / "other"


def test_a_run_killed_in_the_middle_of_a_video_ends_with_the_bits_of_an_unbroken_one(
    run: Path, tmp_path: Path
) -> None:
    """SIGKILL as soon as one video is whole and the next has begun."""
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    moved = tmp_path / "runs" / "small"
    shutil.rmtree(moved / "samples", ignore_errors=True)
    own = moved / "train" / "config.toml"
    own.write_text(own.read_text().replace(str(run), str(moved)))
    more = f"prompts = '{run}/wishes.csv'\nwithout = false\nnum_frames = 9"
    file = moved / "killed.toml"
    file.write_text(GENERATE.format(more=f"held_out = 0\n{more}", steps=12))
    command = [sys.executable, "-m", "jobs.generate", "--config", str(file), "--out", str(moved)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    done: list[Path] = []
    while process.poll() is None and not done:
        done = list(moved.glob("samples/*/video.json"))
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(done) < 3
    first = {place: place.stat().st_mtime_ns for place in done}
    run_generate(moved, more, held_out=0, steps=12)
    assert {place: place.stat().st_mtime_ns for place in done} == first
    shutil.rmtree(run / "samples", ignore_errors=True)
    run_generate(run, more, held_out=0, steps=12)
    assert _files(moved / "samples") == _files(run / "samples")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("prompts = 'gone.csv'", "gone.csv: the prompts cannot be read"),
        ("[[wishes]]\nprompt = 'A cat.'\nentity = 'cat'\nreference = 'gone.png'", "gone.png: the"),
        ("[[wishes]]\nprompt = 'A cat.'\nreference = 'cat.png'", "cat.png and no entity"),
        ("[[wishes]]\nprompt = 'A cat.'\nentity = 'dog'", "found no 'dog' in the prompt 'A cat.'"),
        ("training = 'base'\nprompts = '{run}/wishes.csv'", "which has no adapter"),
        ("adapter = 'gone'\nprompts = '{run}/wishes.csv'", "gone: wanted an adapter file"),
        ("base = 'THUDM/CogVideoX-5b'", "found one of them and no adapter"),
        ("seeds = [1, 1]", r"seeds: found \[1, 1\]"),
        ("without = false", "found no video to make; wanted held_out above 0, prompts or"),
        ("offload = 'disk'", 'offload: found "disk", wanted'),
    ],
)
def test_what_is_refused_is_one_line_and_nothing_is_lost(run: Path, more: str, error: str) -> None:
    before = _files(run / "samples")
    text = more.format(run=run)
    with pytest.raises(InputError, match=error) as caught:
        run_generate(run, text, held_out=0)
    assert "\n" not in str(caught.value)
    assert _files(run / "samples") == before


def test_two_pictures_under_one_name_are_refused(run: Path) -> None:
    rows = "A red ball rolls.,red ball,red.png,red\nA red ball rolls.,red ball,other.png,red\n"
    (run / "twice.csv").write_text(f"prompt,entity,reference,name\n{rows}")
    with pytest.raises(InputError, match=r"name 'red': found the references .*red.png and .*other"):
        run_generate(run, f"prompts = '{run}/twice.csv'", held_out=0)


def test_a_picture_that_is_none_is_named(run: Path) -> None:
    (run / "torn.png").write_bytes(b"\x89PNG torn")
    (run / "torn.csv").write_text("prompt,entity,reference\nA red ball.,red ball,torn.png\n")
    with pytest.raises(InputError, match=r"torn\.png: cannot be read as a picture"):
        run_generate(run, f"prompts = '{run}/torn.csv'", held_out=0)


def test_a_checkpoint_that_lost_its_adapter_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    moved = tmp_path / "runs" / "small"
    (file,) = (moved / "train").rglob("adapter.safetensors")
    file.unlink()
    with pytest.raises(InputError, match="wanted an adapter file, and it cannot be read"):
        run_generate(moved)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"in_channels": 32}, "found image-to-video weights"),
        ({"patch_size_t": 2}, r"found CogVideoX 1\.5"),
    ],
)
def test_a_base_of_another_kind_is_refused(
    run: Path, tmp_path: Path, config: dict[str, int], error: str
) -> None:
    shutil.copytree(run.parents[1], tmp_path, dirs_exist_ok=True)
    moved = tmp_path / "runs" / "small"
    own = moved / "train" / "config.toml"
    own.write_text(own.read_text().replace(str(run), str(moved)))
    (place,) = (moved / "base").rglob("transformer/config.json")
    place.write_text(json.dumps({**json.loads(place.read_text()), **config}))
    with pytest.raises(InputError, match=error) as caught:
        run_generate(moved)
    assert "\n" not in str(caught.value)
