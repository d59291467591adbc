"""Networks as they lie on disk: whole, or refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel

from pipeline.errors import InputError

Model = TypeVar("Model", bound=PreTrainedModel)
Config = TypeVar("Config", bound=PreTrainedConfig)


def saved_model(kind: type[Model], folder: Path, setting: str) -> Model:
    """A model of this class from its folder. setting: that names it, for the InputError."""
    try:
        loaded: Any = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(setting, folder, f"a {kind.__name__} of transformers", error) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        missing = sorted(report["missing_keys"])
        raise InputError(
            f"{setting}: {folder} lacks {len(missing)} of the weights of a {kind.__name__}, such "
            f"as {missing[0]}; wanted all of them"
        )
    return model


def saved_config(kind: type[Config], folder: Path, setting: str) -> Config:
    """The configuration that lies in a folder. Raises InputError."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable(setting, folder, f"a {kind.__name__} of transformers", error) from error


def saved_tokenizer(folder: Path, setting: str) -> Any:
    """The tokenizer that lies in a folder. Raises InputError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable(setting, folder, "a tokenizer", error) from error
    if tokenizer.convert_tokens_to_ids(".") == tokenizer.unk_token_id:  # made of no vocabulary
        raise InputError(f"{setting}: {folder} has no vocabulary, wanted a tokenizer's files")
    return tokenizer


def saved_weights(file: Path, setting: str) -> Mapping[str, Any]:
    """What a .pth file holds: tensors by name, or tables of such. Raises InputError."""
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise _unreadable(setting, file, "a .pth file of tensors", error) from error
    if not isinstance(stored, Mapping):
        raise InputError(f"{setting}: {file} holds no tensors by name, wanted a .pth file of them")
    return stored


def fill(
    model: torch.nn.Module,
    state: Mapping[str, Tensor],
    setting: str,
    not_used: Sequence[str] = (),
) -> None:
    """Puts all weights in their places. not_used: names that may lack or be too many.

    Raises InputError when they are another network's.
    """
    try:
        found = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # of another size
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{setting}: the weights do not fit ({reason})") from error
    odd = sorted({*found.missing_keys, *found.unexpected_keys} - set(not_used))
    if odd:
        raise InputError(
            f"{setting}: the weights do not fit ({len(odd)} are missing or unknown, such as "
            f"{odd[0]})"
        )


def _unreadable(setting: str, place: Path, wanted: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(f"{setting}: {place} cannot be read ({reason[:120]}); wanted {wanted}")
