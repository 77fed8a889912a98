"""A request's body from a raw ASGI server, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litestar.types import Receive, Send

from engine.app.responses import HEADERS, Refused, Response
from engine.formats.segment import BODY_BYTES_MAX


async def body_of(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """The whole body; refuses one that is too large before it is all here. One that takes too long
    is cut off by the server."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise too_large()
    message: Any = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body"):
        return body
    chunks, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > BODY_BYTES_MAX:
            raise too_large()
    if message["type"] != "http.request":
        raise Refused(400, "the body did not arrive whole")
    return b"".join(chunks)


def too_large() -> Refused:
    return Refused(413, f"the body may have {BODY_BYTES_MAX} bytes")


async def respond(send: Send, response: Response) -> None:
    headers = [
        *HEADERS,
        (b"content-length", str(len(response.body)).encode()),
        *response.extra,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": False})
