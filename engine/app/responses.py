"""What ingest answers with, whichever way it goes out."""

from __future__ import annotations

import msgspec

HEADERS = (
    (b"content-type", b"application/json"),
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"retry-after"),
)
"""Of every answer: any page that has the write key may send."""

CODES = {
    400: "unreadable",
    401: "unknown_key",
    413: "too_large",
    500: "undecided",
    503: "unavailable",
}

_encode = msgspec.json.Encoder().encode


class Response(msgspec.Struct, frozen=True, gc=False):
    """What goes back: a status, a JSON body, and headers beside those that every answer has."""

    status: int
    body: bytes
    extra: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """The whole request is refused, with an HTTP status and its code."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    @property
    def response(self) -> Response:
        extra: tuple[tuple[bytes, bytes], ...] = ()
        if self.retry_after is not None:
            extra = ((b"retry-after", str(self.retry_after).encode()),)
        elif self.status == 413:
            extra = ((b"connection", b"close"),)  # what is left of the body is not waited for
        # SDKs look for a `code`: without one they take even a 401 for a passing fault.
        fault = {"success": False, "code": CODES[self.status], "message": self.message}
        return Response(self.status, _encode(fault), extra)
