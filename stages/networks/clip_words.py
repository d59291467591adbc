"""CLIP's text side: words to embeddings of length 1, comparable with those of `ClipImages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from pipeline.errors import InputError
from pipeline.weights import Weights, find
from stages.networks.placement import Placement
from stages.networks.stored import reading, saved_model


class ClipWords:
    """The text tower and the tokenizer of a CLIP, loaded at once.

    Raises InputError when they are not there. A text is cut off after the tokens that the model
    knows places for (77).
    """

    def __init__(self, weights: Weights, placement: Placement) -> None:
        folder = find(weights)
        self._placement = placement
        if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
            raise InputError(  # transformers would make one up that knows no word
                f"{weights.setting}: '{weights.name}' has no tokenizer; wanted a folder or a model "
                "of the hub with tokenizer.json, or vocab.json and merges.txt"
            )
        with reading(weights.setting, folder, "a CLIP of transformers with its tokenizer"):
            self._tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = saved_model(
            CLIPTextModelWithProjection, folder, weights.setting, placement.torch_dtype
        )
        self._model = model.to(placement.torch_device).eval()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, width) float32, each of length 1."""
        longest = self._model.config.max_position_embeddings
        features = []
        for start in range(0, len(texts), self._placement.batch):
            tokens = self._tokenizer(
                list(texts[start : start + self._placement.batch]),
                padding="max_length",  # so that what else is in the batch changes nothing
                max_length=longest,
                truncation=True,
                return_tensors="pt",
            ).to(self._placement.torch_device)
            features.append(self._model(**tokens).text_embeds)
        return normalize(torch.cat(features).float(), dim=-1).cpu().numpy()
