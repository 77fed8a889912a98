"""A receiver of webhooks for tests: a real socket, answers as told, and signatures verified by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """One request; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Answer(NamedTuple):
    status: int = 204
    headers: str = ""
    body: bytes = b""
    delay_seconds: float = 0.0


Answers = Callable[[Heard], Answer]


def is_signed_by(heard: Heard, secret: str) -> bool:
    """By the specification's words, with nothing of the engine's: one of the signatures is that of
    `id.timestamp.body` under the secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{heard.id}.{heard.headers['webhook-timestamp']}.".encode() + heard.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = heard.headers["webhook-signature"].split(" ")
    return any(hmac.compare_digest(one, f"v1,{expected}") for one in given)


class Receiver:
    """What was heard, and how it is answered."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        """Everything, also what was refused."""
        self.taken: list[Heard] = []
        """What was answered with success."""
        self.answers: Answers = lambda _: Answer()
        self.port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?for=test"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *fields = head.rstrip("\r\n").split("\r\n")
                headers = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                heard = Heard(line.split(" ")[1], headers, body)
                self.heard.append(heard)
                answer = self.answers(heard)
                if answer.delay_seconds:
                    await asyncio.sleep(answer.delay_seconds)
                if 200 <= answer.status < 300:
                    self.taken.append(heard)
                writer.write(
                    f"HTTP/1.1 {answer.status} Said\r\n{answer.headers}"
                    f"content-length: {len(answer.body)}\r\n\r\n".encode()
                    + answer.body
                )
                await writer.drain()
        writer.close()

    async def until(self, there: Callable[[], bool], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not there():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    one = Receiver()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, limit=2**20)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()


@contextmanager
def receiving_apart() -> Iterator[Receiver]:
    """With a loop of its own, for tests that run none."""
    started: list[Receiver] = []
    loop, ready = asyncio.new_event_loop(), threading.Event()
    ended = asyncio.Event()

    async def run() -> None:
        async with receiving() as one:
            started.append(one)
            ready.set()
            await ended.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="receiver")
    thread.start()
    ready.wait(10)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()
