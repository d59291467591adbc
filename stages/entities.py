"""What a caption says the clip is about: one main entity, of which kind, before what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from pipeline.clip import Clip, Facts, Failed, Outcome, caption_of
from pipeline.filters import Filter
from pipeline.frames import Frames
from pipeline.stage import Resources, Stage
from pipeline.weights import Weights
from stages.answer import MAX_TOKENS, PROMPT_VERSION, SCHEMA, ask
from stages.networks.placement import Placement, one_thread
from stages.networks.server import Conversation, Reply, Server, ServerSettings
from stages.reading import read


@dataclass(frozen=True, slots=True)
class EntitiesSettings:
    """backend: "cpu" is a grammar of English captions with word lists; "reference" a language model
    of transformers; "server" one behind a server that speaks OpenAI's protocol.

    model: of the hub, or a folder; or what the server calls it.
    """

    backend: Literal["cpu", "reference", "server"] = "cpu"
    model: str = "Qwen/Qwen2.5-7B-Instruct"
    revision: str = ""
    placement: Placement = Placement(dtype="bf16")  # as its weights are
    server: ServerSettings = ServerSettings()


class Entities(Stage):
    """The main entity of the caption.

    main_entity: "toy frog", lower case; phrase: its words with their adjectives, an exact substring
    of the caption; category: human, animal, vehicle, building, natural scene, object or other (a
    part of a body, a place, an abstraction, somebody who is not seen whole); other_entities;
    entity_count: of main entities, 0 when none was found; background_complexity: simple, moderate
    or complex; reason: one line; raw: what a language model said, null without one.
    """

    name = "entities"
    version = 2
    columns: ClassVar[pa.Schema] = pa.schema(
        {
            "main_entity": pa.string(),
            "phrase": pa.string(),
            "category": pa.string(),
            "other_entities": pa.list_(pa.string()),
            "entity_count": pa.int32(),
            "background_complexity": pa.string(),
            "reason": pa.string(),
            "raw": pa.string(),
        }
    )
    filters: ClassVar[Mapping[str, Filter]] = {
        "entity_count": Filter(min=1, max=1),  # the paper: one main entity
        "category": Filter(one_of=("human", "animal", "vehicle", "building", "object")),
        "background_complexity": Filter(one_of=("simple", "moderate")),
    }

    def __init__(self, settings: EntitiesSettings | None = None, captioned: bool = False) -> None:
        """captioned: whether the `caption` stage stands before it in this run."""
        self._settings = settings or EntitiesSettings()
        self.needs = ("caption",) if captioned else ()
        batches = {
            "cpu": 32,
            "reference": self._settings.placement.batch,
            "server": 4 * self._settings.server.concurrency,  # so that few wait for the slowest
        }
        self.resources = Resources(cpus=1, batch=batches[self._settings.backend])
        self._answers: Callable[[Sequence[Conversation]], Sequence[Reply | Failed]] | None = None

    def settings(self) -> Mapping[str, Any]:
        """What the backend's numbers depend on: a server's address is not of it, its model is."""
        used = self._settings
        if used.backend == "cpu":
            return {"backend": "cpu"}
        named = {"backend": used.backend, "model": used.model, "prompt": PROMPT_VERSION}
        if used.backend == "server":
            return {**named, "repetition_penalty": used.server.repetition_penalty}
        return {**named, "revision": used.revision, "dtype": used.placement.dtype}

    def weights(self) -> Sequence[Weights]:
        """The language model and its tokenizer."""
        if self._settings.backend != "reference":
            return ()
        return (Weights(self._settings.model, "entities.model", self._settings.revision),)

    def check(self) -> None:
        """The server."""
        if self._settings.backend == "server":
            self._server().check()

    def setup(self) -> None:
        """Loads the model; looks for the server again, for a worker may run on another machine."""
        if self._settings.backend == "server":
            self.check()
            self._answers = self._server().answers
        elif self._settings.backend == "reference":
            from stages.networks.chat import ChatModel

            one_thread()
            (weights,) = self.weights()
            self._answers = ChatModel(weights, self._settings.placement, MAX_TOKENS, SCHEMA).answers

    def measure(
        self, clips: Sequence[Clip], frames: Sequence[Frames | None], facts: Sequence[Facts]
    ) -> Sequence[Outcome]:
        """Codes of failure: no_caption; of a language model also bad_answer; of a server timeout,
        refused and server_error.
        """
        captions = [caption_of(*one) for one in zip(clips, facts, strict=True)]
        if self._settings.backend == "cpu":
            return [read(caption) for caption in captions]
        assert self._answers is not None, "setup comes before measure"
        return ask(self._answers, captions)

    def _server(self) -> Server:
        return Server(self._settings.server, self._settings.model, "entities", MAX_TOKENS, SCHEMA)
