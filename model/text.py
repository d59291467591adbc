"""Prompts to embeddings by a T5 encoder, and which of its tokens name the subject.

B batch, L max_tokens, D width of the encoder.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer
from transformers.utils import logging as transformers_logging

from model.errors import ModelError
from model.fingerprint import fingerprint

_SPECIAL = ("<pad>", "</s>", "<unk>")  # numbers 0, 1, 2 of every T5
_SPACE = "▁"
_PRINTABLE = tuple(chr(code) for code in range(33, 127))


class TextEncoder:
    """T5's encoder as CogVideoX calls it: padded to max_tokens, without a mask.

    dim: D, the width of the embeddings.
    """

    def __init__(
        self,
        source: str,
        max_tokens: int = 226,  # CogVideoX's; the end of the text is one of them
        dtype: torch.dtype = torch.float32,  # exact; the hub's weights are bfloat16
        device: str = "cpu",
    ) -> None:
        """source: hub name or folder of a pipeline, or a folder of T5 and its tokenizer alone.

        Raises ModelError when it is not there, or not a T5.
        """
        alone = (Path(source) / "config.json").is_file()
        transformers_logging.disable_progress_bar()  # a job has a progress line of its own
        try:
            self._tokenizer = T5Tokenizer.from_pretrained(
                source, subfolder="" if alone else "tokenizer"
            )
            encoder, loading = cast(Any, T5EncoderModel).from_pretrained(
                source,
                subfolder="" if alone else "text_encoder",
                dtype=dtype,
                use_safetensors=True,  # nothing is unpickled
                output_loading_info=True,
            )
        except OSError as error:
            raise _not_found(source) from error
        # Without its files the tokenizer is an empty one, and another encoder's weights are left
        # out for random ones: transformers only warns.
        if _is_empty(self._tokenizer) or loading["missing_keys"]:
            raise _not_found(source)
        self._kept: T5EncoderModel | None = encoder.to(device).eval().requires_grad_(False)
        self._max_tokens = max_tokens
        self.dim: int = encoder.config.d_model

    @property
    def networks(self) -> tuple[T5EncoderModel, ...]:
        """What has weights, and a device; none after `release`."""
        return () if self._kept is None else (self._kept,)

    def release(self) -> None:
        """Lets the weights go (9.5 GB of T5-XXL); `spans` needs none."""
        self._kept = None

    @property
    def _encoder(self) -> T5EncoderModel:
        if self._kept is None:
            raise ModelError(
                "text: the encoder was let go after its last prompt, and there is another one; "
                "load it again, or name all prompts before"
            )
        return self._kept

    def fingerprint(self) -> str:
        """Of weights, dtype, vocabulary and length: embeddings with the same one may be mixed."""
        settings = {"max_tokens": self._max_tokens, "vocabulary": self._tokenizer.get_vocab()}
        return fingerprint(settings, self._encoder)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, D) in the encoder's dtype, on its device; what exceeds L tokens is cut off."""
        tokens = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        return self._encoder(tokens.input_ids.to(self._encoder.device)).last_hidden_state

    def spans(self, prompt: str, entity: str) -> list[int]:
        """Numbers of the tokens, below L, that make up the entity, wherever it stands whole.

        It is found as whole words, in upper or lower case, whatever the space between them. Raises
        ModelError, naming both, when the prompt lacks it or is cut off before it.
        """
        words = r"\s+".join(re.escape(word) for word in entity.split())
        found = list(re.finditer(rf"(?<!\w){words}(?!\w)", prompt, re.IGNORECASE)) if words else []
        if not found:
            raise ModelError(
                f"text: found no '{_line(entity)}' in the prompt '{_line(prompt)}'; wanted it word "
                "for word; write it into the prompt, or name an entity that it holds"
            )
        offsets = self._tokenizer(
            prompt, max_length=self._max_tokens, truncation=True, return_offsets_mapping=True
        ).offset_mapping
        is_full = len(offsets) == self._max_tokens
        end = max(stop for _, stop in offsets) if is_full else len(prompt)
        whole = [match.span() for match in found if match.end() <= end]
        if not whole:
            raise ModelError(
                f"text: '{_line(entity)}' is cut off: the first {self._max_tokens} tokens of the "
                f"prompt '{_line(prompt)}' end before it; name it earlier"
            )
        return [
            number
            for number, (start, stop) in enumerate(offsets)
            if any(start < last and first < stop for first, last in whole)
        ]


def _not_found(source: str) -> ModelError:
    return ModelError(
        f"text: found no T5 encoder with its tokenizer at '{source}'; wanted the hub name or the "
        "folder of a CogVideoX pipeline, or a folder of T5; download it first, or name another"
    )


def _is_empty(tokenizer: T5Tokenizer) -> bool:
    return all(piece == _SPACE or piece.startswith("<") for piece in tokenizer.get_vocab())


def _line(text: str) -> str:
    return textwrap.shorten(text, 160, placeholder=" ...")


def build_tiny(folder: str, captions: Iterable[str], dim: int = 64, seed: int = 0) -> None:
    """Writes a small T5 encoder of random weights, with a tokenizer made from the captions.

    folder: becomes laid out like a pipeline's, and loads by TextEncoder. dim: D, a multiple of 4.
    The same captions in any order make the same vocabulary, and the same seed the same weights.
    """
    tokenizer = T5Tokenizer(vocab=_vocabulary(captions), extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=dim,
        d_kv=dim // 4,
        num_heads=4,
        d_ff=2 * dim,
        num_layers=2,  # the second sees what the first has made of the neighbours
        feed_forward_proj="gated-gelu",  # as T5 v1.1
        dropout_rate=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = T5EncoderModel(config)
    tokenizer.save_pretrained(str(Path(folder) / "tokenizer"))
    encoder.save_pretrained(str(Path(folder) / "text_encoder"))


def _vocabulary(captions: Iterable[str], max_words: int = 4000) -> list[tuple[str, float]]:
    """(piece, score) for T5's Unigram model: special tokens, characters, frequent words.

    A word is one token; one that the captions lack is cut into its longest known beginning and
    single characters. Counted rather than fitted: tokenizers' own Unigram trainer makes another
    vocabulary in every process, and keeps no words of so little text. max_words: ours.
    """
    counts = Counter(word for caption in captions for word in re.findall(r"\w+", caption))
    total = sum(counts.values())
    words = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
    characters = sorted({*_PRINTABLE, _SPACE, *(letter for word in words for letter in word)})
    # Less likely than any word, so that a known word is never cut.
    rare = -math.log(total + 1) - 1
    return [
        *((token, 0.0) for token in _SPECIAL),
        *((character, rare) for character in characters),
        *((_SPACE + word, math.log(counts[word] / total)) for word in words),
    ]
