"""Where a network runs, in which numbers, on how many pictures at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.bounds import Count

if TYPE_CHECKING:
    import torch

# Torch is imported where it is used: run files hold placements, and most runs need no network.


@dataclass(frozen=True, slots=True)
class Placement:
    """device: "auto" is CUDA where there is one; dtype: of weights and activations.

    batch: pictures, pairs or captions that the network sees at once.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["f32", "f16", "bf16"] = "f32"
    batch: Count = 32

    @property
    def torch_device(self) -> torch.device:
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[self.dtype]

    def load(self, pictures: np.ndarray) -> torch.Tensor:
        """(N, H, W, 3) uint8 to the device as (N, 3, H, W) uint8; pinned on the way to a GPU."""
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
        if self.torch_device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.torch_device, non_blocking=True)


def one_thread() -> None:
    """For OpenCV and torch, in every `setup` of a network.

    Workers are processes, one to a core or so: each with threads for all cores, they would wait
    for one another.
    """
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def numbers_of(settings: Any) -> Mapping[str, Any]:
    """What of a stage's settings changes its numbers: device and batch do not, dtype does."""
    values = asdict(settings)
    values["placement"] = {"dtype": settings.placement.dtype}
    return values
