"""References as keys and values, for sampling: computed once, read at every step.

B batch, n references, C channels, H x W latent pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.attention import Pair
from model.config import AdapterConfig
from model.errors import ModelError


@dataclass(frozen=True, slots=True)
class ReferenceMemory:
    """What text and video read of references that see themselves alone: the same at all timesteps.

    pairs: keys and values of each layer; shape: (B, n, C, H, W) of the references; present: (B,) or
    (B, n) bool, or None: all. Good for as long as the weights stay as they are.
    """

    pairs: tuple[Pair, ...]
    shape: tuple[int, ...]
    present: Tensor | None

    def present_with(self, told: Tensor | None) -> Tensor | None:
        """What `forward` is to take for present, which must not be told it again."""
        if told is not None:
            raise ModelError(
                "found present beside remembered references; wanted it when they were remembered: "
                "remember(reference, present)"
            )
        return self.present


def can_remember(adapter: AdapterConfig | None) -> bool:
    """Whether references are the same at all steps."""
    return adapter is not None and _obstacle(adapter) is None


def check_memory(adapter: AdapterConfig) -> None:
    """Raises ModelError, in one line, where they are not."""
    reason = _obstacle(adapter)
    if reason is not None:
        raise ModelError(reason)


def _obstacle(adapter: AdapterConfig) -> str | None:
    if adapter.attention != "independent":
        return (
            f'adapter.attention: found "{adapter.attention}", in which the reference reads the '
            'video and is another at every step; wanted "independent" to remember it'
        )
    if adapter.reference_timestep != "zero":
        return (
            f'adapter.reference_timestep: found "{adapter.reference_timestep}", by which the '
            'reference is another at every step; wanted "zero" to remember it'
        )
    return None
