"""Ingest: bytes of a request to events in the lane, and the answer once they are durable.

Raw ASGI, because this is the path that every phone takes: a decorated route costs two and a half
times as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta
from hashlib import sha256
from uuid import uuid4

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.store import Store
from engine.app import metrics
from engine.app.asgi import body_of, respond, too_large
from engine.app.clock import Clock
from engine.app.keys import Keys, key_in
from engine.app.lane import Lane
from engine.app.newest import later, newest_fixes
from engine.app.replies import Interrupted, Overloaded, Pending, Reply
from engine.app.responses import Refused, Response
from engine.app.ruling import Ruling
from engine.domain.candidates import NO_SLOTS, Slots
from engine.domain.offers.decisions import full_form, public_form
from engine.domain.offers.rules import Namespace
from engine.domain.people import identity
from engine.domain.people.events import Event
from engine.domain.people.profiles import IdentityKey
from engine.formats import xdm
from engine.formats.ask import read_ask
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
PATHS = (*(f"/v1/{call}" for call in CALLS), "/b", f"/v1/{xdm.CALL}")
RETENTION = timedelta(days=396)
REJECTED_KEPT_PER_KEY_AND_DAY = 1000
KEYS_SEEN = 1000
"""How many spellings of known keys are remembered, with whether it is a server's: SDKs send the same
header with each request."""
HELD_BYTES = 64 * 1024 * 1024
"""Of bodies whose events are not answered yet."""

log = structlog.get_logger()

_MISSING_IDENTITY = "none of the event's ids is of a namespace of this workspace"
_METHODS = (
    (b"allow", b"POST, OPTIONS"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding, x-viewfinder-user"),
    (b"access-control-max-age", b"86400"),
)
_encode = msgspec.json.Encoder().encode
_TAKEN = Response(200, _encode(Answer(accepted=1)))
"""The answer to most requests."""

Headers = Mapping[bytes, bytes]
Named = tuple[Event, tuple[IdentityKey, ...]]
"""An event, and the ids that it is about, strongest first."""


class Request(msgspec.Struct, frozen=True):
    """A body that was read: the events that can be taken, and those that cannot, with their bytes.
    `size` is in bytes, unzipped."""

    key: str
    trusted: bool
    size: int
    named: Sequence[Named]
    rejected: Sequence[tuple[Rejection, bytes]]

    def __repr__(self) -> str:
        return f"Request({len(self.named)} events, {len(self.rejected)} rejected)"


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
        self._tasks: set[asyncio.Task[Response]] = set()
        self._keys_seen: dict[bytes, tuple[str, bool]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await respond(send, Response(204 if scope["method"] == "OPTIONS" else 405, b"", _METHODS))
            return
        headers = dict(scope["headers"])
        try:
            body = await body_of(receive, headers)
        except Refused as refusal:
            await respond(send, refusal.response)
            return
        call = scope["path"].rsplit("/", 1)[1]
        await respond(send, await self.answer(call, headers, body))

    async def answer(self, call: str, headers: Headers, body: bytes) -> Response:
        """From a body to its answer: read → queue → wait until it is durable."""
        try:
            body, key, trusted, gpc = self._open(headers, body)
            if self._before is not None:
                await self._before(body)
            request = self._read(call, body, key, trusted, gpc)
            if request.rejected:
                await self._keep(request)
            ended: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

            def end(response: Response) -> None:
                if not ended.done():  # nobody waits any more where the client is gone
                    ended.set_result(response)

            self._submit(request, end)
            return await ended
        except Refused as refusal:
            return refusal.response
        except StoreError:
            return Refused(503, "the database is away: nothing is confirmed, send it again", 2).response
        except Exception:
            log.exception("request_failed")
            return Refused(500, "this request could not be decided; it was logged").response

    def begin(self, call: str, headers: Headers, body: bytes, answer: Callable[[Response], object]) -> None:
        """The same without a task of its own, where nothing but the commit has to be waited for."""
        try:
            if self._before is None:
                request = self._read(call, *self._open(headers, body))
                if not request.rejected:
                    self._submit(request, answer)
                    return
        except Refused as refusal:
            answer(refusal.response)
            return
        except Exception:
            log.exception("request_failed")
            answer(Refused(500, "this request could not be decided; it was logged").response)
            return
        task = asyncio.create_task(self.answer(call, headers, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or answer(ended.result()))

    async def decide(self, headers: Headers, body: bytes) -> Response:
        """`POST /v1/decide`: one event, and what the app that sent it has room for."""
        try:
            if len(body) > BODY_BYTES_MAX:
                raise too_large()
            body, key, trusted, gpc = self._open(headers, body)
            if self._before is not None:
                await self._before(body)
            try:
                asked = read_ask(body)
            except Unreadable as fault:
                raise Refused(fault.status, str(fault)) from fault
            request = self._read("batch", asked.as_batch, key, trusted, gpc)
            if request.rejected:
                await self._keep(request)
                metrics.REJECTED.inc()
                return _not_taken(request.rejected[0][0])
            reply = Reply(len(request.named))
            self._queue(request.named, reply, Slots(asked.placements, asked.limit))
            await reply.done
        except Refused as refusal:
            return refusal.response
        except (StoreError, Interrupted):
            return Refused(503, "the database is away: nothing is confirmed, send it again", 2).response
        except Exception:
            log.exception("request_failed")
            return Refused(500, "this request could not be decided; it was logged").response
        form = full_form if trusted else public_form
        wanted = reply.decisions
        if asked.placements:
            places = asked.placements
            wanted = [d for d in wanted if d.placement in places]
            wanted.sort(key=lambda d: places.index(d.placement or ""))
        return Response(200, _encode({"decisions": [s for d in wanted if (s := form(d)) is not None]}))

    def _open(self, headers: Headers, body: bytes) -> tuple[bytes, str, bool, bool]:
        """The body unzipped, its key, whether that is a server's, and whether the browser asks that
        nothing be given to others.

        Raises:
            Refused: it cannot be unzipped, or nobody knows the key.
        """
        try:
            encoding = headers.get(b"content-encoding")
            if encoding is not None or not body.startswith(b"{"):
                body = decode_body(body, encoding.decode("latin-1") if encoding else None, BODY_BYTES_MAX)
            seen = self._keys_seen.get(headers.get(b"authorization", b""))
            if seen is None:
                key = self._key(headers) or write_key_in(body) or ""
                seen = key, self._keys.trust(key)
        except Unreadable as fault:
            raise Refused(fault.status, str(fault)) from fault
        return body, *seen, headers.get(b"sec-gpc") == b"1"

    def _key(self, headers: Headers) -> str | None:
        """The key in the headers; those of keys that somebody has are remembered with their text."""
        key = key_in(headers)
        if key is not None and self._keys.knows(key) and len(self._keys_seen) < KEYS_SEEN:
            self._keys_seen[headers[b"authorization"]] = key, self._keys.trust(key)
        return key

    def _read(self, call: str, body: bytes, key: str, trusted: bool, gpc: bool = False) -> Request:
        """The events of a body.

        Raises:
            Refused: nothing of it can be taken.
        """
        workspace = self._ruling().rules.workspace
        try:
            if call == xdm.CALL:
                received = xdm.read(
                    body,
                    received_at=self._clock(),
                    trusted=trusted,
                    gpc=gpc,
                    workspace=workspace,
                    retention=workspace.retention.get("events", RETENTION),
                    new_message_id=_new_message_id,
                )
            else:
                received = read(
                    body,
                    call=call,
                    received_at=self._clock(),
                    trusted=trusted,
                    gpc=gpc,
                    server_only=workspace.server_only,
                    retention=workspace.retention.get("events", RETENTION),
                    new_message_id=_new_message_id,
                    namespaces=workspace.namespaces,
                )
        except Unreadable as fault:
            raise Refused(fault.status, str(fault)) from fault
        named, rejected = _named(received, workspace.namespaces)
        return Request(key, trusted, len(body), named, rejected)

    def _submit(self, request: Request, answer: Callable[[Response], object]) -> None:
        """Hands the events to the lane, all or none; `answer` is called once they are durable."""
        if not request.named:
            answer(self._response(request, None, None))
            return
        if self._held_bytes + request.size > HELD_BYTES:
            raise Refused(503, "the engine is full: nothing was taken, send it again", 1)

        def told(reply: Reply, fault: Exception | None) -> None:
            self._held_bytes -= request.size
            answer(self._response(request, reply, fault))

        self._queue(request.named, Reply(len(request.named), told))
        self._held_bytes += request.size

    def _response(self, request: Request, reply: Reply | None, fault: Exception | None) -> Response:
        if isinstance(fault, Interrupted):
            return Refused(503, "the database is away: nothing is confirmed, send it again", 2).response
        if fault is not None:
            return Refused(500, "this request could not be decided; it was logged").response
        accepted, duplicates, decisions = 0, 0, []
        if reply is not None:
            accepted, duplicates, decisions = reply.accepted, reply.duplicates, reply.decisions
        if accepted == 1 and not (duplicates or decisions or request.rejected):
            return _TAKEN
        if request.rejected:
            metrics.REJECTED.inc(len(request.rejected))
        form = full_form if request.trusted else public_form
        answer = Answer(
            accepted=accepted,
            duplicates=duplicates,
            rejected=tuple([rejection for rejection, _ in request.rejected]),
            decisions=[shown for d in decisions if (shown := form(d)) is not None],
        )
        return Response(200, _encode(answer))

    def _queue(self, named: Sequence[Named], reply: Reply, slots: Slots = NO_SLOTS) -> None:
        newest = newest_fixes(named) if len(named) > 1 else {}
        pending = [
            Pending(
                event=event,
                reply=reply,
                keys=keys,
                position=position,
                newest=later(event, newest.get(keys[0])) if newest else None,
                slots=slots,
            )
            for position, (event, keys) in enumerate(named)
        ]
        try:
            self._lane.submit(pending)
        except Overloaded as fault:
            raise Refused(503, "the engine is full: nothing was taken, send it again", 1) from fault

    async def _keep(self, request: Request) -> None:
        """Keeps what was refused, for whoever wonders where it went."""
        now, rejected = self._clock(), request.rejected
        digest = sha256(request.key.encode()).hexdigest()[:16]
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
    rejected = list(zip(received.rejected, received.rejected_items, strict=True)) if received.rejected else []
    named: list[Named] = []
    for index, event in received.events:
        keys = identity.keys_of(event, namespaces)
        if keys:
            named.append((event, keys))
        else:
            rejection = Rejection(index, event.message_id, "missing_identity", _MISSING_IDENTITY)
            rejected.append((rejection, _encode(event)))
    if len(rejected) > 1:
        rejected.sort(key=lambda one: one[0].index)
    return named, rejected


def _not_taken(rejection: Rejection) -> Response:
    fault = {"success": False, "code": rejection.code, "message": rejection.message}
    return Response(400, _encode(fault))


def _new_message_id() -> str:
    return uuid4().hex
