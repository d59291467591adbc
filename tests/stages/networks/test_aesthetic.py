"""LAION's head, against its layers one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.rehearsal.clip import save_head
from pipeline.errors import InputError
from pipeline.weights import Weights
from stages.networks.aesthetic import AestheticHead

REAL = Path(__file__).parents[3].parent / "shared/weights/sac+logos+ava1-l14-linearMSE.pth"


def head(file: Path) -> AestheticHead:
    return AestheticHead(Weights(str(file), "appearance.head"))


def directions(count: int, width: int) -> np.ndarray:
    """(count, width) float32 of length 1."""
    drawn = np.random.default_rng(0).normal(size=(count, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["small", "real"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "small":
        return save_head(tmp_path / "head.pth")
    if not REAL.exists():
        pytest.skip(f"LAION's head is not here: {REAL}")
    return REAL


def test_the_scores_are_those_of_the_layers_one_by_one(file: Path) -> None:
    state = torch.load(file, map_location="cpu", weights_only=True)
    ours = head(file)
    embeddings = directions(5, ours.width)
    wanted = embeddings.astype(np.float64)
    for number in sorted({int(key.split(".")[1]) for key in state}):
        layer = {name: state[f"layers.{number}.{name}"].double() for name in ("weight", "bias")}
        wanted = wanted @ layer["weight"].numpy().T + layer["bias"].numpy()
    np.testing.assert_allclose(ours.scores(embeddings), wanted[:, 0], rtol=1e-12, atol=1e-12)


def test_the_real_head_is_of_vit_l_14_and_scores_as_torch_does() -> None:
    if not REAL.exists():
        pytest.skip(f"LAION's head is not here: {REAL}")
    sizes = (768, 1024, 128, 64, 16, 1)
    pairs = zip((0, 2, 4, 6, 7), sizes[:-1], sizes[1:], strict=True)
    layers = torch.nn.ModuleDict({str(n): torch.nn.Linear(a, b) for n, a, b in pairs})
    network = torch.nn.ModuleDict({"layers": layers})
    network.load_state_dict(torch.load(REAL, map_location="cpu", weights_only=True))
    embeddings = directions(64, 768)
    passed = torch.from_numpy(embeddings)
    with torch.inference_mode():
        for layer in layers.values():
            passed = layer(passed)
    np.testing.assert_allclose(head(REAL).scores(embeddings), passed[:, 0].numpy(), atol=1e-4)


def test_what_is_no_head_names_the_setting(tmp_path: Path) -> None:
    for name, content in (("text.pth", b"no weights"), ("list.pth", None), ("other.pth", {"a": 1})):
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save([1, 2] if content is None else content, file)
        with pytest.raises(InputError, match=r"appearance\.head: .* cannot be read .* wanted"):
            head(file)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(Path, tmp_path / "code.pth")
    with pytest.raises(InputError, match="cannot be read"):
        head(tmp_path / "code.pth")
