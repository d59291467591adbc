"""With `deterministic = true` a training repeats itself to the bit, on a GPU too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_training import SmallNetwork, quiet, small_trainer
from torch import Tensor, nn

from model.merge import attend, merge
from training.course import LoopSettings
from training.deterministic import make_deterministic

LOOP = LoopSettings(steps=12, global_batch=4, batch=2, checkpoint_every=50)
ROOT = Path(__file__).parents[2]


class Attending(SmallNetwork):
    """Its adapter looks at the reference by the attention of the real one, in bf16 on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Linear(4, 3 * 2 * 64, bias=False)
        self.adapter_out = nn.Linear(2 * 64, 4, bias=False)

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, reference: Tensor | None
    ) -> Tensor:
        said = super().forward(latents, timestep, text, None)
        if reference is None:
            return said
        dtype = torch.bfloat16 if latents.is_cuda else torch.float32
        (q, k, v), (_, k_ref, v_ref) = (
            self.adapter(some.movedim(2, -1).flatten(1, 3))
            .to(dtype)
            .unflatten(-1, (3, 2, 64))
            .permute(2, 0, 3, 1, 4)
            .contiguous()
            .unbind(0)
            for some in (latents, reference)
        )
        bias = torch.full((len(q), 1, q.shape[2]), 0.1, device=q.device)
        seen = merge(q, [attend(q, k, v), attend(q, k_ref, v_ref)], bias)
        seen = self.adapter_out(seen.transpose(1, 2).flatten(2).float())
        return said + seen.unflatten(1, (2, 2, 3)).movedim(-1, 2)


def train(folder: Path, device: str, stop: Callable[[], int] = lambda: 0) -> None:
    """In a process of its own, for it changes how PyTorch computes."""
    small_trainer(folder, LOOP, network=Attending().to(device)).run(stop, quiet)


def thrice(folder: Path, device: str) -> None:
    """Two whole runs, and one that is stopped and goes on."""
    make_deterministic()
    train(folder / "one", device)
    train(folder / "two", device)
    asked = iter([0] * 5 + [15])
    train(folder / "resumed", device, lambda: next(asked))
    train(folder / "resumed", device)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU"),
            ],
        ),
    ],
)
def test_two_runs_and_a_resumed_one_agree_to_the_bit(device: str, tmp_path: Path):
    paths = [str(place) for place in (ROOT, ROOT / "tests", Path(__file__).parent)]
    code = (
        f"import sys; sys.path[:0] = {paths!r}\n"
        "from pathlib import Path; from test_deterministic import thrice\n"
        f"thrice(Path({str(tmp_path)!r}), {device!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    last = "checkpoints/step-00000012"
    for name in ("w.safetensors", "optimizer.safetensors"):
        one, *others = (
            load_file(tmp_path / run / last / name) for run in ("one", "two", "resumed")
        )
        for other in others:
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
