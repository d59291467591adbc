"""Whether what a forward is told of references fits them.

B batch, n references, L text tokens, V video tokens. size: (B, n, C, H, W) of the references. All
raise ModelError, in one line.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.config import OWN, EraeConfig
from model.errors import ModelError


def check_unused(**told: Tensor | None) -> None:
    """Nothing of this may be told without a reference, where it would do nothing."""
    for name, tensor in told.items():
        if tensor is not None:
            raise ModelError(
                f"found {name} {tuple(tensor.shape)} without a reference; it is about references: "
                "leave it out, or give one"
            )


def check_present(present: Tensor | None, size: Sequence[int]) -> None:
    """(B,) or (B, n)."""
    if present is not None:
        _check("present", present, [(size[0],), (size[0], 1), (size[0], size[1])])


def check_entity(entity: Tensor | None, size: Sequence[int], num_text_tokens: int) -> None:
    """(B, L) or (B, n, L)."""
    if entity is not None:
        _check("entity", entity, _one_or_each(size, num_text_tokens))


def check_region(
    region: Tensor | None,
    erae: EraeConfig,
    num_layers: int,
    size: Sequence[int],
    num_video_tokens: int,
    sampling: bool,
) -> None:
    """(B, V) or (B, n, V); with layers of their own (layers, B, n, V)."""
    if region is None:
        return
    if not erae.acts(sampling):
        word = "sample" if sampling else "train"
        raise ModelError(
            f"found a region, while erae.{word} is off; leave the region out or switch it on"
        )
    if erae.layers != OWN:
        _check("region", region, _one_or_each(size, num_video_tokens), "one for all layers: ")
        return
    each = [(num_layers, size[0], e, num_video_tokens) for e in (1, size[1])]
    _check("region", region, each, "one for every layer: ")


def _one_or_each(size: Sequence[int], num_tokens: int) -> list[tuple[int, ...]]:
    return [(size[0], num_tokens), *((size[0], e, num_tokens) for e in (1, size[1]))]


def _check(name: str, told: Tensor, wanted: Sequence[tuple[int, ...]], kind: str = "") -> None:
    if tuple(told.shape) not in wanted:
        shapes = " or ".join(str(shape) for shape in dict.fromkeys(wanted))
        raise ModelError(f"found {name} of {tuple(told.shape)}; wanted {kind}{shapes}")
