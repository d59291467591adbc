"""A base that two workers share computes what a whole one does."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sharded_workers import CASES, model_of, outcome, work
from small_transformer import base_of
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from model.compute import ComputeSettings, prepare
from model.errors import ModelError
from model.transformer import CustomVideoX


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_the_whole_base_s_and_each_worker_holds_half(
    folder: Path, name: str
) -> None:
    wanted = outcome(model_of(*CASES[name]))
    for rank in (0, 1):
        found = load_file(folder / f"{name}.{rank}.safetensors")
        assert found.keys() == wanted.keys()
        whole, held = wanted.pop("bytes"), found.pop("bytes")
        assert 0.5 * whole <= held <= 0.55 * whole  # odd sizes are padded
        assert all(_near(found[key], wanted[key]) for key in wanted)
        wanted["bytes"] = whole


def test_a_worker_alone_shards_nothing() -> None:
    model = model_of(CASES["kept"][0], ComputeSettings(shard_base=True), False)
    assert outcome(model)["bytes"] == outcome(model_of(*CASES["kept"]))["bytes"]


def test_a_base_that_learns_is_not_sharded() -> None:
    with pytest.raises(ModelError, match="shard_base: found true without an adapter"):
        prepare(CustomVideoX(base_of()), ComputeSettings(shard_base=True))


def _near(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))
