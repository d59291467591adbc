"""Questions to a server over HTTP: what goes out, and what becomes of all that comes back."""

from __future__ import annotations

import threading
import time

import pytest
from chat_server import MODEL, ChatServer, Status, said, serving, slowly

from pipeline.clip import Failed
from pipeline.errors import InputError
from stages.networks.server import Reply, Server, ServerSettings


def client(server: ChatServer, timeout_s: float = 20.0, concurrency: int = 4, **more) -> Server:
    settings = ServerSettings(server.url, concurrency, timeout_s)
    return Server(settings, MODEL, "entities", max_tokens=50, **more)


def question(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def outcomes(server: Server, *texts: str) -> list[str]:
    """The text of every reply, or the code of every failure."""
    replies = server.answers([question(text) for text in texts])
    return [reply.text if isinstance(reply, Reply) else reply.code for reply in replies]


def test_questions_are_greedy_and_bound_to_the_schema():
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    with serving(lambda body: "{}") as server:
        assert outcomes(client(server, schema=schema), "?") == ["{}"]
    (body,) = server.asked
    assert (body["model"], body["temperature"], body["repetition_penalty"]) == (MODEL, 0.0, 1.0)
    assert body["max_tokens"] == 50
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == schema


def test_replies_keep_their_order_and_no_more_are_under_way_than_allowed():
    texts = [str(n) for n in range(12)]

    def reply(body):
        return slowly(0.02 * (int(said(body)) % 3), said(body))

    with serving(reply) as server:
        assert outcomes(client(server, concurrency=3), *texts) == texts
    assert 2 <= server.most <= 3


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again(code: int):
    answers = iter([Status(code), Status(code), "yes"])
    with serving(lambda body: next(answers)) as server:
        assert outcomes(client(server), "?") == ["yes"]
    assert len(server.asked) == 3


def test_one_question_that_breaks_a_server_is_that_clip_alone():
    def reply(body):
        broken = {"b": Status(500), "c": Status(400, '{"error": "too\\nlong"}')}
        return broken.get(said(body), "fine")

    with serving(reply) as server:
        found = client(server).answers([question(text) for text in "abca"])
    assert [r.text if isinstance(r, Reply) else r.code for r in found] == [
        "fine",
        "server_error",
        "refused",
        "fine",
    ]
    assert isinstance(found[2], Failed)
    assert "400" in found[2].message
    assert "\n" not in found[2].message


@pytest.mark.parametrize("code", [409, 413, 422])
def test_a_question_that_cannot_be_taken_is_refused_alone(code: int):
    with serving(lambda body: Status(code) if said(body) == "b" else "fine") as server:
        assert outcomes(client(server), "a", "b") == ["fine", "refused"]


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_status_that_every_question_would_get_stops_the_run(code: int):
    with serving(lambda body: Status(code)) as server, pytest.raises(InputError, match=str(code)):
        client(server).answers([question("?")])


def test_a_clip_that_takes_too_long_has_failed_and_the_others_have_not():
    release = threading.Event()

    def reply(body):
        if said(body) == "slow":
            release.wait(5)
        return said(body)

    with serving(reply) as server:
        found = outcomes(client(server, timeout_s=0.5), "a", "slow", "b")
        release.set()
    assert found == ["a", "timeout", "b"]


def test_a_server_that_is_gone_stops_the_run_instead_of_failing_its_clips():
    with serving(lambda body: "yes") as server:
        asked = client(server, timeout_s=0.5)
        asked.check()
    with pytest.raises(InputError, match=r"entities.server.base_url: nothing answers at http"):
        asked.answers([question("?")])


def test_a_server_that_stays_too_busy_stops_the_run():
    with (
        serving(lambda body: Status(429)) as server,
        pytest.raises(InputError, match="concurrency"),
    ):
        client(server).answers([question("?")])


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        (Status(404), "ends in /v1"),
        (Status(401), "OPENAI_API_KEY"),
        (Status(200, "<html>hello</html>"), "does not speak OpenAI's protocol"),
        (Status(200, "{broken"), "does not speak OpenAI's protocol"),
        (Status(200, '{"data": [{"id": "other-model"}]}'), "other-model"),
        (Status(200, '{"data": [{"id": null}]}'), "has no model"),
    ],
)
def test_a_server_that_will_not_do_is_found_out_ahead(listed: Status, wanted: str):
    with (
        serving(lambda body: "", listed=listed) as server,
        pytest.raises(InputError, match=wanted) as error,
    ):
        client(server).check()
    assert "entities.server.base_url" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_cannot_answer_in_a_schema_is_found_out_ahead():
    refusal = Status(400, '{"error": "response_format is not supported"}')
    with (
        serving(lambda body: "", trial=refusal) as server,
        pytest.raises(InputError, match=r"400; .*response_format is not supported"),
    ):
        client(server).check()
    assert server.asked == []


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host/v1"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(InputError, match="wanted the address"):
        Server(ServerSettings(url), MODEL, "entities", 50).check()


@pytest.mark.parametrize(
    "body",
    [
        *("<html>hello</html>", "{}", "{broken", "null", "[1]", "3", '"yes"', "[" * 100_000),
        *('{"choices": []}', '{"choices": "yes"}', '{"choices": {"0": 1}}', '{"choices": 3}'),
        *('{"choices": [null]}', '{"choices": [{"message": null}]}'),
        *('{"choices": [{"message": "yes"}]}', '{"choices": [{"message": {"content": null}}]}'),
        '{"choices": [{"message": {"content": [{"type": "text", "text": "yes"}]}}]}',
    ],
)
def test_a_reply_that_is_none_is_empty(body: str):
    with serving(lambda _: Status(200, body)) as server:
        assert outcomes(client(server), "?") == [""]


def test_half_a_letter_in_a_reply_becomes_a_question_mark():
    with serving(lambda body: "a \ud800 fox") as server:
        assert outcomes(client(server), "?") == ["a ? fox"]


def test_a_reply_that_was_cut_says_so():
    with serving(lambda body: "The video sho", finish="length") as server:
        assert client(server).answers([question("?")]) == [Reply("The video sho", whole=False)]


def test_the_key_comes_from_the_environment_and_is_never_repeated(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    echo = Status(400, '{"error": {"message": "Bearer sk-secret may not"}}')
    with serving(lambda body: echo) as server:
        (reply,) = client(server).answers([question("?")])
    assert server.keys == {"Bearer sk-secret"}
    assert isinstance(reply, Failed)
    assert "may not" in reply.message
    assert "sk-secret" not in reply.message


def test_without_a_key_the_words_of_a_server_stay_as_they_are(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda body: Status(400, "none of them")) as server:
        (reply,) = client(server).answers([question("?")])
    assert isinstance(reply, Failed)
    assert reply.message == "400: none of them"


@pytest.mark.parametrize(
    "rest", ["me:sk-secret@host/v1", "host/v1?key=sk-secret", "host/v1#sk-secret"]
)
def test_a_key_in_the_address_is_refused_and_not_repeated(rest: str):
    with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
        ServerSettings(f"http://{rest}")
    assert "sk-secret" not in str(error.value)


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://host:port/v1"])
def test_an_address_that_cannot_be_read_is_refused(url: str):
    with pytest.raises(InputError, match=r"server\.base_url"):
        ServerSettings(url)


def test_a_silent_server_does_not_hold_up_the_check():
    started = time.monotonic()
    with pytest.raises(InputError, match="nothing answers"):
        Server(ServerSettings("http://127.0.0.1:1/v1"), MODEL, "entities", 50).check()
    assert time.monotonic() - started < 5
