"""The adapter on disk: a PEFT file with a header.

Its names are PEFT's, so that tools can read it; but unless its header says "extra_frame", it
belongs on reference tokens only, and a stock pipeline would apply it to all. `load_adapter` is the
one that reads it right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.adapted import Adapted
from model.config import AdapterConfig, EraeConfig, TabConfig
from model.errors import ModelError
from model.weights import Base

ADAPTER = "adapter.safetensors"
"""In a checkpoint's folder."""
_HEADER = "customvideox"
_FORMAT = 1
_PREFIX = "transformer."  # of names and settings, as diffusers' pipelines write them
_TARGETS = ["to_k", "to_out.0", "to_q", "to_v"]


@dataclass(frozen=True, slots=True)
class AdapterHeader:
    """What an adapter file says about itself.

    made_with: what the training's data was made with, e.g. the version of the reference's rule,
    stride and size.
    """

    config: AdapterConfig
    base: Base
    made_with: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels of what it was trained on; None when it does not say."""
        width, height = self.made_with.get("width"), self.made_with.get("height")
        return None if width is None or height is None else (int(width), int(height))


def adapter_file(place: Path) -> Path:
    """The file itself, or that of a checkpoint's folder."""
    return place / ADAPTER if place.is_dir() else place


def save_adapter(
    model: Adapted, file: Path, base: Base, made_with: Mapping[str, str] | None = None
) -> None:
    """Writes the adapter at once or not at all, fp32 safetensors."""
    if model.lora is None or model.adapter is None:
        raise ModelError(f"{file}: the model has no adapter to save; give it one")
    weights = {
        _PREFIX + name: weight.detach().float().cpu().contiguous()
        for name, weight in model.lora.state_dict().items()
    }
    header = {
        "format": _FORMAT,
        "ref_only": model.kind == "reference",
        "config": asdict(model.adapter),
        "base": asdict(base),
        "made_with": dict(made_with or {}),
    }
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(_peft_settings(model.adapter), sort_keys=True),
        _HEADER: json.dumps(header, sort_keys=True),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with _written_at_once(file) as unfinished:
        save_file(weights, unfinished, metadata)


def read_header(file: Path) -> AdapterHeader:
    """What the adapter file says; its weights stay on disk."""
    with _opened(file) as opened:
        text = (opened.metadata() or {}).get(_HEADER)
    if text is None:
        raise ModelError(
            f"{file}: found no CustomVideoX header; wanted an adapter that this project trained"
        )
    header = json.loads(text)
    if header["format"] != _FORMAT:
        raise ModelError(
            f"{file}: found an adapter file of format {header['format']}; wanted {_FORMAT}: "
            "read it with the version that wrote it"
        )
    return AdapterHeader(
        _adapter_config(header["config"]), Base(**header["base"]), header["made_with"]
    )


def load_adapter(model: Adapted, file: Path, base: Base) -> AdapterHeader:
    """Puts the file's weights into the model's adapter.

    Raises ModelError when the file was trained on another base, with other settings (those that
    act in sampling alone may differ) or has other shapes.
    """
    header = read_header(file)
    if model.lora is None or model.adapter is None:
        raise ModelError(f"{file}: the model has no adapter to load this into; give it one")
    if header.base.fingerprint != base.fingerprint:
        raise ModelError(
            f"{file}: this adapter was trained on {header.base.name} "
            f"({header.base.fingerprint[:12]}); found the base {base.name} "
            f"({base.fingerprint[:12]}): load the one that it belongs to"
        )
    _check_settings(file, header.config, model.adapter)
    with _opened(file) as opened:
        names = opened.keys()
        weights = {name.removeprefix(_PREFIX): opened.get_tensor(name) for name in names}
    _check_shapes(file, weights, model.lora.state_dict())
    model.lora.load_state_dict(weights)
    return header


def check_encoder(file: Path, header: AdapterHeader, what: str, found: str) -> None:
    """Raises ModelError for another fingerprint of the `what` than the adapter's latents are of."""
    trained = header.made_with.get(what)
    if trained not in (None, found):
        raise ModelError(
            f"{file}: was trained on latents of the {what} {trained}, this one is {found}; "
            "use the same weights in the same dtype"
        )


def _peft_settings(adapter: AdapterConfig) -> dict[str, Any]:
    settings = {
        "bias": "none",
        "init_lora_weights": True,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "r": adapter.rank,
        "target_modules": _TARGETS,
    }
    return {_PREFIX + name: value for name, value in settings.items()}


def _adapter_config(kept: Mapping[str, Any]) -> AdapterConfig:
    delta = kept["delta"] if isinstance(kept["delta"], str) else tuple(kept["delta"])
    parts = {"delta": delta, "tab": TabConfig(**kept["tab"]), "erae": EraeConfig(**kept["erae"])}
    return AdapterConfig(**{**kept, **parts})


def _check_settings(file: Path, found: AdapterConfig, wanted: AdapterConfig) -> None:
    if found.kind != wanted.kind:
        raise ModelError(
            f"{file}: found an adapter of kind {found.kind!r}, the model's is {wanted.kind!r}; "
            f"wanted the same: set adapter.kind to {found.kind!r}, or name another file"
        )
    for name, trained in _trained_settings(found).items():
        here = _trained_settings(wanted)[name]
        if trained != here:
            raise ModelError(
                f"{file}: this adapter was trained with {name} = {trained!r}; the run has {here!r}:"
                f" set {name} to what it was trained with"
            )


def _trained_settings(config: AdapterConfig) -> dict[str, Any]:
    """What changes the weights, flat. ERAE's map is a setting of sampling unless it was trained."""
    if config.kind == "extra_frame":
        return {name: getattr(config, name) for name in ("kind", "rank", "alpha", "null_text")}
    flat = {
        f.name: getattr(config, f.name)
        for f in fields(config)
        if f.name not in ("tab", "erae", "backend")
    }
    tab = {f"tab.{k}": v for k, v in asdict(config.tab).items() if k != "sample"}
    erae = {f"erae.{k}": v for k, v in asdict(config.erae).items() if k != "sample"}
    return {**flat, **tab, **(erae if config.erae.train else {"erae.train": False})}


def _check_shapes(
    file: Path, found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> None:
    for name in sorted(found.keys() | wanted.keys()):
        shapes = [tuple(some[name].shape) if name in some else None for some in (found, wanted)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"{file}: found {name} of shape {shapes[0]}; wanted {shapes[1]}: "
                "this adapter is for a base of another size"
            )


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, "pt") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{file}: wanted an adapter file, and it cannot be read: {error}"
        ) from error


@contextmanager
def _written_at_once(file: Path) -> Iterator[Path]:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
