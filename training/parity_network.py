"""Checks of the parity gate on the network: is it the base, and does only the adapter learn?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model.errors import ModelError
from model.fp8 import Fp8Linear
from model.stock import Read, stock_v
from model.transformer import CustomVideoX
from training.order import normal
from training.parity_case import Case, Finding, apart

_FP8 = 0.05
"""How far weights of four significant bits may be from what they were: rounding alone is 0.026."""
_FP8_V = 0.25
"""And what they say: ours; a base that is not this one is 1 or more away."""
_STIR = 0.02
"""What is added to weights so that a fresh adapter, whose B is 0, is one like any other (ours)."""


def stock(case: Case) -> Finding:
    """The v without a reference is that of diffusers' transformer on the base's own files."""
    batch, model = case.batch(), case.model
    with case.stored() as read, torch.no_grad():
        ours = model(batch.latents, batch.timestep, batch.text)
        dtype = model.transformer.dtype
        given = (batch.latents, batch.timestep, batch.text)
        theirs = stock_v(model.transformer.config, read, dtype, *given)
    what = f"v of {len(batch.latents)} without a reference, with diffusers' on the files of "
    bound = _FP8_V if _is_fp8(model.transformer) else case.bound()
    return Finding(f"{what}{case.base}", apart(ours, theirs), bound)


def base_weights(case: Case) -> Finding:
    """The base holds what its files hold; one in eight bits is near them, and computes as stock."""
    base = case.model.transformer
    held = _held(base)
    names = [n for n, _ in base.named_parameters() if not n.endswith(".scale")]
    changed = total = 0.0
    with case.stored() as read:
        for name in names:
            here = held(name)
            there = read(name).to(here.device, here.dtype)
            changed += float((here.double() - there.double()).square().sum())
            total += float(there.double().square().sum())
    distance = (changed / total) ** 0.5
    if not _is_fp8(base):
        what = f"all {len(names)} weights of the base in {_short(base.dtype)}, with its files"
        return Finding(what, distance, 0.0)
    if not distance <= _FP8:
        raise ModelError(f"weights in eight bits are {distance:.3g} from their files, over {_FP8}")
    batch = case.batch()
    with torch.no_grad():
        ours = case.model(batch.latents, batch.timestep, batch.text)
        given = (batch.latents, batch.timestep, batch.text)
        theirs = stock_v(base.config, held, base.dtype, *given)
    what = f"v on weights in eight bits ({distance:.3g} from their files), with diffusers' on them"
    return Finding(what, apart(ours, theirs), case.bound())


def hidden_reference(case: Case) -> Finding:
    """A reference that is hidden by -inf is one that is not there."""
    batch, model = case.batch(), case.model
    given = (batch.latents, batch.timestep, batch.text)
    if batch.reference is None:
        return Finding("a base alone refuses a reference", float(not _refuses(case)), 0.0)
    with torch.no_grad(), stirred(case.trained):
        removed = model(*given)
        if not isinstance(model, CustomVideoX):
            with stirred(case.trained):
                again = model(*given)
            what = "v without an extra frame, with the same after another adapter"
            return Finding(what, apart(again, removed), case.bound())
        absent = torch.zeros(len(batch.latents), dtype=torch.bool, device=batch.latents.device)
        hidden = model(*given, batch.reference, present=absent)
        if torch.equal(model(*given, batch.reference), removed):
            raise ModelError("a reference that is shown changes nothing")
    bound = 1e-5 if model.transformer.dtype == torch.float32 else 2e-2
    what = "v with a reference hidden by -inf, with the one that is removed"
    return Finding(what, apart(hidden, removed), bound)


def gradients(case: Case) -> Finding:
    """One backward reaches exactly what is trained, and that is as much as it should be."""
    expected = _expected(case)
    found = sum(weight.numel() for weight in case.trained.values())
    with stirred(case.trained):
        case.training.losses(case.examples()).sum().backward()
        reached = {
            name
            for name, weight in case.model.named_parameters()
            if weight.grad is not None and bool(weight.grad.any())
        }
        case.model.zero_grad(set_to_none=True)
    wrong = reached ^ case.trained.keys()
    if wrong:
        raise ModelError(f"a gradient reaches {len(wrong)} weights too many or few: {min(wrong)}")
    what = f"gradients reach {found:,} numbers in {len(reached)} weights, of {expected:,}"
    return Finding(what, abs(found - expected), 0.0)


@contextmanager
def stirred(trained: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Something is added to every trained weight; afterwards each has its own bits again."""
    kept = {name: weight.detach().cpu().clone() for name, weight in trained.items()}
    try:
        with torch.no_grad():
            for name, weight in trained.items():
                noise = torch.from_numpy(normal(f"parity/{name}", weight.shape))
                weight.add_(_STIR * noise.to(weight.device, weight.dtype))
        yield
    finally:
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(kept[name])


def _expected(case: Case) -> int:
    """Numbers that are optimised, by the sizes alone."""
    base, adapter = case.model.transformer, case.model.adapter
    if adapter is None:
        with case.stored() as read:
            return sum(read(name).numel() for name, _ in base.named_parameters())
    config = base.config
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers = 4 * config["num_layers"]  # q, k, v and out
    if isinstance(case.model, CustomVideoX):
        layers -= 2  # the last block's reference answers, and asks nothing
    return layers * 2 * width * adapter.rank


def _refuses(case: Case) -> bool:
    batch = case.batch()
    try:
        case.model(batch.latents, batch.timestep, batch.text, batch.latents[:, :1])
    except ModelError:
        return True
    return False


def _held(base: nn.Module) -> Read:
    """The base's weights as it computes with them, whole."""

    def read(name: str) -> Tensor:
        place, _, leaf = name.rpartition(".")
        module: Any = base.get_submodule(place)
        eighth = leaf == "weight" and isinstance(module, Fp8Linear)
        weight = module.dequantised() if eighth else getattr(module, leaf)
        return weight.full_tensor() if isinstance(weight, DTensor) else weight.detach()

    return read


def _is_fp8(base: nn.Module) -> bool:
    return any(isinstance(module, Fp8Linear) for module in base.modules())


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
