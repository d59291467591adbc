"""RAFT's flow and what is taken of it, against torchvision's own model and float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torchvision.models import optical_flow

from pipeline.errors import InputError
from pipeline.weights import Weights
from stages.networks.placement import Placement
from stages.networks.raft import Network, Raft, flow_per_second, statistics

Texture = Callable[..., np.ndarray]
UPDATES = 3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of torchvision's smaller network, as torchvision would publish them."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft_small.pth"
    torch.save(optical_flow.raft_small(weights=None).state_dict(), path)
    return path


def raft(file: Path, dtype: Literal["f32", "bf16"] = "f32", batch: int = 8) -> Raft:
    weights = Weights(str(file), "motion.model")
    return Raft("raft_small", weights, UPDATES, Placement("cpu", dtype, batch))


@pytest.fixture(scope="module")
def pictures(texture: Texture) -> np.ndarray:
    """(4, 132, 180, 3): neither side is a multiple of 8."""
    return np.stack([texture(132, 180, seed=n) for n in range(4)])


def as_tensors(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def test_the_flow_is_that_of_torchvision_on_pictures_padded_by_their_rims(
    file: Path, pictures: np.ndarray
) -> None:
    model = optical_flow.raft_small(weights=None).eval()
    model.load_state_dict(torch.load(file, weights_only=True))
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    seen = as_tensors(padded).double().div(255).sub(0.5).div(0.5).float()
    with torch.inference_mode():
        theirs = model(seen[:2], seen[2:], num_flow_updates=UPDATES)[-1][..., 2:-2, 2:-2]
    whole = as_tensors(pictures)
    ours = raft(file).flow(whole[:2], whole[2:])
    assert theirs.std() > 0.5  # a random network follows nothing, but it says something
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_what_is_taken_of_the_flow_agrees_with_float64(file: Path, pictures: np.ndarray) -> None:
    network, pairs, seconds = raft(file), [(0, 1), (1, 2), (0, 3)], [0.5, 0.25, 0.5]
    found = network.walks(pictures, pairs, seconds, 0.05)
    whole = as_tensors(pictures)
    for (a, b), apart, ours in zip(pairs, seconds, found, strict=True):
        flow = network.flow(whole[a : a + 1], whole[b : b + 1])[0].double().numpy()
        lengths = np.sort(np.hypot(*flow).ravel() / np.hypot(132, 180) / apart)
        top5 = lengths[-round(lengths.size * 0.05) :].mean()
        np.testing.assert_allclose(ours[:2], [lengths.mean(), top5], rtol=1e-4)
        assert ours[2] == pytest.approx((lengths >= 0.05).mean(), abs=1e-4)


def test_a_known_translation_has_the_unit_of_diagonals_per_second() -> None:
    """3 px across and 4 px down on pictures of 60 by 80, whose diagonal is 100: a twentieth."""
    flow = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 60, 80)
    lengths = flow_per_second(flow, torch.tensor([0.5, 1.0]))
    np.testing.assert_allclose(lengths.amin((1, 2)), [0.1, 0.05], rtol=1e-6)
    np.testing.assert_allclose(lengths.amax((1, 2)), [0.1, 0.05], rtol=1e-6)


def test_one_pixel_in_twenty_is_the_fastest_five_per_cent() -> None:
    lengths = torch.full((1, 20, 20), 0.001)
    lengths[0, 3] = 0.2  # 20 of 400 pixels
    (found,) = statistics(lengths, moving=0.01).tolist()
    assert found == pytest.approx([0.001 * 0.95 + 0.2 * 0.05, 0.2, 0.05])


def test_batches_change_nothing(file: Path, pictures: np.ndarray) -> None:
    pairs, seconds = [(0, 1), (1, 2), (2, 3)], [0.5] * 3
    together = raft(file).walks(pictures, pairs, seconds, 0.05)
    by_two = raft(file, batch=2).walks(pictures, pairs, seconds, 0.05)
    np.testing.assert_allclose(together, by_two, rtol=1e-4)


def test_half_precision_stays_near(file: Path, pictures: np.ndarray) -> None:
    pairs, seconds = [(0, 1), (2, 3)], [0.5] * 2
    whole = raft(file).walks(pictures, pairs, seconds, 0.05)
    half = raft(file, "bf16").walks(pictures, pairs, seconds, 0.05)
    np.testing.assert_allclose(half, whole, rtol=0.05)


def test_weights_of_another_network_name_the_setting(file: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_bytes(b"no weights")
    torch.save([1], tmp_path / "list.pth")
    wrong: Sequence[tuple[Network, Path]] = [
        ("raft_large", file),
        ("raft_small", tmp_path / "text.pth"),
        ("raft_small", tmp_path / "list.pth"),
    ]
    for network, path in wrong:
        with pytest.raises(InputError, match=r"motion\.model: .* cannot be read .* wanted a"):
            Raft(network, Weights(str(path), "motion.model"), UPDATES, Placement("cpu"))
