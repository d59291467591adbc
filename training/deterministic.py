"""The same bits from the same GPU twice, for what that costs."""

from __future__ import annotations

import os

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def make_deterministic() -> None:
    """For this whole process; to be called before CUDA starts.

    An operation that has no deterministic form raises from then on. Source: PyTorch's notes on
    reproducibility. The cost is not measured on a GPU.
    """
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # cuBLAS reads it when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # autotuning: another kernel may win the next time
