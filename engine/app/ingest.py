"""Ingest: bytes of a request to events in the lane, and the answer once they are durable.

Raw ASGI, because this is the path that every phone takes: a decorated route costs two and a half
times as much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from hashlib import sha256
from typing import ClassVar

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from engine.adapters.postgres.faults import StoreError
from engine.adapters.postgres.store import Store
from engine.app import metrics
from engine.app.answers import away, full, not_taken, response_of, undecided
from engine.app.asgi import body_of, respond, too_large
from engine.app.clock import Clock
from engine.app.keys import Keys, key_in
from engine.app.lane import Lane
from engine.app.newest import later, newest_fixes
from engine.app.replies import Interrupted, Overloaded, Pending, Reply
from engine.app.requests import Named, Request, read_named, read_request
from engine.app.responses import Refused, Response
from engine.app.ruling import Ruling
from engine.domain.candidates import NO_SLOTS, Slots
from engine.domain.offers.decisions import full_form, public_form
from engine.formats import xdm
from engine.formats.ask import read_ask
from engine.formats.segment import (
    BATCH_CALLS,
    BODY_BYTES_MAX,
    Unreadable,
    decode_body,
    write_key_in,
)

CALLS = ("track", "identify", "screen", "page", "group", "alias", "merge", "batch", "import", "b")
PATHS = (*(f"/v1/{call}" for call in CALLS), "/b", f"/v1/{xdm.CALL}")
REJECTED_KEPT_PER_KEY_AND_DAY = 1000
KEYS_SEEN = 1000
"""How many spellings of known keys are remembered, with whether it is a server's: SDKs send the same
header with each request."""
HELD_BYTES = 64 * 1024 * 1024
"""Of bodies whose events are not answered yet."""

log = structlog.get_logger()

_METHODS = (
    (b"allow", b"POST, OPTIONS"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding, x-viewfinder-user"),
    (b"access-control-max-age", b"86400"),
)
_encode = msgspec.json.Encoder().encode

Headers = Mapping[bytes, bytes]


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
        most_held_bytes: int = HELD_BYTES,
    ) -> None:
        self._lane = lane
        self._ruling = ruling
        self._clock = clock
        self._keys = keys
        self._store = store
        self._before = before
        self._most_held_bytes = most_held_bytes
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

    async def answer(
        self, call: str, headers: Headers, body: bytes, received_at: datetime | None = None
    ) -> Response:
        """From a body to its answer: read → queue → wait until it is durable."""
        try:
            body, key, trusted, gpc = self._open(headers, body)
            if self._before is not None:
                await self._before(body)
            request = self._read(call, body, key, trusted, gpc, received_at)
            if request.rejected:
                await self._keep(request)
            ended: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

            def end(response: Response) -> None:
                if not ended.done():  # nobody waits any more where the client is gone
                    ended.set_result(response)

            self._hand_over(self._pending(request, end))
            return await ended
        except Refused as refusal:
            return refusal.response
        except StoreError:
            return away().response
        except Exception:
            log.exception("request_failed")
            return undecided().response

    def begin(self, call: str, headers: Headers, body: bytes, answer: Callable[[Response], object]) -> None:
        """The same without a task of its own, where nothing but the commit has to be waited for. An event
        that comes alone is read when its tick takes it: what waits is as small as it came."""
        received_at = self._clock() if self._before is None else None  # which may set the clock
        if (
            received_at is None
            or call in BATCH_CALLS
            or call == xdm.CALL
            or b"content-encoding" in headers
            or not body.startswith(b"{")
        ):
            self._hand_over(self._events(call, headers, body, received_at, answer))
        elif self._held_bytes + len(body) > self._most_held_bytes:
            answer(full().response)
        else:
            try:
                self._lane.read_later(_Alone(self, call, headers, body, received_at, answer))
            except Overloaded:
                answer(full().response)
            else:
                self._held_bytes += len(body)

    def _read_alone(self, alone: _Alone) -> Pending | None:
        """What came alone and waited as bytes, which are held until it is answered."""
        try:
            _, _, alone.trusted, gpc = self._open(alone.headers, alone.body)
            workspace = self._ruling().rules.workspace
            named = read_named(alone.call, alone.body, alone.trusted, gpc, alone.received_at, workspace)
        except (Refused, Unreadable):
            named = None
        except Exception:
            log.exception("request_failed")
            self._held_bytes -= len(alone.body)
            alone.answer(undecided().response)
            return None
        if named is not None:
            return Pending(event=named[0], reply=Reply(1, alone.told), keys=named[1])
        self._held_bytes -= len(alone.body)  # the longer way says what is wrong with it
        events = self._events(alone.call, alone.headers, alone.body, alone.received_at, alone.answer)
        return events[0] if events else None

    def _answer_alone(self, alone: _Alone, reply: Reply, fault: Exception | None) -> None:
        self._held_bytes -= len(alone.body)
        alone.answer(response_of(alone.trusted, (), reply, fault))

    def _events(
        self,
        call: str,
        headers: Headers,
        body: bytes,
        received_at: datetime | None,
        answer: Callable[[Response], object],
    ) -> Sequence[Pending]:
        """The events of a request that is answered once they are durable; none where it is answered with
        something else, or where that needs a task of its own."""
        try:
            if self._before is None:
                request = self._read(call, *self._open(headers, body), received_at)
                if not request.rejected:
                    return self._pending(request, answer)
        except Refused as refusal:
            answer(refusal.response)
            return ()
        except Exception:
            log.exception("request_failed")
            answer(undecided().response)
            return ()
        task = asyncio.create_task(self.answer(call, headers, body, received_at))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda ended: ended.cancelled() or answer(ended.result()))
        return ()

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
                return not_taken(request.rejected[0][0])
            reply = Reply(len(request.named))
            self._lane.submit(_waiting(request.named, reply, Slots(asked.placements, asked.limit)))
            await reply.done
        except Overloaded:
            return full().response
        except Refused as refusal:
            return refusal.response
        except (StoreError, Interrupted):
            return away().response
        except Exception:
            log.exception("request_failed")
            return undecided().response
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

    def _read(
        self,
        call: str,
        body: bytes,
        key: str,
        trusted: bool,
        gpc: bool = False,
        received_at: datetime | None = None,
    ) -> Request:
        """The events of a body, received just now where it is not said when.

        Raises:
            Refused: nothing of it can be taken.
        """
        workspace = self._ruling().rules.workspace
        return read_request(call, body, key, trusted, gpc, received_at or self._clock(), workspace)

    def _pending(self, request: Request, answer: Callable[[Response], object]) -> Sequence[Pending]:
        """The events for the lane; `answer` is called once they are durable, at once where there are none.

        Raises:
            Refused: too many bytes wait already.
        """
        if not request.named:
            answer(response_of(request.trusted, request.rejected, None, None))
            return ()
        if self._held_bytes + request.size > self._most_held_bytes:
            raise full()

        def told(reply: Reply, fault: Exception | None) -> None:
            self._held_bytes -= request.size
            answer(response_of(request.trusted, request.rejected, reply, fault))

        self._held_bytes += request.size
        return _waiting(request.named, Reply(len(request.named), told))

    def _hand_over(self, events: Sequence[Pending]) -> None:
        """Puts a request's events into the lane, all or none."""
        if events:
            try:
                self._lane.submit(events)
            except Overloaded as fault:
                events[0].reply.fail(fault)

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
            raise away() from fault
        if counted >= REJECTED_KEPT_PER_KEY_AND_DAY:
            # No more of that key are kept today: they are not worth a write each.
            self._full = {full for full in self._full if full[1] == now.date()} | {(digest, now.date())}


class _Alone(msgspec.Struct, eq=False):
    """A request with one event, from when it came until it is answered."""

    reply: ClassVar[None] = None
    ingest: Ingest
    call: str
    headers: Headers
    body: bytes
    received_at: datetime
    answer: Callable[[Response], object]
    trusted: bool = False

    def read(self) -> Pending | None:
        return self.ingest._read_alone(self)

    def told(self, reply: Reply, fault: Exception | None) -> None:
        self.ingest._answer_alone(self, reply, fault)


def _waiting(named: Sequence[Named], reply: Reply, slots: Slots = NO_SLOTS) -> list[Pending]:
    newest = newest_fixes(named) if len(named) > 1 else {}
    return [
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
