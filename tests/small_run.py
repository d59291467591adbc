"""A run folder with six subjects, its shards, latents, a tiny base and an adapter on it."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from jobs import generate, train
from model.text import build_tiny
from pipeline import shards, video
from pipeline.clip import Clip, Measurement, clip_id
from pipeline.reference import VERSION
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
{more}
[sampling]
steps = {steps}
"""


def run_job(main: Callable[[], int], file: Path, text: str, out: Path, code: int = 0) -> None:
    """A job in this process, which ends with this code; file: where its run file goes."""
    file.write_text(text)
    heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["job", "--config", str(file), "--out", str(out)])
        try:
            assert main() == code
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)


def run_train(out: Path, name: str, base: str, adapter: str, steps: int = 2) -> None:
    """jobs.train in this process."""
    text = TRAIN.format(name=name, base=base, adapter=adapter, steps=steps)
    run_job(train.main, out / f"{name}.toml", text, out)


def run_generate(
    out: Path, more: str = "", steps: int = 2, code: int = 0, held_out: int = 2
) -> None:
    """jobs.generate in this process; more: of its run file, before the first table."""
    text = GENERATE.format(more=f"held_out = {held_out}\n{more}", steps=steps)
    run_job(generate.main, out / "generate.toml", text, out, code)


def build_run(root: Path, texture: Callable[..., np.ndarray]) -> Path:
    """As curation, latents and two short trainings leave it. Returns the run folder."""
    torch.set_num_threads(1)
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
    run_train(out, "base", "tiny", 'adapter = "none"')
    run_train(out, "train", str(out / "base"), ADAPTER)
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
        "reference.png": png(reference),
    }


def png(pixels: np.ndarray) -> bytes:
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
