"""A body of XDM to its records, each as its own bytes.

Taken are one record, a list of them, Adobe's streaming envelope `{header, body: {xdmMeta, xdmEntity}}`,
a list of envelopes in `messages`, and the Edge Network's `{event: {xdm}}` and `{events: [{xdm}]}`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.formats.segment_body import BATCH_EVENTS_MAX, decode_item
from engine.formats.segment_verdicts import NOT_AN_OBJECT, Refusal
from engine.formats.tolerant_json import Unreadable, dumps, loads, nested

_LISTS: Final = ("messages", "events")
_WRAPPERS: Final = ("body", "xdmEntity", "xdm", "event")
_OF_RECORDS: Final = ("timestamp", "xdm:timestamp", "identityMap", "xdm:identityMap")
_SPACE: Final = b" \t\r\n"
_ENVELOPES_MAX: Final = 4

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def split(body: bytes) -> tuple[list[bytes], bool]:
    """The records in `body` as they were sent, and whether it is one alone.

    Raises:
        Unreadable: 400 where it is no JSON, no object and no list, 413 for more than 2,500 records.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip(_SPACE)
    alone = False
    if body.startswith(b"["):
        items = _list(body)
    elif body.startswith(b"{"):
        fields = _fields(body)
        lists = [name for name in _LISTS if fields.get(name, b"").startswith(b"[")]
        alone = not lists
        items = [body] if alone else _list(fields[lists[0]])
    else:
        raise Unreadable(400, "the body must be a JSON object or a list of them")
    if len(items) > BATCH_EVENTS_MAX:
        raise Unreadable(413, f"a batch may have {BATCH_EVENTS_MAX} events")
    return [_unwrapped(item) for item in items], alone


def decode(raw: bytes) -> dict[str, Any] | Refusal:
    """A record as Python values that the database can hold, or the verdict on it."""
    if not raw.startswith(b"{"):
        return NOT_AN_OBJECT
    item = decode_item(b'{"properties":' + raw + b"}")
    if isinstance(item, Refusal):
        return item
    record: dict[str, Any] = item.properties
    return record


def _unwrapped(raw: bytes) -> bytes:
    """The record inside its envelopes. A record has what an envelope has not: its time, or whom it is
    about."""
    for _ in range(_ENVELOPES_MAX):
        if not raw.startswith(b"{"):
            return raw
        fields = _fields(raw)
        inner = next((name for name in _WRAPPERS if fields.get(name, b"").startswith(b"{")), None)
        if inner is None or any(name in fields for name in _OF_RECORDS):
            return raw
        raw = fields[inner]
    return raw


def _fields(raw: bytes) -> dict[str, bytes]:
    try:
        return {name: bytes(value) for name, value in _decode_fields(raw).items()}
    except RecursionError:
        raise nested() from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {name: dumps(value) for name, value in loads(raw).items()}


def _list(raw: bytes) -> list[bytes]:
    try:
        return [bytes(value) for value in _decode_list(raw)]
    except RecursionError:
        raise nested() from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return [dumps(value) for value in loads(raw)]
