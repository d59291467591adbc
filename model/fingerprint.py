"""A short name for a network's weights, to tell whose output a cached tensor is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_HEAD = 4096  # values of each tensor: training touches all of them; T5-XXL takes a second, not 20


def fingerprint(settings: Mapping[str, Any], *networks: nn.Module) -> str:
    """16 hex digits over settings (JSON) and the names, shapes, dtypes and first values of weights.

    The same on every device.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for network in networks:
        for name, weight in sorted(network.named_parameters(), key=lambda pair: pair[0]):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(_bytes(weight.detach().flatten()[:_HEAD]))
    return digest.hexdigest()[:16]


def _bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().view(torch.uint8).numpy().tobytes()
