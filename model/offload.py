"""Networks that are on the GPU only while they work, for cards that do not hold all of them.

Weights are read and never changed here, so nothing is copied back: those in the computer's memory
are kept aside, and put in their places again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_Weights = Mapping[str, Tensor]
"""Of one layer, by the attributes that hold them: parameters and buffers."""


@contextmanager
def visiting(networks: Iterable[nn.Module], device: torch.device) -> Iterator[None]:
    """The networks on the device, inside of the block. On their own device it changes nothing."""
    homes = {layer: _own(layer) for network in networks for layer in network.modules()}
    try:
        for layer, home in homes.items():
            _put(layer, _on(home, device))
        yield
    finally:
        for layer, home in homes.items():
            _put(layer, home)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the next one asks for blocks of other sizes


class VisitingLayers:
    """Every layer of a network on the device during its own call, from now on.

    The least that a pass can hold: one layer's weights. Each pass brings all of them over, from
    pinned memory where the device is a GPU.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._device = device
        self._homes: dict[nn.Module, _Weights] = {}
        for layer in network.modules():
            home = _own(layer)
            if not home:
                continue
            if device.type == "cuda":
                home = _like(
                    home, {name: weight.data.pin_memory() for name, weight in home.items()}
                )
                _put(layer, home)
            self._homes[layer] = home
            layer.register_forward_pre_hook(self._arrive)
            layer.register_forward_hook(self._leave, always_call=True)

    def _arrive(self, layer: nn.Module, _: Any) -> None:
        _put(layer, _on(self._homes[layer], self._device))

    def _leave(self, layer: nn.Module, _: Any, out: Any) -> None:
        _put(layer, self._homes[layer])


def _own(layer: nn.Module) -> _Weights:
    return {
        **dict(layer.named_parameters(recurse=False)),
        **dict(layer.named_buffers(recurse=False)),
    }


def _on(weights: _Weights, device: torch.device) -> _Weights:
    moved = {name: weight.data.to(device, non_blocking=True) for name, weight in weights.items()}
    return _like(weights, moved)


def _like(weights: _Weights, values: Mapping[str, Tensor]) -> _Weights:
    """The values as parameters where those are parameters."""
    return {
        name: nn.Parameter(values[name], weight.requires_grad)
        if isinstance(weight, nn.Parameter)
        else values[name]
        for name, weight in weights.items()
    }


def _put(layer: nn.Module, weights: _Weights) -> None:
    for name, weight in weights.items():
        setattr(layer, name, weight)
