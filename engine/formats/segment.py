"""The Segment and RudderStack protocol: a request's bytes to events, with a verdict on each, and the
answer (wire.md, "Events").

`decode_body` unzips, `read` turns the body into events and rejections, `Answer` is what goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.domain.offers.rules import Namespace
from engine.domain.people.events import Event, Kind
from engine.formats.segment_body import (
    BODY_BYTES_MAX,
    decode_body,
    decode_context,
    decode_item,
    gunzip,
    label_of,
    single,
    split_batch,
)
from engine.formats.segment_event import Receipt, message_identifier, read_event
from engine.formats.segment_time import parse_time
from engine.formats.segment_verdicts import TOO_LARGE, UNKNOWN_TYPE, Refusal
from engine.formats.tolerant_json import Unreadable

__all__ = [
    "BATCH_CALLS",
    "BODY_BYTES_MAX",
    "EVENT_BYTES_MAX",
    "Answer",
    "Receipt",
    "Received",
    "Rejection",
    "Unreadable",
    "decode_body",
    "gunzip",
    "read",
    "read_alone",
    "write_key_in",
]

EVENT_BYTES_MAX = 32 * 1024
SHARED_BYTES_MAX = 8 * 1024 * 1024
"""Of the shared context, which each event is stored with."""
BATCH_CALLS = frozenset({"batch", "import", "b"})

_KINDS = {kind.value: kind for kind in Kind}


class Rejection(msgspec.Struct, frozen=True, rename={"message_id": "messageId"}):
    """One event that was not taken: its place in the request, its id where it could be read, a stable
    code, and a sentence that quotes none of its values."""

    index: int
    message_id: str | None
    code: str
    message: str


class Received(msgspec.Struct, frozen=True, gc=False):
    """What a body held. Each of its items is in `events` or in `rejected`, by its index.

    `rejected_items` are the bytes of the rejected, in the order of `rejected`, cut at 32 KB. They are
    as the client sent them: not always JSON, not always text.
    """

    events: tuple[tuple[int, Event], ...]
    rejected: tuple[Rejection, ...] = ()
    rejected_items: tuple[bytes, ...] = ()
    write_key: str | None = None

    def __repr__(self) -> str:
        return f"Received(events={len(self.events)}, rejected={len(self.rejected)}, …)"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a 200. `decisions` are in the form that the caller's key may see."""

    success: bool = True
    accepted: int
    duplicates: int = 0
    rejected: tuple[Rejection, ...] = ()
    decisions: list[Any] = []


def read(
    body: bytes,
    *,
    call: str,
    received_at: datetime,
    trusted: bool,
    gpc: bool = False,
    server_only: Collection[str],
    retention: timedelta,
    new_message_id: Callable[[], str],
    namespaces: Sequence[Namespace] = (),
) -> Received:
    """The events in `body`, unzipped before, and the verdict on each that is not taken.

    `call` is the path's last segment: the type of the one event in the body, or `batch`, `import`, `b`,
    whose items name their own. `server_only` are the track events that only a `trusted` key may claim.
    An event without a `messageId` gets one from `new_message_id`. `namespaces` are the identities that
    may name somebody beside userId and anonymousId.

    Raises Unreadable with status 400 (not JSON, not an object, nested beyond the parser's stack) or 413
    (over 500 KB, over 2,500 events, a single event over 32 KB).
    """
    if len(body) > BODY_BYTES_MAX:
        raise Unreadable(413, f"the body may have {BODY_BYTES_MAX} bytes after decompression")
    receipt = Receipt(
        received_at=received_at,
        retention=retention,
        trusted=trusted,
        gpc=gpc,
        server_only=server_only,
        new_message_id=new_message_id,
        namespaces=namespaces,
    )
    if call in BATCH_CALLS:
        return _read_batch(body, receipt)
    return _read_single(body, _KINDS[call], receipt)


def read_alone(body: bytes, call: str, receipt: Receipt) -> Event | None:
    """The event in `body`, unzipped before, that comes as a call of its own type. None where something is
    to be said against it, which `read` does.

    Raises Unreadable as `read` does.
    """
    if len(body) > EVENT_BYTES_MAX:
        return None
    item = decode_item(single(body))
    event = item if isinstance(item, Refusal) else read_event(item, _KINDS[call], receipt)
    return None if isinstance(event, Refusal) else event


def write_key_in(body: bytes) -> str | None:
    """The `writeKey` in an unzipped body, for requests whose headers carry none: whether a key is
    trusted must be known before `read`. None where there is none or the body is not JSON."""
    return _write_key(label_of(body).write_key)


def _read_single(body: bytes, kind: Kind, receipt: Receipt) -> Received:
    raw = single(body)
    if len(raw) > EVENT_BYTES_MAX:
        raise Unreadable(413, f"an event may have {EVENT_BYTES_MAX} bytes")
    item = decode_item(raw)
    if isinstance(item, Refusal):
        write_key = _write_key(label_of(raw).write_key)
        return Received((), (_rejection(0, raw, item),), (raw,), write_key)
    write_key = _write_key(item.write_key) if item.write_key is not None else None
    event = read_event(item, kind, receipt)
    if isinstance(event, Refusal):
        return Received((), (_rejection(0, raw, event),), (raw,), write_key)
    return Received(((0, event),), write_key=write_key)


def _read_batch(body: bytes, receipt: Receipt) -> Received:
    batch = split_batch(body)
    shared = decode_context(bytes(batch.context))
    if not isinstance(shared, Refusal):
        receipt = msgspec.structs.replace(receipt, sent_at=parse_time(batch.sent_at), context=shared)
    if len(bytes(batch.context)) * len(batch.batch or ()) > SHARED_BYTES_MAX:
        raise Unreadable(413, "the batch's context is too large for so many events: send smaller batches")
    # What the items share is part of each: without its size in theirs, 500 KB could become gigabytes.
    bytes_max = EVENT_BYTES_MAX - len(bytes(batch.context))
    events: list[tuple[int, Event]] = []
    rejected: list[Rejection] = []
    rejected_items: list[bytes] = []
    for index, item in enumerate(batch.batch or ()):
        raw = bytes(item)
        if isinstance(shared, Refusal):
            event: Event | Refusal = shared
        elif len(raw) > bytes_max:
            event = TOO_LARGE
        else:
            event = _read_item(raw, receipt)
        if isinstance(event, Refusal):
            rejected.append(_rejection(index, raw, event))
            rejected_items.append(raw[:EVENT_BYTES_MAX])
        else:
            events.append((index, event))
    return Received(tuple(events), tuple(rejected), tuple(rejected_items), _write_key(batch.write_key))


def _read_item(raw: bytes, receipt: Receipt) -> Event | Refusal:
    item = decode_item(raw)
    if isinstance(item, Refusal):
        return item
    kind = _KINDS.get(item.type.lower()) if type(item.type) is str else None
    return UNKNOWN_TYPE if kind is None else read_event(item, kind, receipt)


def _rejection(index: int, raw: bytes, refusal: Refusal) -> Rejection:
    return Rejection(index, _answerable(label_of(raw).message_id), refusal.code, refusal.message)


def _answerable(message_id: Any) -> str | None:
    """An id that can be answered and stored: it may be the very text that the event is refused for."""
    text = message_identifier(message_id)
    if text is None or "\0" in text:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def _write_key(value: Any) -> str | None:
    return value if type(value) is str and value.isascii() and value else None
