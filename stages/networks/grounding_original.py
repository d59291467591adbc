"""Grounding DINO by its authors' package, mended where it stands (groundingdino-py 0.4.0).

Two things are wrong with it: its text encoder asks transformers for what version 5 took out, so it
is not built at all; and a batch of different captions is masked with one another's masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from groundingdino import config as package_configs
from groundingdino.models import build_model
from groundingdino.models.GroundingDINO import groundingdino as package
from groundingdino.util.misc import NestedTensor
from groundingdino.util.slconfig import SLConfig
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from pipeline.errors import InputError
from stages.networks.grounding import ORIGINAL_FILE
from stages.networks.stored import fill, saved_config, saved_state, saved_tokenizer

_NOT_USED = (
    *("label_enc.weight", "bert.embeddings.position_ids"),  # for training; for an older BERT
    *("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
)
_COUNTED = "relative_position_index"
"""Weights that a file may have or lack; and numbers that follow from the window's size."""


class TextEncoder(nn.Module):
    """BERT with the words of a caption divided into phrases, as the package calls it.

    The three parts keep the names that they have in the weights.
    """

    def __init__(self, bert_model: BertModel) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
    ) -> Mapping[str, Tensor]:
        """attention_mask: (B, T, T) bool, True where a token may look; the others (B, T).

        It becomes what is added to the scores: a bool mask would be added too where attention is
        not torch's own, and hide nothing.
        """
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        hidden_from = torch.zeros_like(attention_mask, dtype=hidden.dtype)
        hidden_from.masked_fill_(~attention_mask, torch.finfo(hidden.dtype).min)
        encoded = self.encoder(hidden, attention_mask=hidden_from[:, None])
        return {"last_hidden_state": encoded.last_hidden_state}


class OriginalGrounding:
    """`Grounding` by the authors' package."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, weights: Path, text: Path, config: str, table: str) -> OriginalGrounding:
        """weights: the .pth file or its folder; text: BERT's folder. Raises InputError."""
        file = weights / ORIGINAL_FILE if weights.is_dir() else weights
        if not file.is_file():
            raise InputError(f"{table}.model: found no {file.name} in {weights}, wanted that file")
        stored = saved_state(file, f"{table}.model", under="model")
        bert = saved_config(BertConfig, text, f"{table}.text")
        tokenizer = saved_tokenizer(text, f"{table}.text")
        model = build(_configuration(config, table), bert, tokenizer)
        state = {name.removeprefix("module."): weights for name, weights in stored.items()}
        counted = [name for name in model.state_dict() if name.endswith(_COUNTED)]
        fill(model, state, f"{table}.model", [*_NOT_USED, *counted])
        return cls(model, tokenizer)

    def __call__(self, pixels: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As `Grounding` says."""
        nothing_padded = pixels.new_zeros(pixels.shape[0], *pixels.shape[2:], dtype=torch.bool)
        answer = self.model(NestedTensor(pixels, nothing_padded), captions=list(captions))
        return answer["pred_logits"], answer["pred_boxes"]


def build(config: Any, bert: BertConfig, tokenizer: Any) -> nn.Module:
    """The package's model with random weights, of the configuration that the package reads."""
    config.use_checkpoint = config.use_transformer_ckpt = False  # of use in training alone
    text = SimpleNamespace(  # what the package would fetch by name
        get_tokenlizer=lambda name: tokenizer,
        get_pretrained_language_model=lambda name: BertModel(bert),
    )
    parts = {"BertModelWarper": TextEncoder, "get_tokenlizer": text}
    with _in_place(package, parts):
        model = build_model(config)
    for layer in model.transformer.encoder.text_layers:
        layer.register_forward_pre_hook(_mask_of_every_head, with_kwargs=True)
    return model


def _mask_of_every_head(
    layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Attention wants (B x heads, T, T), the heads of one caption after one another.

    The package would repeat the whole batch; a mask that has this many rows it leaves alone.
    """
    mask = kwargs["src_mask"].repeat_interleave(layer.nhead, dim=0)
    return args, {**kwargs, "src_mask": mask}


def _configuration(name: str, table: str) -> Any:
    """One of the package's own, by name, or a file."""
    folder = Path(next(iter(package_configs.__path__)))
    file = Path(name) if name.endswith(".json") else folder / f"{name}.py"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("Grounding*.py")))
        raise InputError(f"{table}.config: found no {name}; wanted a .json file, or one of {known}")
    return SLConfig.fromfile(str(file))


@contextmanager
def _in_place(module: ModuleType, parts: Mapping[str, Any]) -> Iterator[None]:
    """Other parts in a module, while something is built of them."""
    before = {name: vars(module)[name] for name in parts}
    vars(module).update(parts)
    try:
        yield
    finally:
        vars(module).update(before)
