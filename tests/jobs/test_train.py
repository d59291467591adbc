"""`python -m jobs.train` with the real networks, small: a base from scratch, an adapter on it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from small_latents import DIM, PICTURES, TOKENS, small_latents

from jobs.repro import main as repro
from jobs.train import main
from jobs.train_settings import TrainRun
from model.adapter_file import read_header
from model.text import TextEncoder, build_tiny
from pipeline.config import load
from pipeline.errors import InputError
from training.checkpoint import find
from training.dataset import LatentDataset
from training.metrics import read_metrics

if TYPE_CHECKING:
    from s3_server import S3Server

ROOT = Path(__file__).parents[2]
RUN_FILE = """
out = "{folder}"
name = "{name}"
text = "{text}"
base = "{base}"
base_dtype = "f32"
threads = 1
{adapter}
[optimizer]
learning_rate = {rate}
[loop]
steps = {steps}
global_batch = 2
batch = 2
checkpoint_every = 3
[held_out]
share = 0.3
samples = 4
draws = 1
every = 3
"""
ADAPTER = "[adapter]\nrank = 4\nalpha = 4"

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with latents, and a base that was trained for six steps."""
    folder = tmp_path_factory.mktemp("run")
    text = folder / "text"
    build_tiny(str(text), ["A ball rolls."], dim=DIM)
    small_latents(folder, text=TextEncoder(str(text), TOKENS).fingerprint())
    torch.set_num_threads(1)
    _run(_run_file(folder, "base", 'adapter = "none"', base="tiny"))
    return folder


def _run_file(folder: Path, name: str, adapter: str = ADAPTER, steps: int = 6, **values) -> Path:
    known = {"base": str(folder / "base"), "text": str(folder / "text"), "rate": 1e-3, **values}
    path = folder / f"{name}.toml"
    path.write_text(
        RUN_FILE.format(folder=folder, name=name, adapter=adapter, steps=steps, **known)
    )
    return path


def _run(file: Path, code: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", "--config", str(file)])
        heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            assert main() == code
        finally:
            for number, handler in heard.items():
                signal.signal(number, handler)


def _tensors(file: Path) -> dict[str, bytes]:
    with safe_open(file, "numpy") as opened:
        names = opened.keys()
        return {name: opened.get_tensor(name).tobytes() for name in names}


def _newest(folder: Path) -> Path:
    return Path(find(str(folder)))


def _start_without_ray(file: Path) -> subprocess.Popen[str]:
    code = ["import runpy, sys", "sys.modules['ray'] = None", "sys.argv[0] = 'train'"]
    code += ["runpy.run_module('jobs.train', run_name='__main__')"]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(code), "--config", str(file)],
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_adapter_changes_only_itself_and_learns(folder: Path):
    base = _tensors(next(_newest(folder / "base").glob("transformer/*.safetensors")))
    _run(_run_file(folder, "adapter"))
    newest = _newest(folder / "adapter")
    assert newest.name == "step-00000006"
    assert {file.name for file in newest.iterdir()} == {
        "adapter.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    assert _tensors(next(_newest(folder / "base").glob("transformer/*.safetensors"))) == base
    lines = read_metrics(folder / "adapter" / "metrics.jsonl")
    none = {line["held_out_none"] for line in lines if "held_out_none" in line}
    base_end = read_metrics(folder / "base" / "metrics.jsonl")[-1]["held_out_none"]
    assert none == {base_end}
    assert lines[0]["held_out_right"] != lines[-1]["held_out_right"]
    assert 0 < lines[-1]["held_out_weight"] < 1
    assert "reference_weight" not in lines[-1]  # which this backend would have to compute


def test_ten_checks_come_before_the_first_step_and_one_that_fails_is_the_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    _run(_run_file(folder, "checked", steps=1))
    assert capsys.readouterr().out.count(" ok: ") == 10
    _run(_run_file(folder, "checked", steps=2))
    assert capsys.readouterr().out.count(" ok: ") == 4
    file = _run_file(folder, "unchecked", f"snr_shift = 3.0\n{ADAPTER}")
    with pytest.raises(InputError, match="the parity gate failed at noise, loss: nothing was"):
        _run(file)
    said = capsys.readouterr().out
    assert "noise     FAILED: alpha-bar at snr_shift 3, with diffusers' at 1 of the base's" in said
    assert not (folder / "unchecked" / "checkpoints").exists()


def test_an_adapter_says_what_it_was_trained_with(folder: Path):
    _run(_run_file(folder, "telling", steps=1))
    told = read_header(_newest(folder / "telling") / "adapter.safetensors").made_with
    latents = LatentDataset(str(folder / "latents"))
    text = TextEncoder(str(folder / "text"), TOKENS).fingerprint()
    encoders = {"codec": "dct", "text": text}
    assert told == {**PICTURES, **encoders, "dataset": latents.dataset_id}


@pytest.mark.parametrize(
    "more", ['kind = "extra_frame"', '[adapter.erae]\ntrain = true\nlayers = "own"']
)
def test_the_baseline_and_an_adapter_with_regions_learn_too(folder: Path, more: str):
    name = "extra" if "kind" in more else "regions"
    _run(_run_file(folder, name, f"{ADAPTER}\n{more}"))
    lines = read_metrics(folder / name / "metrics.jsonl")
    base_end = read_metrics(folder / "base" / "metrics.jsonl")[-1]["held_out_none"]
    assert {line["held_out_none"] for line in lines if "held_out_none" in line} == {base_end}
    assert lines[0]["held_out_right"] != lines[-1]["held_out_right"]
    with_weight = {"held_out_weight", "reference_weight"} & lines[-1].keys()
    assert len(with_weight) == (0 if name == "extra" else 2)  # regions need it at every step


@pytest.mark.parametrize(
    ("adapter", "number"), [(ADAPTER, signal.SIGKILL), ('adapter = "none"', signal.SIGTERM)]
)
def test_interrupted_where_there_is_no_ray_it_goes_on_to_the_same_weights(
    folder: Path, adapter: str, number: signal.Signals
):
    kind = "adapters" if adapter == ADAPTER else "bases"
    base = str(folder / "base") if adapter == ADAPTER else "tiny"
    _run(_run_file(folder, f"{kind}-whole", adapter, steps=40, base=base))
    file = _run_file(folder, f"{kind}-stopped", adapter, steps=40, base=base)
    process = _start_without_ray(file)
    metrics = folder / f"{kind}-stopped" / "metrics.jsonl"
    until = time.monotonic() + 60
    while len(read_metrics(metrics)) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number, said
    else:
        assert process.returncode == 143, said
        assert "the same command goes on from here" in said
    stopped = int(_newest(folder / f"{kind}-stopped").name.removeprefix("step-"))
    assert 1 < stopped < 40
    _run(file)
    whole, resumed = (_newest(folder / f"{kind}-{how}") for how in ("whole", "stopped"))
    files = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert len(files) == 2
    for name in files:
        assert _tensors(whole / name) == _tensors(resumed / name)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"base": "tiny"}, 'base: found "tiny" and an adapter; train the tiny base first'),
        ({"base": "/nowhere"}, "/nowhere: found neither a folder nor a model"),
        ({"text": "/nowhere"}, "text: found no T5 encoder"),
        ({"adapter": "[adapter]\nrankk = 3"}, "unknown key adapter.rankk; did you mean rank"),
        ({"adapter": "[adapter.erae]\ntrain = true"}, "adapter.erae.train: found true with"),
        ({"adapter": 'adapter = "some"'}, 'adapter: found "some", wanted .*none'),
        ({"adapter": "[adapter]\nrank = 0"}, r"bad.toml: adapter: found rank 0"),
        ({"adapter": "[compute]\ncheckpoint = 2.0"}, r"bad.toml: compute.checkpoint: found 2.0"),
        ({"steps": 0}, "loop.steps: found 0, wanted 1 or more"),
        ({"rate": -1}, "optimizer.learning_rate: found -1.0, wanted above 0"),
        ({"rate": '"fast"'}, 'optimizer.learning_rate: found "fast", wanted a number'),
    ],
)
def test_bad_input_is_one_line(folder: Path, values: dict, error: str):
    with pytest.raises(InputError, match=error) as raised:
        _run(_run_file(folder, "bad", **values))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "latents", "../bad", "a/b", ".."])
def test_a_training_has_a_folder_of_its_own(folder: Path, name: str):
    file = _run_file(folder, "unnamed")
    file.write_text(file.read_text().replace('name = "unnamed"', f'name = "{name}"'))
    with pytest.raises(InputError, match=f'name: found "{name}", wanted that of a folder'):
        _run(file)


def test_latents_of_another_codec_than_the_base_s_are_refused(folder: Path, tmp_path: Path):
    url = small_latents(tmp_path, codec="vae")
    file = _run_file(folder, "other-codec")
    file.write_text(f'latents = "{url}"\n{file.read_text()}')
    with pytest.raises(InputError, match=r"made by the codec vae, the base .* trained on dct"):
        _run(file)


def test_an_adapter_holds_out_whom_its_base_held_out(folder: Path):
    file = _run_file(folder, "other-split")
    file.write_text(file.read_text().replace("share = 0.3", "share = 0.5"))
    with pytest.raises(InputError, match=r"held_out.share: found 0.5, the base .* trained with"):
        _run(file)


def test_no_latents_is_one_line(folder: Path, tmp_path: Path):
    file = _run_file(folder, "no-latents")
    file.write_text(f'latents = "{tmp_path}/none"\n{file.read_text()}')
    with pytest.raises(InputError, match=r"found no latents; run `python -m jobs.latents`"):
        _run(file)


def test_a_checkpoint_of_another_config_is_refused_by_its_key(folder: Path):
    _run(_run_file(folder, "changed", steps=3))
    with pytest.raises(InputError, match=r"optimizer.learning_rate = 0.001, the run 0.002"):
        _run(_run_file(folder, "changed", steps=3, rate=2e-3))
    with pytest.raises(InputError, match=r"adapter.rank = 4, the run 5"):
        _run(_run_file(folder, "changed", "[adapter]\nrank = 5\nalpha = 4", steps=3))


def test_a_step_that_diverged_can_be_done_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    _run(_run_file(folder, "wild", rate=1e30), code=1)
    said = capsys.readouterr().out
    place = folder / "wild" / "diverged" / "step-00000002"
    assert f"python -m jobs.repro {place} does it again" in said
    monkeypatch.setattr(sys, "argv", ["repro", str(place)])
    assert repro() == 1
    said = capsys.readouterr().out
    assert "step 2, worker 0, batch 1" in said
    assert "it begins with what " in said


def test_so_can_one_of_a_training_in_an_object_store(
    folder: Path, on_s3: Callable[..., S3Server], capsys: pytest.CaptureFixture[str]
):
    store = on_s3()
    file = _run_file(folder, "far", rate=1e30)
    text = file.read_text().replace(f'out = "{folder}"', f'out = "{store.url}/runs"')
    file.write_text(f'latents = "{folder}/latents"\n{text}')
    _run(file, code=1)
    said = re.search(r"python -m jobs\.repro (\S+) does", capsys.readouterr().out)
    assert said is not None
    assert said[1] == f"{store.url}/runs/far/diverged/step-00000002"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["repro", said[1]])
        assert repro() == 1
    assert "it begins with what " in capsys.readouterr().out


def test_torchrun_starts_two_workers_of_the_same_training(folder: Path):
    alone = _run_file(folder, "alone")
    _run(alone)
    pair = _halved(_run_file(folder, "pair"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    ended = subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "jobs.train", "--config", str(pair)],
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("2 a step, 2 workers") == 1
    one, two = (read_metrics(folder / name / "metrics.jsonl") for name in ("alone", "pair"))
    assert [line["step"] for line in two] == [line["step"] for line in one] == list(range(7))
    for here, there in zip(two[1:], one[1:], strict=True):
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-4)


def _halved(file: Path) -> Path:
    """The same samples a step, one in each forward."""
    file.write_text(file.read_text().replace("\nbatch = 2", "\nbatch = 1"))
    return file


def test_the_papers_run_is_a_file():
    run = load(str(ROOT / "jobs/configs/train.toml"), TrainRun)
    assert run.adapter != "none"
    assert (run.adapter.kind, run.adapter.rank) == ("reference", 128)
    assert (run.loop.steps, run.loop.global_batch, run.loop.batch) == (10_000, 32, 1)
    assert run.loop.share(16) == 2 * run.loop.batch  # 16 GPUs, accumulation 2
    optimizer = run.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay) == (1e-5, 1e-2)
    assert optimizer.warmup_steps == 0


def test_videos_are_made_of_latents_where_their_codec_is_not_at_hand(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    more = "[validation]\nevery = 2\nsamples = 2\n[validation.sampling]\nsteps = 2"
    _run(_run_file(folder, "shown", f"{ADAPTER}\n{more}", steps=3))
    assert "validation shows latents, not pictures: found no run in" in caplog.text
    made = sorted(file.suffix for file in (folder / "shown/validation/step-00000002").iterdir())
    assert made == [".mp4", ".mp4", ".png", ".png"]
    _run(_run_file(folder, "shown", f"{ADAPTER}\n[track]\ntensorboard = false", steps=4))
