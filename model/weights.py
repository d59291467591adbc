"""The base on disk, in diffusers' format, and which one it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn

from model.config import TINY, TransformerConfig
from model.errors import ModelError
from model.flops import sizes

FILES = ("transformer/*", "scheduler/*")
"""Of a pipeline on the hub: what is read of it, by their patterns."""


@dataclass(frozen=True, slots=True)
class Base:
    """Which base an adapter belongs to.

    name: of the hub or a folder; revision: of the hub, "" elsewhere; fingerprint: SHA-256 over the
    transformer's config and weight files.
    """

    name: str
    revision: str
    fingerprint: str


def init_tiny_base(seed: int, config: TransformerConfig = TINY) -> CogVideoXTransformer3DModel:
    """A base of random weights that follow from the seed alone, in fp32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CogVideoXTransformer3DModel(**config.keywords())


def random_base(
    config: TransformerConfig, dtype: torch.dtype, device: torch.device
) -> CogVideoXTransformer3DModel:
    """One whose numbers do not matter, made where and as it is to be: a 5B in fp32 would need twice
    its room.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(), device:
            torch.manual_seed(0)
            base = CogVideoXTransformer3DModel(**config.keywords())
    finally:
        torch.set_default_dtype(usual)
    nn.Module.to(base, dtype)  # positions are made in fp32
    return base


def save_base(transformer: CogVideoXTransformer3DModel, folder: Path) -> None:
    """Writes <folder>/transformer as diffusers' pipelines have it."""
    transformer.save_pretrained(folder / "transformer", safe_serialization=True)


def load_base(
    path_or_name: str | Path, dtype: torch.dtype = torch.float32
) -> CogVideoXTransformer3DModel:
    """The transformer of a local folder (a pipeline's or its own) or of a name on the hub.

    Raises ModelError when it is not there, or is no text-to-video CogVideoX 1.0.
    """
    folder = base_folder(path_or_name)
    _check_kind(path_or_name, _read_config(folder))
    try:
        loaded = CogVideoXTransformer3DModel.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, output_loading_info=True
        )
        base, told = cast(tuple[CogVideoXTransformer3DModel, dict[str, list[str]]], loaded)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise ModelError(f"{path_or_name}: the base cannot be read: {reason}") from error
    if told["missing_keys"]:
        raise ModelError(
            f"{path_or_name}: the base cannot be read: {len(told['missing_keys'])} weights are "
            f"missing, as {min(told['missing_keys'])}; fetch or save it again"
        )
    return base


def base_sizes(path_or_name: str | Path) -> TransformerConfig:
    """Of a base, read from its config alone. Raises ModelError as `load_base` does."""
    config = _read_config(base_folder(path_or_name))
    _check_kind(path_or_name, config)
    with torch.device("meta"):
        base = CogVideoXTransformer3DModel.from_config(config)
    return sizes(cast(CogVideoXTransformer3DModel, base))


def identify_base(path_or_name: str | Path) -> Base:
    """Reads every byte of the base's weights: seconds for a 5B."""
    folder = base_folder(path_or_name)
    config = {k: v for k, v in _read_config(folder).items() if not k.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    # The hub's cache keeps its files in .../snapshots/<revision>/transformer.
    revision = folder.parent.name if folder.parent.parent.name == "snapshots" else ""
    return Base(str(path_or_name), revision, digest.hexdigest())


def base_folder(path_or_name: str | Path) -> Path:
    """The folder that holds the transformer's config.json, fetched from the hub if it must be."""
    local = Path(path_or_name).expanduser()
    for folder in (local / "transformer", local):
        if (folder / "config.json").is_file():
            return folder
    try:
        found = local if local.exists() else _downloaded(path_or_name)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{path_or_name}: found neither a folder nor a model of this name on the hub; wanted "
            "a CogVideoX base: check the name, or download it first"
        ) from error
    if not (found / "transformer" / "config.json").is_file():
        raise ModelError(
            f"{path_or_name}: found no transformer/config.json; wanted a CogVideoX folder as "
            "diffusers saves it"
        )
    return found / "transformer"


def base_snr_shift(path_or_name: str | Path) -> float:
    """As the base's own scheduler has it; without one as its kind, the 5B or the 2B."""
    folder = base_folder(path_or_name)
    try:
        scheduler = cast(Any, CogVideoXDDIMScheduler).load_config(
            folder.parent, subfolder="scheduler"
        )
    except OSError:
        return usual_snr_shift(_read_config(folder))
    return float(scheduler["snr_shift_scale"])


def usual_snr_shift(config: Mapping[str, Any]) -> float:
    """Of a base without a scheduler: rotary places are the 5B's, the others the 2B's."""
    return 1.0 if config["use_rotary_positional_embeddings"] else 3.0


def _downloaded(name: str | Path) -> Path:
    return Path(snapshot_download(str(name), allow_patterns=list(FILES)))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ModelError(f"{folder}: config.json is not JSON: {error}") from error


def _check_kind(path_or_name: str | Path, config: Mapping[str, Any]) -> None:
    if config.get("_class_name", "CogVideoXTransformer3DModel") != "CogVideoXTransformer3DModel":
        raise ModelError(
            f"{path_or_name}: found a {config['_class_name']}; wanted a CogVideoX transformer"
        )
    if config.get("in_channels", 16) != 16:
        raise ModelError(
            f"{path_or_name}: found image-to-video weights ({config['in_channels']} channels); "
            "wanted a text-to-video base of 16: use CogVideoX-2b or CogVideoX-5b"
        )
    if config.get("patch_size_t") is not None:
        raise ModelError(
            f"{path_or_name}: found CogVideoX 1.5 (patches of {config['patch_size_t']} frames); "
            "wanted 1.0: use CogVideoX-2b or CogVideoX-5b"
        )
