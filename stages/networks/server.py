"""Questions to a language model behind a server that speaks OpenAI's protocol (vLLM, SGLang)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.clip import Failed
from pipeline.errors import InputError

if TYPE_CHECKING:  # imported where a server is asked: it takes a second
    import openai

Conversation = Sequence[Mapping[str, Any]]
"""Messages with `role` and `content`, as OpenAI's protocol and chat templates have them."""

_RETRIES = 4  # of a refused connection, 429 or 5xx: 0.5, 1, 2 and 4 s apart, or as the server says
_CHECK_S = 10.0
_OF_ONE_QUESTION = (400, 409, 413, 422)  # statuses that say nothing of other questions


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """base_url: such as http://host:8000/v1; a key comes from the environment's OPENAI_API_KEY.

    concurrency: questions of one worker under way at once; timeout_s: of one question with its
    retries (a clip may take two, within `engine.limits.measure_s`); repetition_penalty: 1 is none,
    said because vLLM takes the model's own otherwise (Qwen's 1.05 bends JSON); 0: not sent.
    """

    base_url: str = ""
    concurrency: int = 16  # ours: keeps a server busy between two batches of a worker
    timeout_s: float = 45.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            _ = parts.port  # looked at when it is asked for
        except ValueError as error:
            raise InputError(
                f"server.base_url: {error}; wanted an address such as http://host:8000/v1"
            ) from None
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(
                "server.base_url: found a name, a password or a query in the address; wanted it "
                "without, and the key in the environment variable OPENAI_API_KEY"
            )
        if self.concurrency < 1 or self.timeout_s <= 0:
            raise InputError(
                f"server: found concurrency {self.concurrency} and timeout_s {self.timeout_s:g}; "
                "wanted at least 1, and more than 0"
            )


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said. whole: False when it was cut at the most tokens that it may use."""

    text: str
    whole: bool

    def __post_init__(self) -> None:
        """JSON may hold one half of a pair of surrogates, and no table can."""
        object.__setattr__(self, "text", self.text.encode("utf-8", "replace").decode())


class Server:
    """One model of a server, asked greedily. It holds settings only, so it can be pickled."""

    def __init__(
        self,
        settings: ServerSettings,
        model: str,
        table: str,
        max_tokens: int,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """table: of the run file that names it; schema: of the JSON that it has to answer in."""
        self._settings = settings
        self._model = model
        self._where = f"{table}.server.base_url"
        self._max_tokens = max_tokens
        self._schema = schema

    def check(self) -> None:
        """InputError unless the server is there, has the model and takes such a question."""
        asyncio.run(self._check())

    def answers(self, conversations: Sequence[Conversation]) -> list[Reply | Failed]:
        """One reply per conversation, in order; they know nothing of one another.

        Codes of failure: timeout, refused (the server will not have this question), server_error
        (it breaks on it). InputError when the server itself is gone, or refuses every question.
        """
        return asyncio.run(self._answers(conversations))

    async def _check(self) -> None:
        import openai

        if not self._settings.base_url.startswith(("http://", "https://")):
            raise InputError(
                f"{self._where}: found '{self._settings.base_url}', wanted the address of an "
                "OpenAI-compatible server, such as http://host:8000/v1"
            )
        async with self._client(retries=0) as client:
            await self._look(client)
            try:
                await self._ask(client, [{"role": "user", "content": "Say yes."}], max_tokens=1)
            except openai.APIStatusError as error:
                raise self._refusal(error) from None
            except openai.OpenAIError:
                return  # a model that is slow to wake is there all the same

    async def _look(self, client: openai.AsyncOpenAI) -> None:
        """InputError unless the server lists the model."""
        import openai

        url, patient = self._settings.base_url, client.with_options(timeout=_CHECK_S, max_retries=1)
        try:
            names = [str(model.id) async for model in patient.models.list()]
        except openai.APIConnectionError:
            raise InputError(
                f"{self._where}: nothing answers at {url}; start the server there, or name another"
            ) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except (openai.OpenAIError, AttributeError, TypeError, ValueError):
            raise InputError(
                f"{self._where}: what answers at {url} does not speak OpenAI's protocol; wanted an "
                "address that ends in /v1"
            ) from None
        if self._model not in names:
            raise InputError(
                f"{self._where}: {url} has no model '{self._model}'; it has: {', '.join(names)}"
            )

    async def _answers(self, conversations: Sequence[Conversation]) -> list[Reply | Failed]:
        room = asyncio.Semaphore(self._settings.concurrency)
        async with self._client(_RETRIES) as client:
            return await asyncio.gather(*(self._answer(client, room, c) for c in conversations))

    async def _answer(
        self, client: openai.AsyncOpenAI, room: asyncio.Semaphore, conversation: Conversation
    ) -> Reply | Failed:
        """A question without an answer is the clip's fault only if the server is well."""
        import openai

        async with room:
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    return await self._ask(client, conversation, self._max_tokens)
            except (TimeoutError, openai.APITimeoutError):
                failed = Failed("timeout", f"no answer within {self._settings.timeout_s:g} s")
            except openai.APIConnectionError:
                failed = Failed("server_error", "the server closed the connection")
            except openai.InternalServerError as error:
                failed = Failed("server_error", f"{error.status_code}: {_said(error)}")
            except openai.APIStatusError as error:
                if error.status_code not in _OF_ONE_QUESTION:
                    raise self._refusal(error) from None
                return Failed("refused", f"{error.status_code}: {_said(error)}")
            except openai.OpenAIError as error:
                failed = Failed("server_error", f"no answer: {type(error).__name__}")
            await self._look(client)
            return failed

    async def _ask(
        self, client: openai.AsyncOpenAI, conversation: Conversation, max_tokens: int
    ) -> Reply:
        more: dict[str, Any] = {}
        if self._schema is not None:
            shape = {"name": "answer", "strict": True, "schema": self._schema}
            more["response_format"] = {"type": "json_schema", "json_schema": shape}
        if self._settings.repetition_penalty:
            more["extra_body"] = {"repetition_penalty": self._settings.repetition_penalty}
        messages: Any = [dict(message) for message in conversation]
        try:
            completion = await client.chat.completions.create(
                model=self._model,
                messages=messages,
                temperature=0.0,
                max_tokens=max_tokens,
                **more,
            )
        except (ValueError, RecursionError):  # not JSON
            completion = None
        return _taken(completion)

    def _client(self, retries: int) -> openai.AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            base_url=self._settings.base_url,
            api_key=_key() or "none",  # servers without keys take any
            max_retries=retries,
            timeout=self._settings.timeout_s,
        )

    def _refusal(self, error: openai.APIStatusError) -> InputError:
        """In one line what to do about a status that every question would get."""
        advice = {
            401: "wanted another key in the environment variable OPENAI_API_KEY",
            403: "wanted another key in the environment variable OPENAI_API_KEY",
            404: "wanted an address that ends in /v1",
            429: "it is too busy; lower server.concurrency, or have fewer workers",
        }
        said = advice.get(error.status_code, _said(error))
        url = self._settings.base_url
        return InputError(f"{self._where}: {url} answers with {error.status_code}; {said}")


def _taken(completion: Any) -> Reply:
    """What a completion says; one of another form says nothing."""
    try:
        choice = completion.choices[0]
        text, end = choice.message.content, choice.finish_reason
    except (AttributeError, LookupError, TypeError):
        return Reply("", whole=False)
    return Reply(text if isinstance(text, str) else "", end != "length")


def _key() -> str:
    return os.environ.get("OPENAI_API_KEY", "")


def _said(error: openai.APIStatusError) -> str:
    """The server's words in one short line; a server may repeat the key, which nobody may see."""
    text, key = error.response.text, _key()
    return " ".join((text.replace(key, "***") if key else text).split())[:200]
