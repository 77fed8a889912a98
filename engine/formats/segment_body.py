"""Bytes of a request to its items: unzipped within a limit, split so that one bad item stays one.

An item is kept as its own bytes until it is decoded. Where the whole body is not strict JSON because
of what clients really send (NaN from Python, half an emoji from JavaScript, Latin-1 from devices), a
tolerant parse finds the items, so that the fault becomes a verdict on the item that holds it. A body
that is no JSON at all, or nested beyond the parser's stack, is `Unreadable` as a whole.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import msgspec

from engine.formats.segment_verdicts import (
    INVALID_TEXT,
    NOT_A_NUMBER,
    NOT_AN_OBJECT,
    TOO_DEEP,
    Refusal,
)
from engine.formats.tolerant_json import Unreadable, dumps, loads, nested

BODY_BYTES_MAX = 500 * 1024
BATCH_EVENTS_MAX = 2_500
DEPTH_MAX = 64

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_MEMBERS_MAX = 64
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


class Item(msgspec.Struct, gc=False, rename="camel"):
    """The fields of an event that mean something here, each as sent; all others are ignored."""

    type: Any = None
    event: Any = None
    name: Any = None
    category: Any = None
    user_id: Any = None
    anonymous_id: Any = None
    previous_id: Any = None
    group_id: Any = None
    message_id: Any = None
    timestamp: Any = None
    original_timestamp: Any = None
    sent_at: Any = None
    properties: Any = None
    traits: Any = None
    context: Any = None
    merge_properties: Any = None
    write_key: Any = None

    def __repr__(self) -> str:
        return "Item(…)"


class Batch(msgspec.Struct, rename="camel"):
    """The envelope of a batch: each item as its bytes, and what the items share."""

    batch: list[msgspec.Raw] | None = None
    context: msgspec.Raw = msgspec.Raw()
    sent_at: Any = None
    write_key: Any = None

    def __repr__(self) -> str:
        return f"Batch({len(self.batch or ())} items)"


class Label(msgspec.Struct, rename="camel"):
    """What names an item that could not be decoded as a whole, as sent."""

    message_id: Any = None
    write_key: Any = None


_FIELDS = tuple((field.name, field.encode_name) for field in msgspec.structs.fields(Item))
_decode_item = msgspec.json.Decoder(Item).decode
_decode_batch = msgspec.json.Decoder(Batch).decode
_decode_label = msgspec.json.Decoder(Label).decode
_encode_msgpack = msgspec.msgpack.Encoder().encode


def decode_body(body: bytes, content_encoding: str | None, limit: int = BODY_BYTES_MAX) -> bytes:
    """`body` unzipped where it is gzip, by its magic bytes; a header that says gzip over plain JSON is
    forgiven, since proxies unzip without telling. Raises Unreadable for any other encoding, a broken
    or truncated stream (400), and more than `limit` bytes (413)."""
    encoding = (content_encoding or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise Unreadable(400, "the body's content encoding must be gzip or none")
    if len(body) > limit:
        raise _too_large(limit)
    return gunzip(body, limit) if body.startswith(_GZIP_MAGIC) else body


def gunzip(body: bytes, limit: int) -> bytes:
    """`body` unzipped, never holding more than `limit` bytes and one. Raises Unreadable as
    `decode_body` does."""
    parts: list[bytes] = []
    left = limit + 1
    # Empty members cost 20 bytes each and a copy of all that follows: their number is bounded, too.
    for _ in range(_GZIP_MEMBERS_MAX):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            part = member.decompress(body, left)
        except zlib.error:
            raise Unreadable(400, "the gzip body is damaged") from None
        parts.append(part)
        left -= len(part)
        if left <= 0:
            raise _too_large(limit)
        if not member.eof:
            raise Unreadable(400, "the gzip body is truncated")
        # Zeros after the last member are padding.
        body = member.unused_data.lstrip(b"\0")
        if not body:
            return b"".join(parts)
    raise Unreadable(400, "the gzip body has too many members")


def split_batch(body: bytes) -> Batch:
    """The envelope in `body`. Raises Unreadable (400, or 413 for more than 2,500 events)."""
    body = _without_mark(body)
    try:
        batch = _decode_batch(body)
    except RecursionError:
        raise nested() from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        batch = _split_tolerantly(body)
    if batch.batch is None:
        raise Unreadable(400, "the body must be a JSON object with a list called batch")
    if len(batch.batch) > BATCH_EVENTS_MAX:
        raise Unreadable(413, f"a batch may have {BATCH_EVENTS_MAX} events")
    return batch


def single(body: bytes) -> bytes:
    """The one item that `body` is. Raises Unreadable (400) where it cannot be an object."""
    body = body.removeprefix(_BYTE_ORDER_MARK).strip(_SPACE)
    if not body.startswith(b"{"):
        raise Unreadable(400, "the body must be a JSON object")
    return body


def decode_item(raw: bytes) -> Item | Refusal:
    """The item in `raw` with text, numbers and depth that the database can hold, or the verdict.
    Raises Unreadable (400) where `raw` is not JSON or nested beyond the parser's stack."""
    try:
        item = _decode_item(raw)
    except RecursionError:
        raise nested() from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        tolerant = _decode_tolerantly(raw)
        if isinstance(tolerant, Refusal):
            return tolerant
        item = tolerant
    # Each of these three looks at all of it at C speed; the slow walk is for what they find suspicious.
    opened = raw.count(b"{") + (raw.count(b"[") if b"[" in raw else 0)
    if opened > DEPTH_MAX or (b"\\" in raw and b"\\u0000" in raw):
        fault = _fault(msgspec.structs.astuple(item))
        if fault is not None:
            return fault
    try:
        _encode_msgpack((item.properties, item.traits, item.context, item.merge_properties))
    except OverflowError:
        return _narrowed(item)
    return item


def decode_context(raw: bytes) -> dict[str, Any] | Refusal:
    """The context that a batch's items share; empty where there is none. A fault is on every item."""
    if not raw:
        return {}
    item = decode_item(b'{"context":' + raw + b"}")
    if isinstance(item, Refusal):
        return item
    return item.context if isinstance(item.context, dict) else {}


def label_of(raw: bytes) -> Label:
    """The names in an item or a body that was refused; empty where they cannot be found."""
    raw = _without_mark(raw)
    try:
        return _decode_label(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        value = loads(raw)
    except Unreadable:
        return Label()
    return Label(value.get("messageId"), value.get("writeKey")) if isinstance(value, dict) else Label()


def _decode_tolerantly(raw: bytes) -> Item | Refusal:
    """The item that the strict parser refused, where what is wrong stands in a field without meaning;
    else the verdict. So an item's verdict depends on no other and on no spelling."""
    value = loads(raw)
    if not isinstance(value, dict):
        return NOT_AN_OBJECT
    known = {name: value.get(field) for name, field in _FIELDS}
    return _fault(list(known.values())) or Item(**known)


def _fault(value: Any) -> Refusal | None:
    """What in `value`, at any depth, cannot be stored. Iterative: its input may be deeper than the stack."""
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for node in level:
            children = [*node, *node.values()] if isinstance(node, dict) else list(node)
            for child in children:
                if isinstance(child, str):
                    if "\0" in child or not _encodable(child):
                        return INVALID_TEXT
                elif isinstance(child, float):
                    if not math.isfinite(child):
                        return NOT_A_NUMBER
                elif isinstance(child, dict | list):
                    below.append(child)
        if not below:
            return None
        level = below
    return TOO_DEEP


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _narrowed(item: Item) -> Item | Refusal:
    """`item` with integers beyond 64 bits as floats, as JavaScript reads them: neither MessagePack nor
    an expression can hold them."""
    fault = _fault(msgspec.structs.astuple(item))
    if fault is not None:
        return fault
    try:
        item.properties = _narrow(item.properties)
        item.traits = _narrow(item.traits)
        item.context = _narrow(item.context)
        item.merge_properties = _narrow(item.merge_properties)
    except OverflowError:
        return NOT_A_NUMBER
    return item


def _narrow(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _narrow(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_narrow(child) for child in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value


def _split_tolerantly(body: bytes) -> Batch:
    value = loads(body)
    if not isinstance(value, dict):
        raise Unreadable(400, "the body must be a JSON object")
    items = value.get("batch")
    context = value.get("context")
    return Batch(
        batch=[msgspec.Raw(dumps(item)) for item in items] if isinstance(items, list) else None,
        context=msgspec.Raw(dumps(context)) if context is not None else msgspec.Raw(),
        sent_at=value.get("sentAt"),
        write_key=value.get("writeKey"),
    )


def _without_mark(body: bytes) -> bytes:
    return body.removeprefix(_BYTE_ORDER_MARK)


def _too_large(limit: int) -> Unreadable:
    return Unreadable(413, f"the body may have {limit} bytes after decompression")
