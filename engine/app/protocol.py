"""The HTTP connection: uvicorn's, with a short way for events.

A phone's event needs no ASGI cycle: ingest has it as soon as its body is here, and the tick that made it
durable writes the answer. Everything else goes uvicorn's way: other paths, other methods, requests
that ask before they send, and what follows them in a pipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.app.answers import TAKEN
from engine.app.ingest import PATHS, Ingest
from engine.app.responses import HEADERS, Refused, Response
from engine.formats.segment import BODY_BYTES_MAX

REQUEST_SECONDS = 20.0
"""How long a client may take to send a request."""
IDLE_SECONDS = 65
"""How long a connection may stay open between two of them."""
PIPELINED = 16
"""Requests of one connection that wait for their turn, until no more is read."""

_CALLS = {path.encode(): path.rsplit("/", 1)[1] for path in PATHS}
_HEAD = b"".join(b"%s: %s\r\n" % header for header in HEADERS)
_STATUS = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


def _written(response: Response, ends: bool) -> bytes:
    """An answer as it goes over the wire; `ends`: the connection with it."""
    extra = b"".join([b"%s: %s\r\n" % header for header in response.extra])
    if ends and not response.extra:
        extra = b"connection: close\r\n"
    length = b"content-length: %d\r\n\r\n" % len(response.body)
    return b"".join((_STATUS[response.status], _HEAD, extra, length, response.body))


_TAKEN = _written(TAKEN, False)


class _Posted(msgspec.Struct, gc=False):
    """A request for ingest, on its way in. `is_last`: the connection ends with its answer."""

    call: str
    headers: dict[bytes, bytes]
    chunks: list[bytes]
    is_last: bool
    size: int = 0
    refused: Refused | None = None

    def __repr__(self) -> str:
        return f"_Posted({self.call!r}, {self.size} bytes)"


class Protocol(HttpToolsProtocol):
    """One connection. `owing_since` is when it began to owe us the rest of a request, `idle_since` when
    it was last answered, where it owes none (monotonic). Whoever sweeps them ends those that take too
    long: a timer of its own for each answer took 3 µs."""

    ingest_of: Callable[[], Ingest]
    owing_since: float | None = None
    idle_since: float | None = None
    _reading: _Posted | None = None
    _answering: bool | None = None
    """While an answer is owed, whether the connection ends with it."""
    _is_ending = False

    # reading

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting: deque[_Posted] = deque()
        self.owing_since = time.monotonic()

    def on_message_begin(self) -> None:
        # What an ASGI cycle needs beside these is made when there is one.
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._reading = None
        self.owing_since = time.monotonic()
        self.idle_since = None

    def on_headers_complete(self) -> None:
        call = _CALLS.get(self.url)
        is_ours = call is not None and self.parser.get_method() == b"POST" and not self.expect_100_continue
        if is_ours and call is not None and (self.cycle is None or self.cycle.response_complete):
            is_last = not self.parser.should_keep_alive()
            self._reading = _Posted(call, dict(self.headers), [], is_last)
        elif self._answering is not None:
            # Another kind of request behind an event in a pipeline: it has to come again.
            self._is_ending = True
            self.flow.pause_reading()
        else:
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers.extend(headers)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        posted = self._reading
        if posted is None:
            if not self._is_ending:
                super().on_body(body)
            return
        posted.size += len(body)
        if posted.size <= BODY_BYTES_MAX:
            posted.chunks.append(body)
        elif posted.refused is None:
            posted.chunks.clear()
            posted.refused = Refused(413, f"the body may have {BODY_BYTES_MAX} bytes")
            posted.is_last = True
            self._take(posted)

    def on_message_complete(self) -> None:
        self.owing_since = None
        posted, self._reading = self._reading, None
        if posted is None:
            if not self._is_ending:
                super().on_message_complete()
        elif posted.refused is None:
            self._take(posted)

    def takes_too_long(self, now: float) -> bool:
        """Whether the client is to be let go of at `now` (monotonic)."""
        if self.owing_since is not None:
            return self.owing_since < now - REQUEST_SECONDS
        if self._answering is not None or self.idle_since is None:
            return False
        return self.idle_since < now - IDLE_SECONDS

    # answering

    def _take(self, posted: _Posted) -> None:
        if self._answering is not None:
            self._waiting.append(posted)
            if len(self._waiting) >= PIPELINED:
                self.flow.pause_reading()
            return
        self._answering = posted.is_last
        if posted.refused is not None:
            self._answer(posted.refused.response)
            return
        body = posted.chunks[0] if len(posted.chunks) == 1 else b"".join(posted.chunks)
        self.ingest_of().begin(posted.call, posted.headers, body, self._answer)

    def _answer(self, response: Response) -> None:
        """Writes an answer; called by whoever has it, perhaps when the client is gone."""
        is_last, self._answering = self._answering, None
        if is_last is None or self.transport.is_closing():
            return
        ends = is_last or self._is_ending
        self.transport.write(_TAKEN if response is TAKEN and not ends else _written(response, ends))
        if ends:
            self.transport.close()
        elif self._waiting:
            self.flow.resume_reading()
            self._take(self._waiting.popleft())
        else:
            self.idle_since = time.monotonic()

    def shutdown(self) -> None:
        """Ends after what is under way."""
        if self._answering is not None or self._reading is not None:
            self._is_ending = True
        else:
            super().shutdown()


def protocol_of(ingest_of: Callable[[], Ingest]) -> type[Protocol]:
    """The connections of one engine; `ingest_of` is asked once there is something to take."""
    return type("EngineProtocol", (Protocol,), {"ingest_of": staticmethod(ingest_of)})
