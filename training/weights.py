"""What a checkpoint holds of the network: the whole base, or the adapter on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from model.adapted import Adapted
from model.adapter_file import ADAPTER, load_adapter, save_adapter
from model.weights import Base, load_base, save_base


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """All weights, as diffusers stores a pipeline's transformer: what `base` of a run may name."""

    model: Adapted

    def save(self, folder: Path) -> None:
        """Writes <folder>/transformer."""
        save_base(self.model.transformer, folder)

    def load(self, folder: Path) -> None:
        """Raises ModelError when they cannot be read."""
        stored = load_base(folder, torch.float32)
        self.model.transformer.load_state_dict(stored.state_dict())


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """The adapter alone. base: that it is trained on; made_with: see `AdapterHeader`."""

    model: Adapted
    base: Base
    made_with: Mapping[str, str]

    def save(self, folder: Path) -> None:
        """Writes <folder>/adapter.safetensors."""
        save_adapter(self.model, folder / ADAPTER, self.base, self.made_with)

    def load(self, folder: Path) -> None:
        """Raises ModelError when it cannot be read, or belongs to another base."""
        load_adapter(self.model, folder / ADAPTER, self.base)
