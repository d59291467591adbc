"""`python -m jobs.weights`: what run files name is brought here, and said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import weights
from pipeline.errors import InputError

Bring = Callable[..., str]


@pytest.fixture
def bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bring:
    """What the job says of run files with these texts, offline, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(*texts: str) -> str:
        paths = [tmp_path / f"{number}.toml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        monkeypatch.setattr(sys, "argv", ["weights", "--config", *map(str, paths)])
        assert weights.main() == 0
        return capsys.readouterr().out

    return run


def test_backends_without_weights_want_none(bring: Bring) -> None:
    assert bring('out = "runs/x"\n') == "0 wanted: 0 fetched, 0 were here\n"


def test_what_is_here_is_one_line_each_and_counted(bring: Bring, tmp_path: Path) -> None:
    model = tmp_path / "model"
    for part in ("vae", "text_encoder"):
        (model / part).mkdir(parents=True)
        (model / part / "model.safetensors").write_bytes(bytes(20_000_000))
    said = bring(f'[latents]\ncodec = "{model}"\ntext = "{model}"\n').splitlines()
    assert said == [
        f"latents.codec: {model}, 0.02 GB in {model}",
        f"latents.text: {model}, 0.02 GB in {model}",
        "2 wanted: 0 fetched, 2 were here",
    ]


def test_a_training_wants_its_base_and_what_encodes_its_latents(bring: Bring) -> None:
    training = 'base = "nobody/base"\n[loop]\nsteps = 5\n'
    with pytest.raises(InputError, match="base: 'nobody/base' cannot be fetched"):
        bring(training)
    with pytest.raises(InputError, match=r"latents\.codec: 'THUDM/CogVideoX-5b' cannot be fetched"):
        bring('out = "runs/x"\n', training)


def test_an_adapter_wants_all_of_its_base(bring: Bring) -> None:
    text = 'out = "runs/x"\nadapter = "a.safetensors"\nbase = "org/none"\nprompts = "p.csv"\n'
    with pytest.raises(InputError, match=r"base: .*org/none"):
        bring(text)


def test_a_base_that_is_trained_here_is_not_fetched(bring: Bring) -> None:
    base = 'out = "run"\nname = "base"\nbase = "tiny"\nadapter = "none"\n'
    assert "0 wanted" in bring(base, 'out = "run"\nbase = "run/base"\n')


def test_a_misspelt_key_is_named_by_the_kind_of_its_run_file(bring: Bring) -> None:
    with pytest.raises(InputError, match="unknown key bse; did you mean base"):
        bring('bse = "x"\nnull_text = "zeros"\n')
