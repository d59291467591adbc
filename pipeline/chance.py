"""Random numbers that belong to a name: the same wherever and whenever they are asked for."""

from __future__ import annotations

import hashlib

import numpy as np


def bits(name: str) -> np.random.Philox:
    """A counter-based generator whose key is a hash of the name."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))


def uniform(name: str) -> float:
    """A number in [0, 1)."""
    return float(bits(name).random_raw(1)[0] >> np.uint64(11)) / 2**53
