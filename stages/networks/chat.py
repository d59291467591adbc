"""A language model that answers in JSON of one schema, greedily."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import xgrammar
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from xgrammar.contrib.hf import LogitsProcessor

from pipeline.errors import InputError
from stages.networks.placement import Placement
from stages.networks.server import Conversation, Reply


class ChatModel:
    """Any causal language model of transformers that has a chat template.

    Decoding is greedy and constrained by xgrammar: a token that the schema does not allow cannot be
    chosen, and white space between the tokens of JSON, in which small models get lost, is none.
    """

    def __init__(
        self, place: Path, placement: Placement, max_tokens: int, schema: Mapping[str, Any]
    ) -> None:
        """place: a folder with model and tokenizer. InputError when it has no chat template."""
        self._placement = placement
        self._tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise InputError(
                f"{place}: found no chat template, wanted a model made for instructions"
            )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=placement.torch_dtype,
            device_map=placement.torch_device,
            use_safetensors=True,
        ).eval()
        self._end = self._tokenizer.eos_token_id
        # In place of the model's own, which would sample, and punish the repetition that JSON is.
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            repetition_penalty=1.0,
            max_new_tokens=max_tokens,
            eos_token_id=self._end,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        vocabulary = xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer,
            vocab_size=self._model.config.get_text_config().vocab_size,
            stop_token_ids=[self._end],
        )
        compiler = xgrammar.GrammarCompiler(vocabulary)
        self._grammar = compiler.compile_json_schema(dict(schema), any_whitespace=False)

    def answers(self, conversations: Sequence[Conversation]) -> list[Reply]:
        """One reply per conversation, in order; each is the same alone and beside others."""
        rest = iter(conversations)
        replies: list[Reply] = []
        while batch := list(islice(rest, self._placement.batch)):
            replies += self._batch(batch)
        return replies

    @torch.inference_mode()
    def _batch(self, conversations: Sequence[Conversation]) -> list[Reply]:
        prompts = [
            self._tokenizer.apply_chat_template(
                list(conversation), tokenize=False, add_generation_prompt=True
            )
            for conversation in conversations
        ]
        encoded = self._tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self._placement.torch_device)
        written = self._model.generate(
            **encoded, logits_processor=[LogitsProcessor(self._grammar)]
        )[:, encoded["input_ids"].shape[1] :]
        texts = self._tokenizer.batch_decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        ended = (written == self._end).any(dim=1).tolist()
        return [Reply(text, whole) for text, whole in zip(texts, ended, strict=True)]
