"""An HTTP proxy between a client and a store that loses, delays and cuts what passes through it."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW, RESET_BEFORE, RESET_AFTER, CUT = "slow", "reset before", "reset after", "cut"
"""What may happen: a pause before a request is passed on; the connection is reset, before the store
was asked or after it did the work; half a body. And the store's own words: """
ERROR, BUSY = "InternalError", "SlowDown"
DENIED, UNKNOWN_KEY, UNSUPPORTED = "AccessDenied", "InvalidAccessKeyId", "NotImplemented"

_STATUS = {ERROR: 500, BUSY: 503, DENIED: 403, UNKNOWN_KEY: 403, UNSUPPORTED: 501}
_BODY = "<Error><Code>{}</Code><Message>injected</Message></Error>"


@dataclass
class Faults:
    """shares: of the requests that a fault befalls, by fault. of: methods; other ones are spared.

    planned: faults for the next requests of these methods, before chance has its turn; suffix: of
    the only paths that are meant. slow_s: the pause of a slow one. seen: requests by method;
    happened: faults by kind.
    """

    seed: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    of: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    planned: list[str] = field(default_factory=list)
    suffix: str = ""
    slow_s: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()

    def next(self, method: str, path: str) -> str | None:
        """What befalls this request."""
        with self._lock:
            self.seen[method] += 1
            if method not in self.of or not path.partition("?")[0].endswith(self.suffix):
                return None
            fault = self.planned.pop(0) if self.planned else self._drawn()
            if fault:
                self.happened[fault] += 1
            return fault

    def _drawn(self) -> str | None:
        drawn = self._chance.random()
        for fault, share in self.shares.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None


class Proxy(ThreadingHTTPServer):
    """Passes on what `faults` lets through; they may be exchanged while it runs."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults = Faults()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in the middle is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Proxy)
        faults = self.server.faults
        fault = faults.next(self.command, self.path)
        if fault == SLOW:
            time.sleep(faults.slow_s)
        if fault == RESET_BEFORE:
            return self._reset()
        if fault in _STATUS:
            return self._answer(_STATUS[fault], [], _BODY.format(fault).encode())
        status, headers, answer = self._ask(body)
        if fault == RESET_AFTER:
            return self._reset()
        return self._answer(status, headers, answer, cut=fault == CUT)

    def __getattr__(self, name: str) -> Any:
        """do_GET, do_HEAD and so on are all the same."""
        if name.startswith("do_"):
            return self._pass_on
        raise AttributeError(name)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        assert isinstance(self.server, Proxy)
        asked = http.client.HTTPConnection(*self.server.upstream, timeout=60)
        try:
            asked.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    asked.putheader(name, value)
            asked.endheaders(body)
            answer = asked.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            asked.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        length = lengths[0] if self.command == "HEAD" and lengths else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut

    def _reset(self) -> None:
        """RST instead of an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def proxy(upstream: tuple[str, int]) -> Iterator[Proxy]:
    """One that runs while the block does."""
    server = Proxy(upstream)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
