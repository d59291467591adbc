"""Networks as they lie on disk: whole, or refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel

from pipeline.errors import InputError

Model = TypeVar("Model", bound=PreTrainedModel)
Config = TypeVar("Config", bound=PreTrainedConfig)

_BROKEN = (
    *(OSError, EOFError, SafetensorError, pickle.UnpicklingError),  # a file that is not whole
    *(ValueError, TypeError, KeyError, AttributeError),  # one with something else in it
    RuntimeError,  # weights of another size
)


@contextmanager
def reading(setting: str, place: Path, wanted: str) -> Iterator[None]:
    """Around what loads a network: what broken or other files raise becomes an InputError.

    setting: the key of the run file that names the place; wanted: what should be there.
    """
    try:
        yield
    except _BROKEN as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{setting}: {place} cannot be read ({reason[:120]}); wanted {wanted}"
        ) from error


def saved_model(
    kind: type[Model], folder: Path, setting: str, dtype: torch.dtype = torch.float32
) -> Model:
    """A model of this class from its folder. setting: that names it, for the InputError."""
    with reading(setting, folder, f"a {kind.__name__} of transformers"):
        loaded: Any = kind.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )
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
    with reading(setting, folder, f"a {kind.__name__} of transformers"):
        return kind.from_pretrained(folder, local_files_only=True)


def saved_tokenizer(folder: Path, setting: str) -> Any:
    """The tokenizer that lies in a folder. Raises InputError."""
    with reading(setting, folder, "a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.convert_tokens_to_ids(".") == tokenizer.unk_token_id:  # made of no vocabulary
        raise InputError(f"{setting}: {folder} has no vocabulary, wanted a tokenizer's files")
    return tokenizer


def saved_state(file: Path, setting: str, under: str = "") -> Mapping[str, Tensor]:
    """The tensors by name that a .pth file holds. Raises InputError.

    under: of the table in the file that they are in, "" where the file is one table.
    """
    wanted = f'"{under}", tensors by name' if under else "tensors by name"
    with reading(setting, file, f"a .pth file of {wanted}"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        if under and isinstance(state, Mapping):
            state = state[under]
        if not isinstance(state, Mapping) or not all(map(_is_named, state.items())):
            raise ValueError("it holds something else")
    return state


def _is_named(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


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
