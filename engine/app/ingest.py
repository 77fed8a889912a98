"""Ingest: bytes of a request to events in the lane, and the answer once they are durable.

Raw ASGI, because this is the path that every phone takes: a decorated route costs two and a half
times as much.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from engine.adapters.postgres.store import Store, StoreError
from engine.app import metrics
from engine.app.clock import Clock
from engine.app.replies import Interrupted, Overloaded, Pending, Reply
from engine.app.tick import Lane, Ruling
from engine.domain.offers.decisions import full_form, public_form
from engine.domain.offers.rules import Namespace
from engine.domain.people import identity
from engine.domain.people.events import Event, Location
from engine.domain.people.profiles import IdentityKey
from engine.formats.segment import (
    BODY_BYTES_MAX,
    Answer,
    Received,
    Rejection,
    Unreadable,
    decode_body,
    read,
    write_key_in,
)

CALLS = ("track", "identify", "screen", "page", "group", "alias", "merge", "batch", "import", "b")
PATHS = (*(f"/v1/{call}" for call in CALLS), "/b")
RETENTION = timedelta(days=396)
REJECTED_KEPT_PER_KEY_AND_DAY = 1000
HELD_BYTES = 64 * 1024 * 1024
"""Of bodies whose events are not answered yet."""

log = structlog.get_logger()

_ACCEPTED = metrics.EVENTS.labels("accepted")
_DUPLICATE = metrics.EVENTS.labels("duplicate")
_REJECTED = metrics.EVENTS.labels("rejected")
_MISSING_IDENTITY = "none of the event's ids is of a namespace of this workspace"
_METHODS = (
    (b"allow", b"POST, OPTIONS"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding"),
    (b"access-control-max-age", b"86400"),
)
_encode = msgspec.json.Encoder().encode

CODES = {
    400: "unreadable",
    401: "unknown_key",
    413: "too_large",
    500: "undecided",
    503: "unavailable",
}


Named = tuple[Event, tuple[IdentityKey, ...]]
"""An event, and the ids that it is about, strongest first."""


class Refused(Exception):
    """The whole request is refused, with an HTTP status and its code."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    @property
    def body(self) -> bytes:
        # SDKs look for a `code`: without one they take even a 401 for a passing fault.
        return _encode({"success": False, "code": CODES[self.status], "message": self.message})


class Keys(msgspec.Struct, frozen=True):
    """Who may send: write keys stand in apps, server keys on the business's servers."""

    write: frozenset[str]
    server: frozenset[str]

    def __repr__(self) -> str:
        return "Keys(…)"

    def knows(self, key: str) -> bool:
        return key in self.write or key in self.server

    def trust(self, key: str | None) -> bool:
        """Whether the key is a server's.

        Raises:
            Refused: 401, nobody knows the key.
        """
        if key in self.server:
            return True
        if key in self.write:
            return False
        raise Refused(401, "unknown write key: send it by Basic auth, Bearer, or writeKey in the body")


class Ingest:
    """The ASGI application behind `PATHS`."""

    def __init__(
        self,
        *,
        lane: Lane,
        ruling: Callable[[], Ruling],
        clock: Clock,
        keys: Keys,
        store: Store,
        before: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._lane = lane
        self._ruling = ruling
        self._clock = clock
        self._keys = keys
        self._store = store
        self._before = before
        self._held_bytes = 0
        self._full: set[tuple[str, date]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            status = 204 if scope["method"] == "OPTIONS" else 405
            await _respond(send, status, b"", _METHODS)
            return
        try:
            headers = dict(scope["headers"])
            body = await _body(receive, headers)
            answer = await self._take(scope["path"].rsplit("/", 1)[1], headers, body)
        except Refused as refusal:
            extra: tuple[tuple[bytes, bytes], ...] = ()
            if refusal.retry_after is not None:
                extra = ((b"retry-after", str(refusal.retry_after).encode()),)
            elif refusal.status == 413:
                extra = ((b"connection", b"close"),)  # what is left of the body is not waited for
            await _respond(send, refusal.status, refusal.body, extra)
            return
        await _respond(send, 200, _encode(answer))

    async def _take(self, call: str, headers: Mapping[bytes, bytes], body: bytes) -> Answer:
        """From a body to its answer: read → queue → wait until it is durable."""
        try:
            encoding = headers.get(b"content-encoding", b"").decode("latin-1") or None
            body = decode_body(body, encoding, BODY_BYTES_MAX)
            key = _key_in(headers) or write_key_in(body)
            trusted = self._keys.trust(key)
            if self._before is not None:
                await self._before(body)
            rules = self._ruling().rules
            received = read(
                body,
                call=call,
                received_at=self._clock(),
                trusted=trusted,
                server_only=rules.workspace.server_only,
                retention=rules.workspace.retention.get("events", RETENTION),
                new_message_id=_new_message_id,
            )
        except Unreadable as fault:
            raise Refused(fault.status, str(fault)) from fault
        named, rejected = _named(received, rules.workspace.namespaces)
        if rejected:
            await self._keep(key or "", rejected)
        reply = await self._decided(named, len(body))
        accepted = reply.accepted if reply is not None else 0
        duplicates = reply.duplicates if reply is not None else 0
        _ACCEPTED.inc(accepted)
        if duplicates:
            _DUPLICATE.inc(duplicates)
        if rejected:
            _REJECTED.inc(len(rejected))
        form = full_form if trusted else public_form
        decisions = reply.decisions if reply is not None else ()
        return Answer(
            accepted=accepted,
            duplicates=duplicates,
            rejected=tuple(rejection for rejection, _ in rejected),
            decisions=[shown for d in decisions if (shown := form(d)) is not None],
        )

    async def _decided(self, named: Sequence[Named], size: int) -> Reply | None:
        """The answer to the events, once they are durable; None where there are none."""
        if self._held_bytes + size > HELD_BYTES:
            raise Refused(503, "the engine is full: nothing was taken, send it again", 1)
        self._held_bytes += size
        try:
            reply = self._queue(named)
            if reply is not None:
                await reply.done
            return reply
        except Interrupted as fault:
            raise Refused(503, "the database is away: nothing is confirmed, send it again", 2) from fault
        except (Refused, asyncio.CancelledError):
            raise
        except Exception as fault:
            raise Refused(500, "this request could not be decided; it was logged") from fault
        finally:
            self._held_bytes -= size

    def _queue(self, named: Sequence[Named]) -> Reply | None:
        """Hands the events to the lane, all or none; None where there are none."""
        if not named:
            return None
        reply = Reply(len(named))
        newest = _newest_fixes(named) if len(named) > 1 else {}
        pending = [
            Pending(
                event=event,
                reply=reply,
                keys=keys,
                position=position,
                newest=_later(event, newest.get(keys[0])) if newest else None,
            )
            for position, (event, keys) in enumerate(named)
        ]
        try:
            self._lane.submit(pending)
        except Overloaded as fault:
            raise Refused(503, "the engine is full: nothing was taken, send it again", 1) from fault
        return reply

    async def _keep(self, key: str, rejected: Sequence[tuple[Rejection, bytes]]) -> None:
        """Keeps what was refused, for whoever wonders where it went."""
        now = self._clock()
        digest = sha256(key.encode()).hexdigest()[:16]
        if (digest, now.date()) in self._full:
            return
        try:
            ((counted,),) = await self._store.fetch(
                "keep_rejected",
                digest,
                now.date(),
                now,
                [r.code for r, _ in rejected],
                [r.message for r, _ in rejected],
                [r.message_id for r, _ in rejected],
                [item for _, item in rejected],
                REJECTED_KEPT_PER_KEY_AND_DAY,
            )
        except StoreError as fault:
            raise Refused(503, "the database is away: nothing is confirmed, send it again", 2) from fault
        if counted >= REJECTED_KEPT_PER_KEY_AND_DAY:
            # No more of that key are kept today: they are not worth a write each.
            self._full = {full for full in self._full if full[1] == now.date()} | {(digest, now.date())}


def _named(
    received: Received, namespaces: Sequence[Namespace]
) -> tuple[list[Named], list[tuple[Rejection, bytes]]]:
    """The events with the ids that they are about, and the rejected ones with their bytes: those
    whose ids this workspace does not know among them."""
    rejected = list(zip(received.rejected, received.rejected_items, strict=True))
    named: list[Named] = []
    for index, event in received.events:
        keys = identity.keys_of(event, namespaces)
        if keys:
            named.append((event, keys))
        else:
            rejection = Rejection(index, event.message_id, "missing_identity", _MISSING_IDENTITY)
            rejected.append((rejection, _encode(event)))
    rejected.sort(key=lambda one: one[0].index)
    return named, rejected


def _new_message_id() -> str:
    return uuid4().hex


def _newest_fixes(
    named: Sequence[Named],
) -> dict[IdentityKey, tuple[datetime, Location]]:
    """The newest fix of each person in a batch: an enter offers only if it still holds there."""
    newest: dict[IdentityKey, tuple[datetime, Location]] = {}
    for event, keys in named:
        if event.location is not None:
            at = event.location.at or event.timestamp
            if keys[0] not in newest or newest[keys[0]][0] < at:
                newest[keys[0]] = (at, event.location)
    return newest


def _later(event: Event, newest: tuple[datetime, Location] | None) -> Location | None:
    if newest is None or event.location is None or newest[1] is event.location:
        return None
    return newest[1]


def _key_in(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that the Authorization header carries: the user of Basic, or a Bearer token."""
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip().decode("latin-1")
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(credentials, validate=True).partition(b":")[0].decode("latin-1")
        except binascii.Error as fault:
            raise Refused(401, "the Authorization header is not Basic auth") from fault
    return None


async def _body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """The whole body; refuses one that is too large before it is all here. One that takes too long
    is cut off by the server."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise _too_large()
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
            raise _too_large()
    if message["type"] != "http.request":
        raise Refused(400, "the body did not arrive whole")
    return b"".join(chunks)


def _too_large() -> Refused:
    return Refused(413, f"the body may have {BODY_BYTES_MAX} bytes")


async def _respond(send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"access-control-allow-origin", b"*"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
