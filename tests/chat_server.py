"""A small server that speaks OpenAI's protocol over HTTP; what it answers is the test's."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "small-instruct"

Body = dict[str, Any]


@dataclass(frozen=True)
class Status:
    """An answer that is none: an HTTP status, its text, and headers."""

    code: int
    text: str = "{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})


@dataclass
class ChatServer:
    """reply: to a question's body; listed, trial: to the first look of a client, if it shall fail.

    asked: the bodies of the other questions; keys: the Authorization headers; most: questions that
    were under way at once.
    """

    reply: Callable[[Body], str | Status]
    url: str = ""
    listed: Status | None = None
    trial: Status | None = None
    finish: str = "stop"
    asked: list[Body] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def texts(self) -> list[str]:
        """What the last message of every question says."""
        return [said(body) for body in self.asked]


def said(body: Body) -> str:
    """The last message of a question."""
    return body["messages"][-1]["content"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may hang up; anything else is a mistake of the test."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(reply: Callable[[Body], str | Status], **more: Any) -> Iterator[ChatServer]:
    """A server on a port of its own, in threads of this process."""
    state = ChatServer(reply, **more)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the protocol's name
            state.keys.add(self.headers.get("Authorization", ""))
            listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            self._send(state.listed or Status(200, json.dumps(listed)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.keys.add(self.headers.get("Authorization", ""))
            if body["max_tokens"] == 1:
                self._send(state.trial or _completion("{", "length"))
                return
            with state.lock:
                state.asked.append(body)
                state.under_way += 1
                state.most = max(state.most, state.under_way)
            answer = state.reply(body)
            with state.lock:
                state.under_way -= 1
            self._send(answer if isinstance(answer, Status) else _completion(answer, state.finish))

        def _send(self, status: Status) -> None:
            content = status.text.encode()
            self.send_response(status.code)
            kind = "application/json" if content[:1] in b"{[" else "text/html"
            headers = {"Content-Type": kind, "Content-Length": len(content), **status.headers}
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def slowly(seconds: float, answer: str) -> str:
    time.sleep(seconds)
    return answer


def _completion(text: str, finish: str) -> Status:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL}
    return Status(200, json.dumps({**body, "choices": [choice]}))
