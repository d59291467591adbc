"""Where a number stops being finite: in the data, in what a module says, or in a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.step import Example

_TENSORS = ("latents", "noise", "text", "reference")


def first_not_finite(
    network: nn.Module,
    losses: Callable[[Sequence[Example]], Tensor],
    examples: Sequence[Example],
) -> str | None:
    """Does one forward and backward pass. Returns what comes first, in words; None: all is finite.

    Of modules that hold one another the innermost is named.
    """
    return _in_what_is_given(network, examples) or _on_the_way(network, losses, examples)


def _in_what_is_given(network: nn.Module, examples: Sequence[Example]) -> str | None:
    for example in examples:
        for name in _TENSORS:
            tensor = getattr(example, name)
            if tensor is not None and not _finite(tensor):
                return f"the {name} of sample {example.key}"
    for name, weight in network.named_parameters():
        if not _finite(weight):
            return f"the weight {name}, before the step"
    return None


def _on_the_way(
    network: nn.Module,
    losses: Callable[[Sequence[Example]], Tensor],
    examples: Sequence[Example],
) -> str | None:
    found: list[str] = []
    with _watched(network, found):
        loss = losses(examples).sum()
        if not found and not _finite(loss):
            found.append("the loss, of a v that is finite")
        if not found:
            loss.backward()
    found += [
        f"the gradient of the weight {name}"
        for name, weight in network.named_parameters()
        if weight.grad is not None and not _finite(weight.grad)
    ]
    return found[0] if found else None


@contextmanager
def _watched(network: nn.Module, found: list[str]) -> Iterator[None]:
    """What a module says is put down, in the order of time, when it or its gradient is not finite.

    A gradient is so first at the module before the one whose backward made it so.
    """

    def look(name: str) -> Callable[..., None]:
        def says(module: nn.Module, given: Any, said: Any) -> None:
            what = f"what {name or 'the network'} says ({type(module).__name__})"
            for tensor in _tensors(said):
                if not _finite(tensor):
                    found.append(what)
                elif tensor.requires_grad:
                    tensor.register_hook(partial(is_told, what))

        def is_told(what: str, gradient: Tensor) -> None:
            if not _finite(gradient):
                found.append(f"the gradient of {what}")

        return says

    hooks = [module.register_forward_hook(look(name)) for name, module in network.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(said: Any) -> Iterable[Tensor]:
    if isinstance(said, Tensor):
        yield said
    elif isinstance(said, tuple | list):
        for part in said:
            yield from _tensors(part)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
