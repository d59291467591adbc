"""`python -m jobs.plan_train`: what it says to a person, and with which exit code."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from small_latents import small_latents

from jobs.plan_train import main
from model.config import TINY, AdapterConfig
from model.flops import SampleSize
from model.weights import init_tiny_base, save_base
from pipeline.errors import InputError
from training.calibrate import measure
from training.planner import Job


def _plan(patch: pytest.MonkeyPatch, file: Path, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["plan_train", "--config", str(file), *arguments])
    return main()


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """The paper's run, with nothing computed again."""
    file = tmp_path / "train.toml"
    file.write_text("[compute]\ncheckpoint = 0.0\n")
    return file


def test_a_small_card_is_told_what_to_change(paper: Path, monkeypatch, capsys) -> None:
    assert _plan(monkeypatch, paper, "--gpu", "RTX 4090") == 0
    said = capsys.readouterr().out
    assert "11,026 tokens" in said
    assert "it does not fit; it does with compute.checkpoint = " in said
    assert _plan(monkeypatch, paper, "--gpu", "H200") == 0
    assert capsys.readouterr().out.endswith("\nit fits\n")


def test_a_card_that_is_too_small_ends_with_1_and_says_by_how_much(
    paper: Path, monkeypatch, capsys
) -> None:
    assert _plan(monkeypatch, paper, "--gpu", "4 GB") == 1
    said = capsys.readouterr().out
    assert 'base_dtype = "fp8_storage" neither, by ' in said
    assert "time not known" in said


def test_a_model_that_is_small_enough_is_tried(tmp_path: Path, monkeypatch, capsys) -> None:
    torch.set_num_threads(1)
    small_latents(tmp_path, text="none")
    save_base(init_tiny_base(0), tmp_path / "base")
    file = tmp_path / "train.toml"
    adapter = "[adapter]\nrank = 4\nalpha = 4\n"
    file.write_text(
        f'out = "{tmp_path}"\nbase = "{tmp_path}/base"\nbase_dtype = "f32"\n{adapter}'
        "[loop]\nglobal_batch = 2\n"
    )
    assert _plan(monkeypatch, file) == 0
    said = capsys.readouterr().out
    assert "an adapter of rank 4, 4 blocks in f32" in said
    assert "as 3 real steps of 1 samples took here" in said


def test_three_steps_take_time_and_memory() -> None:
    job = Job(TINY, AdapterConfig(rank=4), SampleSize(2, 16, 24), base_dtype="f32", global_batch=1)
    # In a process of its own, as the job: one that was larger before does not grow.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(measure, job, torch.device("cpu")).result()
    assert found.seconds > 0
    assert found.memory > 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--gpu", "Voodoo 2"), "--gpu: found 'Voodoo 2', which is not in"),
        (("--workers", "0"), "--workers: found 0, wanted 1 or more"),
        (("--workers", "5"), "loop.global_batch: found 32 for 5 workers"),
    ],
)
def test_bad_input_is_one_line(paper: Path, monkeypatch, arguments, error: str) -> None:
    with pytest.raises(InputError, match=error) as raised:
        _plan(monkeypatch, paper, *arguments)
    assert "\n" not in str(raised.value)
