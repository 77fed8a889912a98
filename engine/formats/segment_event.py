"""One decoded item of a Segment or RudderStack request to an `Event`, or to the reason why not.

What becomes typed leaves the free-form parts: the push token and the position stand in `Event.device`
and `Event.location` only, traits and consent are moved out of the context, and the sender's IP address
and user token are dropped, so that nothing personal is stored twice or unasked.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.domain.offers.rules import Namespace
from engine.domain.people.events import Device, Event, Kind, Location, Sender
from engine.domain.people.identity import keys_of
from engine.domain.people.profiles import IdentityKey
from engine.formats.segment_body import Item
from engine.formats.segment_consent import take_consent_ids, take_consent_traits, take_preferences
from engine.formats.segment_location import POSITION_FIELDS, read_location
from engine.formats.segment_time import event_time, parse_time
from engine.formats.segment_verdicts import (
    MISSING_ALIAS,
    MISSING_EVENT,
    MISSING_IDENTITY,
    MISSING_MERGE,
    SERVER_ONLY,
    Refusal,
    control_characters,
    too_long,
)

# 512 characters of four bytes fit into a key of a PostgreSQL index (2,704 bytes) with its neighbours.
ID_CHARACTERS_MAX = 512
NAME_CHARACTERS_MAX = 512
MESSAGE_ID_CHARACTERS_MAX = 256
TOKEN_CHARACTERS_MAX = 4_096

PERMISSIONS = ("push", "location", "precise")
LOCATION_UPDATED = "Location Updated"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TRACK, _MERGE, _GROUP, _ALIAS = Kind.TRACK, Kind.MERGE, Kind.GROUP, Kind.ALIAS
_NAMED, _UNNAMED = Sender.CLIENT, Sender.GENERATED
_MERGE_FIELDS = {
    "user_id": "user_id",
    "userId": "user_id",
    "anonymous_id": "anonymous_id",
    "anonymousId": "anonymous_id",
}


class Receipt(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the items of one request share: when and from whom it came, and the batch's own fields."""

    received_at: datetime
    retention: timedelta
    trusted: bool
    server_only: Collection[str]
    new_message_id: Callable[[], str]
    sent_at: datetime | None = None
    context: Mapping[str, Any] = {}
    gpc: bool = False
    """Whether the browser said, by Global Privacy Control, that nothing may be given to others."""
    namespaces: Sequence[Namespace] = ()
    """The workspace's kinds of identity: who is meant may be said by any of them."""
    identities: tuple[IdentityKey, ...] = ()
    """What the protocol names beside userId and anonymousId."""

    @property
    def named_otherwise(self) -> bool:
        """Whether the workspace knows people by anything beside userId and anonymousId."""
        return any(namespace.sources for namespace in self.namespaces)

    def __repr__(self) -> str:
        return f"Receipt(received_at={self.received_at!r}, trusted={self.trusted}, …)"


def read_event(item: Item, kind: Kind, receipt: Receipt) -> Event | Refusal:
    """The event that `item` states, or why it is not taken. Takes `item` over: it is used up."""
    user_id = identifier(item.user_id)
    anonymous_id = identifier(item.anonymous_id)
    previous_id = identifier(item.previous_id) if item.previous_id is not None else None
    group_id = identifier(item.group_id) if kind is _GROUP else None
    properties = item.properties if type(item.properties) is dict else {}
    if kind is _MERGE:
        user_id, anonymous_id, previous_id = _merged_ids(item, user_id, anonymous_id, previous_id)
        if item.merge_properties is not None:
            properties["mergeProperties"] = item.merge_properties
    refusal = _missing_id(kind, user_id, anonymous_id, previous_id)
    if refusal is MISSING_IDENTITY and receipt.named_otherwise:
        refusal = None  # what it carries instead is known once it is read
    refusal = refusal or _long_id(user_id, anonymous_id, previous_id, group_id)
    if refusal is not None:
        return refusal

    name = _name(kind, item, properties)
    if len(name) > NAME_CHARACTERS_MAX:
        return too_long("the event's name", NAME_CHARACTERS_MAX)
    if kind is _TRACK:
        if not name:
            return MISSING_EVENT
        if not receipt.trusted and name in receipt.server_only:
            return SERVER_ONLY

    # A sentAt that cannot be read says nothing of the clock; the event itself is still good.
    sent_at = parse_time(item.sent_at) or receipt.sent_at
    time = event_time(
        item.timestamp, item.original_timestamp, sent_at, receipt.received_at, receipt.retention
    )
    if isinstance(time, Refusal):
        return time

    context = item.context if type(item.context) is dict else {}
    if receipt.context:
        context = _over(receipt.context, context)
    location = _location(kind, name, properties, context, time.stated)
    if isinstance(location, Refusal):
        return location
    device = _device(context, user_id, anonymous_id)
    if isinstance(device, Refusal):
        return device
    consent = take_preferences(context) if "consent" in context else {}
    if "consentManagement" in context:
        take_consent_ids(context, consent)
    traits: dict[str, Any] = {}
    if item.traits is not None or "traits" in context:
        traits = _traits(kind, item.traits, properties, context)
        take_consent_traits(traits, consent)
    context.pop("ip", None)
    if receipt.gpc:
        context["gpc"] = True
    context.pop("userToken", None)

    message_id = message_identifier(item.message_id)
    event = Event(
        kind=kind,
        message_id=message_id or receipt.new_message_id(),
        received_at=receipt.received_at,
        timestamp=time.at,
        name=name,
        sender=_NAMED if message_id else _UNNAMED,
        user_id=user_id,
        anonymous_id=anonymous_id,
        previous_id=previous_id,
        group_id=group_id,
        properties=properties,
        traits=traits,
        context=context,
        consent=consent,
        identities=receipt.identities,
        device=device,
        location=location,
        raw_timestamp=time.text,
        sent_at=sent_at,
        trusted=receipt.trusted,
    )
    return event if user_id or anonymous_id else _named_otherwise(event, receipt.namespaces)


def _named_otherwise(event: Event, namespaces: Sequence[Namespace]) -> Event | Refusal:
    """The event by the strongest of its other identities; refused where it is about nobody."""
    keys = keys_of(event, namespaces)
    if not keys:
        return MISSING_IDENTITY
    if event.device is None or event.device.id:
        return event
    # Not the identity itself: an address's id is told where a card's number or an e-mail address is not.
    digest = hashlib.blake2b("\0".join(keys[0]).encode(), digest_size=16).hexdigest()
    return msgspec.structs.replace(
        event, device=msgspec.structs.replace(event.device, id=f"{keys[0][0]}:{digest}")
    )


def identifier(value: Any) -> str | None:
    """An id as text: null, "", true, false, lists and objects are none; numbers are their digits."""
    if value is None:
        return None
    if type(value) is str:
        return value or None
    if type(value) is int:
        return str(value)
    if type(value) is float and math.isfinite(value):
        # JavaScript has one kind of number: 7.0 and 7 are the same id. Beyond 2^53 it is not exact.
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None


def message_identifier(value: Any) -> str | None:
    """A message's id as sent; one beyond 256 characters as its digest, which finds repeats as well."""
    text = identifier(value)
    if text is None or len(text) <= MESSAGE_ID_CHARACTERS_MAX:
        return text
    return "blake2b:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _missing_id(
    kind: Kind, user_id: str | None, anonymous_id: str | None, previous_id: str | None
) -> Refusal | None:
    if kind is _ALIAS:
        return None if user_id and previous_id else MISSING_ALIAS
    if kind is _MERGE:
        return MISSING_MERGE if (user_id, anonymous_id, previous_id).count(None) > 1 else None
    return None if user_id or anonymous_id else MISSING_IDENTITY


def _long_id(
    user_id: str | None, anonymous_id: str | None, previous_id: str | None, group_id: str | None
) -> Refusal | None:
    if user_id and len(user_id) > ID_CHARACTERS_MAX:
        return too_long("userId", ID_CHARACTERS_MAX)
    if anonymous_id and len(anonymous_id) > ID_CHARACTERS_MAX:
        return too_long("anonymousId", ID_CHARACTERS_MAX)
    if previous_id and len(previous_id) > ID_CHARACTERS_MAX:
        return too_long("previousId", ID_CHARACTERS_MAX)
    if group_id and len(group_id) > ID_CHARACTERS_MAX:
        return too_long("groupId", ID_CHARACTERS_MAX)
    return None


def _merged_ids(
    item: Item, user_id: str | None, anonymous_id: str | None, previous_id: str | None
) -> tuple[str | None, str | None, str | None]:
    """RudderStack's merge call names its two ids in `mergeProperties: [{type, value}, …]`."""
    ids = {"user_id": user_id, "anonymous_id": anonymous_id}
    entries = item.merge_properties if isinstance(item.merge_properties, list) else []
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        kind = entry.get("type")
        field = _MERGE_FIELDS.get(kind) if isinstance(kind, str) else None
        value = identifier(entry.get("value"))
        if field is None or value is None or value == ids[field]:
            continue
        if ids[field] is None:
            ids[field] = value
        elif previous_id is None:
            previous_id = value
    return ids["user_id"], ids["anonymous_id"], previous_id


def _name(kind: Kind, item: Item, properties: dict[str, Any]) -> str:
    """A track event's name; a page's or screen's, which RudderStack's mobile SDKs send as `event`."""
    if kind is _TRACK:
        return identifier(item.event) or ""
    if kind is not Kind.PAGE and kind is not Kind.SCREEN:
        return ""
    category = identifier(item.category)
    if category is not None:
        properties.setdefault("category", category)
    return identifier(item.name) or identifier(item.event) or identifier(properties.get("name")) or ""


def _over(shared: Mapping[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """The item's context over the batch's, objects such as `device` merged one level deep. The result
    and its objects belong to this event alone: they are taken apart next."""
    merged = {key: {**value} if type(value) is dict else value for key, value in shared.items()}
    for key, value in context.items():
        below = merged.get(key)
        merged[key] = {**below, **value} if type(value) is dict and type(below) is dict else value
    return merged


def _location(
    kind: Kind,
    name: str,
    properties: dict[str, Any],
    context: dict[str, Any],
    stated_at: datetime | None,
) -> Location | Refusal | None:
    """The fix in the properties of `Location Updated`, else in the context; removed from both."""
    location: Location | Refusal | None = None
    if kind is _TRACK and name == LOCATION_UPDATED and properties:
        location = read_location(properties, stated_at)
        if properties.keys() <= POSITION_FIELDS:
            properties.clear()
        else:
            for field in POSITION_FIELDS:
                properties.pop(field, None)
    fields = context.pop("location", None)
    if location is None and type(fields) is dict:
        location = read_location(fields, stated_at)
        if location is None:
            # No fix, but perhaps a city. Half a position is still not for the free-form part.
            rest = {key: value for key, value in fields.items() if key not in POSITION_FIELDS}
            if rest:
                context["location"] = rest
    return location


def _device(
    context: dict[str, Any], user_id: str | None, anonymous_id: str | None
) -> Device | Refusal | None:
    """The push address that the context states, taken out of it; None where it states none."""
    fields = context.get("device")
    permissions = context.get("permissions")
    if type(permissions) is not dict:
        permissions = None
    if type(fields) is not dict:
        if permissions is None:
            return None
        fields = {}
    device_id = identifier(fields.get("id"))
    token: str | msgspec.UnsetType | None = msgspec.UNSET
    if "token" in fields:
        # An empty token is what some SDKs send before the phone has one: it says nothing.
        sent = fields.pop("token")
        token = None if sent is None else identifier(sent) or msgspec.UNSET
    if device_id is None:
        if token is msgspec.UNSET and permissions is None:
            return None
        # A token without a device's id is kept with the person, rather than lost.
        device_id = f"anonymous:{anonymous_id}" if anonymous_id else f"user:{user_id}" if user_id else ""
    kind = fields.get("type")
    app = context.get("app")
    device = Device(
        id=device_id,
        type=kind.lower() if type(kind) is str and kind else None,
        token=token,
        provider=_word(context.pop("pushProvider")) if "pushProvider" in context else None,
        environment=_word(context.pop("pushEnvironment")) if "pushEnvironment" in context else None,
        app=identifier(app.get("namespace")) if type(app) is dict else None,
        permissions={}
        if permissions is None
        else {
            name: permissions[name] for name in PERMISSIONS if isinstance(permissions.get(name), str | bool)
        },
    )
    if permissions is not None:
        del context["permissions"]
    return _unsafe_address(device) or device


def _unsafe_address(device: Device) -> Refusal | None:
    """Ids, tokens and topics go into headers, paths and index keys of others."""
    token = device.token or ""  # absent and taken away are neither
    words = (
        device.id,
        token,
        device.type or "",
        device.provider or "",
        device.environment or "",
        device.app or "",
    )
    together = "".join(words)
    if len(together) <= ID_CHARACTERS_MAX and together.isprintable():
        return None
    for field, value, characters in (
        ("device.id", device.id, ID_CHARACTERS_MAX + len("anonymous:")),
        ("device.type", device.type, ID_CHARACTERS_MAX),
        ("device.token", device.token, TOKEN_CHARACTERS_MAX),
        ("pushProvider", device.provider, ID_CHARACTERS_MAX),
        ("pushEnvironment", device.environment, ID_CHARACTERS_MAX),
        ("app.namespace", device.app, ID_CHARACTERS_MAX),
    ):
        if type(value) is not str:
            continue
        if len(value) > characters:
            return too_long(field, characters)
        if not value.isprintable() and _CONTROL.search(value):
            return control_characters(field)
    return None


def _word(value: Any) -> str | None:
    return value.lower() if type(value) is str and value else None


def _traits(kind: Kind, own: Any, properties: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """The person's traits: the event's own over the context's. A group call's own traits are the
    group's, and become its properties."""
    traits = context.pop("traits", None)
    if type(traits) is not dict:
        traits = {}
    if type(own) is dict:
        (properties if kind is _GROUP else traits).update(own)
    return traits
