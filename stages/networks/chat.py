"""A language model that answers in JSON of one schema, greedily."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import torch
import xgrammar
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from xgrammar.contrib.hf import LogitsProcessor

from pipeline.errors import InputError
from pipeline.weights import Weights, find
from stages.networks.placement import Placement
from stages.networks.server import Conversation, Reply
from stages.networks.stored import saved_model, saved_tokenizer


class ChatModel:
    """Any causal language model of transformers that has a chat template.

    Decoding is greedy and constrained by xgrammar: a token that the schema does not allow cannot be
    chosen, and white space between the tokens of JSON, in which small models get lost, is none.
    What is said in a message is text to the model: the tokenizer's own marks are broken up in it.
    """

    def __init__(
        self, weights: Weights, placement: Placement, max_tokens: int, schema: Mapping[str, Any]
    ) -> None:
        """weights: model and tokenizer. InputError when they are not whole, or have no template."""
        place = find(weights)
        self._placement = placement
        self._tokenizer = saved_tokenizer(place, weights.setting)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.chat_template is None:
            raise InputError(
                f"{weights.setting}: {place} has no chat template, wanted a model made for "
                "instructions"
            )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._marks = _marks(
            {*self._tokenizer.get_added_vocab(), *self._tokenizer.all_special_tokens}
        )
        kind = cast("type[PreTrainedModel]", AutoModelForCausalLM)
        with placement.torch_device:  # so that no copy lies in the host's memory first
            model: Any = saved_model(kind, place, weights.setting, placement.torch_dtype)
        self._model = model.to(placement.torch_device).eval()
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
                [self._plain(message) for message in conversation],
                tokenize=False,
                add_generation_prompt=True,
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

    def _plain(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message that holds none of the tokenizer's marks, so that it cannot end its turn."""
        text, broken = "", message["content"]
        while text != broken:  # of two marks that overlap the second is found in the next round
            text, broken = broken, self._marks.sub(_broken_up, broken)
        return {**message, "content": text}


def _marks(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches what a tokenizer takes for more than its letters. Spaces and words are no marks:
    some have them as tokens of their own.
    """
    marks = [token for token in tokens if len(token.strip()) > 1 and not token.isalnum()]
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))) or r"(?!)")


def _broken_up(mark: re.Match[str]) -> str:
    return f"{mark[0][0]} {mark[0][1:]}"
