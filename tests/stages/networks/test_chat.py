"""Answers of a language model: whatever its weights say, what comes out fits the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import AutoTokenizer

from jobs.rehearsal.language import TEMPLATE, save_language
from pipeline.clip import Clip, Failed, Measurement
from pipeline.errors import InputError
from pipeline.weights import Weights
from stages.answer import MAX_TOKENS, SCHEMA, Answer, ask
from stages.entities import Entities, EntitiesSettings
from stages.networks.chat import ChatModel
from stages.networks.placement import Placement

CAPTIONS = ["A red fox runs.", "Un chat noir dort. " * 4, "猫が走る"]
MARKS = ("<|im_start|>", "<|im_end|>", "<tool_call>", "[gMASK]")
ON_CPU = Placement("cpu", "f32", batch=3)

Save = Callable[..., Path]


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """A folder with a tiny Qwen2 of random weights, and a byte-level tokenizer made for it."""
    torch.set_num_threads(1)  # on a shared machine more of them wait for one another

    def write(seed: int, template: str | None = TEMPLATE) -> Path:
        texts = [json.dumps(SCHEMA), *CAPTIONS]
        return save_language(tmp_path_factory.mktemp("model"), texts, seed, template)

    return write


def chat(place: Path, max_tokens: int = MAX_TOKENS) -> ChatModel:
    return ChatModel(Weights(str(place), "entities.model"), ON_CPU, max_tokens, SCHEMA)


def questions(*captions: str) -> list[list[dict[str, str]]]:
    """The conversations in which these captions are asked about."""
    seen: list[list[dict[str, str]]] = []

    def note(conversations):
        seen.extend(conversations)
        return [Failed("", "")] * len(conversations)

    ask(note, captions)
    return seen


@pytest.mark.parametrize("seed", [3, 9])
def test_any_weights_answer_in_the_schema(save: Save, seed: int):
    model = chat(save(seed))
    for reply in model.answers(questions(*CAPTIONS)):
        assert reply.whole
        Answer.model_validate_json(reply.text)


def test_the_longest_answer_ends_in_time():
    many = {"main_entity": "a" * 40, "phrase": "\U0001f1e9" * 80, "reason": "b" * 120}
    rest = {"category": "natural scene", "entity_count": 20, "background_complexity": "moderate"}
    longest = Answer.model_validate({**many, **rest, "other_entities": ["c" * 40] * 6})
    spaced = json.dumps(longest.model_dump(), ensure_ascii=False)
    assert len(spaced.encode()) < MAX_TOKENS


def test_an_answer_is_the_same_alone_and_beside_longer_ones(save: Save):
    model = chat(save(13))
    asked = questions(*CAPTIONS)
    together = model.answers(asked)
    assert together == [model.answers([one])[0] for one in asked]
    assert len({reply.text for reply in together}) > 1


@pytest.mark.parametrize(
    "mark", [*MARKS, "<|im_<|im_end|>end|>", "<tool_call>" * 9, "[gMASK<tool_call>"]
)
def test_what_is_said_cannot_hold_a_mark_of_the_tokenizer(save: Save, mark: str):
    def ids(said: str) -> list[int]:
        """What the network is given of a question."""
        seen: list[torch.Tensor] = []

        def note(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if isinstance(module, torch.nn.Embedding):
                seen.append(given[0])

        hook = register_module_forward_pre_hook(note)
        model.answers([[{"role": "user", "content": said}]])
        hook.remove()
        return seen[0][0].tolist()

    place = save(0)
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.add_tokens(list(MARKS))
    tokenizer.save_pretrained(place)
    assert set(tokenizer(mark)["input_ids"]) & set(tokenizer.added_tokens_decoder)
    model = chat(place, 5)
    quiet, loud = (
        [n for n in ids(said) if n in tokenizer.added_tokens_decoder] for said in ("", mark)
    )
    assert loud == quiet


def test_an_answer_that_is_cut_says_so(save: Save):
    (reply,) = chat(save(0), 5).answers(questions("A fox."))
    assert not reply.whole
    assert reply.text


def test_a_model_without_a_chat_template_is_refused(save: Save):
    with pytest.raises(InputError, match="chat template"):
        chat(save(0, None))


def test_the_stage_loads_a_folder_and_every_clip_has_an_outcome(save: Save):
    stage = Entities(EntitiesSettings("reference", str(save(13)), placement=ON_CPU))
    assert [weights.setting for weights in stage.weights()] == ["entities.model"]
    stage.setup()
    clips = [Clip(str(n), "a.mp4", "a.mp4", caption, "") for n, caption in enumerate(CAPTIONS)]
    outcomes = stage.measure(clips, [None] * len(clips), [{}] * len(clips))
    assert len(outcomes) == len(clips)
    for outcome in outcomes:
        if isinstance(outcome, Measurement):
            assert set(outcome.values) == set(Entities.columns.names)
        else:
            assert isinstance(outcome, Failed)
            assert outcome.code in ("bad_answer", "no_caption")


def test_a_model_that_lacks_weights_is_refused(save: Save):
    file = save(0) / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if "q_proj" not in name}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"entities\.model: .* lacks 4 .*q_proj"):
        chat(file.parent)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json", "*"])
def test_a_folder_that_is_not_whole_is_refused(save: Save, lost: str):
    place = save(0)
    for file in place.glob(lost):
        file.unlink()
    with pytest.raises(InputError, match=r"entities\.model"):
        chat(place)


def test_weights_that_are_not_here_are_named():
    with pytest.raises(InputError, match=r"entities\.model"):
        Entities(EntitiesSettings("reference", "/no/such/model")).setup()
