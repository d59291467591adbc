"""Whatever is wrong with a file of weights, it is one line that names the setting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.rehearsal.clip import save_clip, save_tokenizer
from pipeline.errors import InputError
from pipeline.weights import Weights
from stages.networks.aesthetic import AestheticHead
from stages.networks.clip import ClipImages
from stages.networks.clip_words import ClipWords
from stages.networks.placement import Placement
from stages.networks.raft import Raft
from stages.networks.stored import saved_state, saved_tokenizer


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def of_another_size(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for part in ("text_config", "vision_config"):
        config[part]["intermediate_size"] += 8
    file.write_text(json.dumps(config))


def without_a_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("spoil", [truncated, of_another_size, without_a_config])
@pytest.mark.parametrize("kind", [ClipImages, ClipWords])
def test_a_spoilt_model(kind: type, spoil: Callable[[Path], None], tmp_path: Path) -> None:
    folder = save_tokenizer(save_clip(tmp_path))
    spoil(folder)
    with pytest.raises(InputError, match=r"^pair\.model: .* cannot be read") as raised:
        kind(Weights(str(folder), "pair.model"), Placement("cpu"))
    assert "\n" not in str(raised.value)


def test_a_spoilt_tokenizer(tmp_path: Path) -> None:
    folder = save_tokenizer(save_clip(tmp_path))
    for file in (*folder.glob("tokenizer.json"), *folder.glob("vocab.json")):
        file.write_text('{"version": ')
    with pytest.raises(InputError, match=r"^x: "):
        saved_tokenizer(folder, "x")


@pytest.mark.parametrize(
    "stored",
    [
        {"layers.0.weight": {"more": torch.ones(1)}},
        {0: torch.ones(1)},
        {"layers.0.weight": torch.ones(1, 4), "layers.0.bias": torch.ones(2, 2)},
        {"layers.0.weight": torch.ones(3, 4)},
        torch.ones(2),
    ],
)
def test_a_file_of_something_else(stored: Any, tmp_path: Path) -> None:
    file = Weights(str(tmp_path / "other.pth"), "x")
    torch.save(stored, file.name)
    for load in (AestheticHead, lambda weights: Raft("raft_small", weights, 1, Placement("cpu"))):
        with pytest.raises(InputError, match=r"^x: .* cannot be read"):
            load(file)
    with pytest.raises(InputError, match=r'wanted a \.pth file of "model", tensors by name'):
        saved_state(Path(file.name), "x", under="model")
