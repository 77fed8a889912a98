"""A row of an imported file to an event, by the way that every event goes, or to the reason why not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from engine.domain.offers.rules import Workspace
from engine.domain.people.accounts import STATED
from engine.domain.people.events import Event, Sender
from engine.domain.people.events import Kind as Call
from engine.formats.import_mapping import Cell, ImportMapping, Kind, zone_of
from engine.formats.import_rows import Row
from engine.formats.segment_body import Item
from engine.formats.segment_event import Receipt, read_event
from engine.formats.segment_time import parse_time
from engine.formats.segment_verdicts import Refusal, invalid_timestamp

HISTORY = timedelta(days=2)
"""What happened longer ago is counted, and offers nothing: an import must not wake up everybody."""
FOREVER = timedelta(days=365 * 150)
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MEMBER = "member."
_YES = frozenset(("true", "yes", "y", "1", "granted", "opt_in", "opt-in", "in"))
_NO = frozenset(("false", "no", "n", "0", "denied", "opt_out", "opt-out", "out"))
_CALLS = {
    "profiles": Call.IDENTIFY,
    "consents": Call.IDENTIFY,
    "accounts": Call.GROUP,
    "purchases": Call.TRACK,
    "interactions": Call.TRACK,
}
_json = msgspec.json.Encoder(order="deterministic", enc_hook=str).encode


class Reader:
    """Rows of one file to events."""

    def __init__(self, kind: Kind, given: ImportMapping, workspace: Workspace, now: datetime) -> None:
        self._call = _CALLS[kind]
        self._kind = kind
        self._given = given
        self._zone = zone_of(given, workspace.timezone)
        self._places = {n.name: n.sources[0] for n in workspace.namespaces if n.sources}
        self._now = now
        self._receipt = Receipt(
            received_at=now,
            retention=FOREVER,
            trusted=True,
            server_only=(),
            new_message_id=_never,
            namespaces=workspace.namespaces,
        )

    def event(self, row: Row) -> Event | Refusal:
        """The event of a row; its message id follows from the row, so that the same file again adds
        nothing."""
        if row.values is None:
            return Refusal("unreadable_row", row.fault)
        values, given = row.values, self._given
        item = Item(traits={}, properties={}, context={})
        for namespace, cell in given.ids.items():
            self._take_id(item, namespace, _text(_of(values, cell)))
        for name, cell in given.traits.items():
            if (value := self._value(values, cell)) is not None:
                item.traits.setdefault(name, value)
        for name, cell in given.properties.items():
            if (value := self._value(values, cell)) is not None:
                item.properties[name] = value
        if self._call is Call.GROUP:
            _seat(item.properties)
        elif item.group_id is not None:
            item.context[STATED] = item.group_id
        consent: dict[str, bool] = {}
        for purpose, cell in given.consent.items():
            stated = _granted(_of(values, cell))
            if stated is not None:
                consent[purpose] = stated
        if consent:
            item.context["consent"] = {"categoryPreferences": consent}
        elif self._kind == "consents":
            return Refusal("no_statement", "the row states no consent")
        if self._kind == "accounts" and item.group_id is None:
            return Refusal("missing_account", "the row names no account")
        if self._call is Call.TRACK:
            item.event = _text(_of(values, given.event))
        at = self._time(values)
        if isinstance(at, Refusal):
            return at
        item.timestamp = at.isoformat()
        item.message_id = self._message_id(row)
        if item.message_id is None:
            return Refusal("missing_id", "the row has no id")
        event = read_event(item, self._call, self._receipt)
        if isinstance(event, Refusal):
            return event
        history = at < self._now - HISTORY
        return msgspec.structs.replace(event, sender=Sender.IMPORT, history=history, party=given.source)

    def _take_id(self, item: Item, namespace: str, value: str | None) -> None:
        if value is None:
            return
        if namespace in ("user_id", "anonymous_id", "group_id"):
            setattr(item, namespace, value)
            return
        path = self._places.get(namespace)
        node: Any = item
        if path is not None:
            node = getattr(item, path[0])
            for step in path[1:-1]:
                node = node.setdefault(step, {})
            node[path[-1]] = value

    def _value(self, values: Mapping[str, Any], cell: Cell) -> Any:
        """A cell's value: digits of a text file as a number, unless they are to stay text."""
        value = _of(values, cell)
        if isinstance(value, str):
            value = value.strip()
            if not value:
                return None
            if not cell.as_text:
                plain = value.replace(".", "").replace(",", ".") if self._given.decimal == "," else value
                if _NUMBER.fullmatch(plain):
                    return float(plain) if any(c in plain for c in ".eE") else int(plain)
            return value
        if isinstance(value, Decimal):
            return float(value)
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        return value

    def _time(self, values: Mapping[str, Any]) -> datetime | Refusal:
        cell = self._given.time
        if cell is None:
            return self._now
        value = _of(values, cell)
        if isinstance(value, str) and not value.strip():
            value = None
        found = _moment(value, self._given.time_format, self._zone)
        return invalid_timestamp(cell.column) if found is None else found

    def _message_id(self, row: Row) -> str | None:
        if self._given.id is not None:
            value = _text((row.values or {}).get(self._given.id))
            return f"{self._kind}:{value}" if value is not None else None
        return blake2b(_json([self._kind, row.number, row.raw]), digest_size=16).hexdigest()


def _seat(properties: dict[str, Any]) -> None:
    """Columns such as `member.department` are of the membership, as a group call has them."""
    own = {name: properties.pop(name) for name in list(properties) if name.startswith(_MEMBER)}
    if own:
        properties["member"] = {name.removeprefix(_MEMBER): value for name, value in own.items()}


def _never() -> str:
    raise AssertionError("every row has an id")


def _of(values: Mapping[str, Any], cell: Cell) -> Any:
    return values.get(cell.column) if cell.column else cell.value


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text.strip() or None


def _granted(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    word = (_text(value) or "").lower()
    return True if word in _YES else False if word in _NO else None


@lru_cache(maxsize=4096)
def _moment(value: Any, form: str | None, zone: ZoneInfo) -> datetime | None:
    """A cell as a moment: by its format, as RFC 3339, as a plain date, or as epoch seconds."""
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo is not None else _local(value, zone)
    if isinstance(value, date):
        return _local(datetime.combine(value, time(0)), zone)
    if isinstance(value, str):
        value = value.strip()
        try:
            found = datetime.strptime(value, form) if form else datetime.fromisoformat(value)
        except ValueError:
            return parse_time(value) if form is None else None
        return _local(found, zone) if found.tzinfo is None else found.astimezone(UTC)
    if isinstance(value, int | float) and form is not None:
        return _moment(str(value), form, zone)
    return parse_time(value)


def _local(found: datetime, zone: ZoneInfo) -> datetime:
    try:
        return found.replace(tzinfo=zone).astimezone(UTC)
    except OverflowError:
        return found.replace(tzinfo=UTC)
