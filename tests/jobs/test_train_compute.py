"""`[compute]` and `base_dtype` of `python -m jobs.train`: what may change when a run goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_latents import DIM, TOKENS, small_latents

from jobs.train import main
from model.text import TextEncoder, build_tiny
from pipeline.errors import InputError
from training.checkpoint import find
from training.metrics import read_metrics

RUN_FILE = """
out = "{folder}"
name = "{name}"
text = "{folder}/text"
base = "{base}"
base_dtype = "{dtype}"
threads = 1
{adapter}
[optimizer]
learning_rate = 1e-3
[loop]
steps = {steps}
batch = 2
global_batch = 2
checkpoint_every = 2
[compute]
{compute}
[held_out]
share = 0.3
samples = 2
draws = 1
every = 10
"""
ADAPTER = "[adapter]\nrank = 4\nalpha = 4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with latents, and a base."""
    folder = tmp_path_factory.mktemp("run")
    build_tiny(str(folder / "text"), ["A ball rolls."], dim=DIM)
    small_latents(folder, text=TextEncoder(str(folder / "text"), TOKENS).fingerprint())
    _train(folder, "base", 1, base="tiny", adapter='adapter = "none"')
    return folder


def _train(folder: Path, name: str, steps: int, compute: str = "", **values: str) -> Path:
    known = {"base": f"{folder}/base", "dtype": "f32", "adapter": ADAPTER, **values}
    file = folder / f"{name}.toml"
    file.write_text(
        RUN_FILE.format(folder=folder, name=name, steps=steps, compute=compute, **known)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", "--config", str(file)])
        assert main() == 0
    return folder / name


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(find(str(run))) / "adapter.safetensors")


def test_a_run_goes_on_with_other_blocks_computed_again_to_the_same_weights(folder: Path):
    whole = _train(folder, "whole", 4, "checkpoint = 0.0")
    _train(folder, "parts", 2, "checkpoint = 0.5")
    parts = _train(folder, "parts", 4, "checkpoint = 1.0\nshard_base = true")
    wanted, found = _weights(whole), _weights(parts)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    line = read_metrics(whole / "metrics.jsonl")[-1]
    assert line["tokens_per_s"] > line["samples_per_s"]
    assert 0 < line["peak_share"] < 1


def test_a_base_in_eight_bits_trains_and_is_another_run(folder: Path):
    run = _train(folder, "eighth", 2, dtype="fp8_storage")
    lines = read_metrics(run / "metrics.jsonl")
    assert lines[0]["held_out_right"] != lines[-1]["held_out_right"]
    with pytest.raises(InputError, match="base_dtype = fp8_storage, the run bf16"):
        _train(folder, "eighth", 4, dtype="bf16")


@pytest.mark.parametrize(
    ("compute", "values", "error"),
    [
        ("checkpoint = 1.5", {}, r"compute.checkpoint: found 1.5, wanted 0 to 1"),
        ("compiled = true", {}, r"unknown key compute.compiled; did you mean compile"),
        ("", {"dtype": "fp8"}, 'base_dtype: found "fp8", wanted'),
        (
            "",
            {"dtype": "fp8_storage", "adapter": 'adapter = "none"'},
            'base_dtype: found "fp8_storage" without an adapter',
        ),
        (
            "shard_base = true",
            {"base": "tiny", "adapter": 'adapter = "none"'},
            "compute.shard_base: found true without an adapter",
        ),
    ],
)
def test_bad_settings_are_one_line(folder: Path, compute: str, values: dict[str, str], error: str):
    with pytest.raises(InputError, match=error) as raised:
        _train(folder, "bad", 1, compute, **values)
    assert "\n" not in str(raised.value)
