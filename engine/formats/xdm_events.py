"""An XDM ExperienceEvent to an event, and back.

What the engine has a word for is read into it: who, when, where, consent, and, for Segment's names, the
properties that rules know. All fields stay in the properties under their own names, so that rules can
read `event.properties.web.webPageDetails.name`, and everything comes out again as it went in. What else
is needed for that stands in `context.xdm`.

An event that came by another protocol has its own words under `_viewfinder`, and what XDM has fields for
in those as well; read again, `_viewfinder` says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from engine.domain.offers.rules import Namespace, Purpose
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.identity import keys_of
from engine.domain.people.profiles import IdentityKey
from engine.formats import xdm_commerce, xdm_consents, xdm_identities, xdm_places
from engine.formats.segment_body import Item
from engine.formats.segment_event import message_identifier
from engine.formats.segment_time import parse_time
from engine.formats.xdm_fields import at, object_at, text_at, with_field
from engine.formats.xdm_names import OWN
from engine.formats.xdm_types import measure_of, named, type_of

LIBRARY: Final = {"name": "xdm"}
"""What `context.library` says of an event that came as XDM."""
_KINDS: Final = {kind.value: kind for kind in Kind}
_LOCATION: Final = {"ALWAYS_ALLOWED": "always", "FOREGROUND_ALLOWED": "when_in_use", "NOT_ALLOWED": "denied"}
_GEOFENCE: Final = frozenset(("Geofence Entered", "Geofence Exited"))
_ADDRESS: Final = ("id", "type", "token")
_BESIDE: Final = (
    ("provider", "pushProvider"),
    ("environment", "pushEnvironment"),
    ("permissions", "permissions"),
)
"""What an address has, and where a context has it."""


def read(
    record: dict[str, Any],
    who: xdm_identities.Named,
    purposes: Mapping[str, Purpose],
    spelling: Mapping[str, Any],
) -> tuple[Item, Kind, dict[str, Any]]:
    """The item, the kind and the times of consent that a plain record states; `spelling` is how its
    names were spelt. Takes `record` over."""
    own = record.pop(OWN, None)
    item = Item(user_id=who.user_id, anonymous_id=who.anonymous_id)
    item.timestamp = record.pop("timestamp", None)
    item.message_id = record.pop("_id", None)
    kind = _KINDS.get(at(own, "type") or "") if isinstance(at(own, "type"), str) else None
    record, position = xdm_places.take_position(record)
    if kind is not None:
        return _own_words(item, own, position), kind, {}
    event_type = record.pop("eventType", None)
    kind, item.event = named(event_type, record)
    item.name = item.event
    kept = dict(spelling)
    if event_type is not None:
        kept["eventType"] = event_type
    if message_identifier(item.message_id) != item.message_id:
        kept["_id"] = item.message_id
    if (identity_map := record.pop("identityMap", None)) is not None:
        kept["identityMap"] = identity_map
    if isinstance(own, dict):
        if position is not None:
            position.update(object_at(own, "location"))
            own = {name: value for name, value in own.items() if name != "location"}
        if own:
            record[OWN] = own
    consent, when = xdm_consents.statements(record.get("consents"), purposes)
    told = _properties(kind, item.event, record)
    derived = [name for name in told if name not in record]
    if derived:
        kept["derived"] = derived
    item.properties = {**told, **record}
    item.traits = {}
    share = xdm_consents.share_denied(record.get("consents"))
    if share is not None:
        item.traits[xdm_consents.DO_NOT_SELL] = share
    item.context = {"library": LIBRARY, "xdm": kept, **_context(record)}
    if position is not None:
        item.context["location"] = position
    if consent:
        item.context["consent"] = {"categoryPreferences": consent}
    return item, kind, when


def written(
    event: Event, namespaces: Sequence[Namespace], known: Sequence[IdentityKey] = ()
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The plain record of an event, and how its names are to be spelt. `known` are the names of the
    person, for what the engine says of them itself."""
    kept = event.context.get("xdm")
    if event.context.get("library") != LIBRARY or not isinstance(kept, Mapping):
        return _from_own_words(event, namespaces, known), {}
    derived = kept.get("derived")
    hidden = derived if isinstance(derived, list) else []
    record = {name: value for name, value in event.properties.items() if name not in hidden}
    stated = parse_time(event.raw_timestamp)
    if event.location is not None:
        beside = xdm_places.beside(record, event.location, stated)
        record = xdm_places.with_position(record, event.location)
        if beside:
            record[OWN] = {**object_at(record, OWN), "location": beside}
    if "eventType" in kept:
        record["eventType"] = kept["eventType"]
    record["identityMap"] = kept.get("identityMap")
    if record["identityMap"] is None:
        record["identityMap"] = xdm_identities.written(keys_of(event, namespaces), None, namespaces)
    record["_id"] = kept.get("_id", event.message_id)
    record["timestamp"] = event.raw_timestamp or event.timestamp.isoformat()
    return record, {name: kept[name] for name in ("names", "odd") if name in kept}


def _properties(kind: Kind, name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What rules know events of this name by."""
    if kind is Kind.PAGE:
        details = object_at(record, "web", "webPageDetails")
        told = {
            "url": text_at(details, "URL"),
            "referrer": text_at(record, "web", "webReferrer", "URL"),
            "category": text_at(details, "siteSection"),
        }
        return {key: value for key, value in told.items() if value is not None}
    if name in _GEOFENCE:
        return xdm_places.region(record)
    if name == "Push Notification Tapped":
        decision = text_at(record, "pushNotificationTracking", "pushProviderMessageID")
        return {"decision": decision} if decision else {}
    if "commerce" in record or "productListItems" in record:
        return xdm_commerce.properties(name, record)
    return {}


def _context(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the engine knows of a phone: its clock, its language, and what its owner permits."""
    found: dict[str, Any] = {}
    if zone := text_at(record, "placeContext", "ianaTimezone"):
        found["timezone"] = zone
    if language := text_at(record, "environment", "_dc", "language"):
        found["locale"] = language
    permissions: dict[str, Any] = {}
    location = _LOCATION.get(text_at(record, "device", "locationPermission") or "")
    if location is not None:
        permissions["location"] = location
    push = at(record, "device", "isPushOptIn")
    if isinstance(push, bool):
        permissions["push"] = "granted" if push else "denied"
    if permissions:
        found["permissions"] = permissions
    return found


def _own_words(item: Item, own: Mapping[str, Any], position: dict[str, Any] | None) -> Item:
    """An event as it was before it was told as XDM."""
    item.event = item.name = own.get("name")
    item.group_id, item.previous_id = own.get("groupId"), own.get("previousId")
    item.properties = dict(object_at(own, "properties"))
    item.context = dict(object_at(own, "context"))
    item.context["traits"] = dict(object_at(own, "traits"))
    told = object_at(own, "device")
    address = {name: told[name] for name in _ADDRESS if name in told}
    if address:
        item.context["device"] = object_at(item.context, "device") | address
    for name, outside in _BESIDE:
        if told.get(name):
            item.context[outside] = told[name]
    if position is not None:
        item.context["location"] = {**position, **object_at(own, "location")}
    if consent := object_at(own, "consent"):
        stated = dict(object_at(item.context, "consent"))
        item.context["consent"] = {**stated, "categoryPreferences": dict(consent)}
    return item


def _from_own_words(
    event: Event, namespaces: Sequence[Namespace], known: Sequence[IdentityKey]
) -> dict[str, Any]:
    """An event of another protocol, in XDM's fields where it has them, and whole in its own words."""
    own: dict[str, Any] = {
        "type": event.kind.value,
        "name": event.name or None,
        "groupId": event.group_id,
        "previousId": event.previous_id,
        "properties": event.properties or None,
        "traits": event.traits or None,
        "context": event.context or None,
        "consent": event.consent or None,
        "device": _address(event) or None,
        "sender": event.sender.value if event.sender is not Sender.CLIENT else None,
    }
    event_type = type_of(event)
    record: dict[str, Any] = {
        "_id": event.message_id,
        "timestamp": event.timestamp.isoformat(),
        "eventType": event_type,
    }
    keys = keys_of(event, namespaces) or known
    if keys:
        record["identityMap"] = xdm_identities.written(keys, None, namespaces)
    record |= xdm_commerce.fields(event)
    measure = measure_of(event_type)
    if measure is not None and measure[0] != "commerce":
        record = with_field(record, measure, {"value": 1})
    if event.kind is Kind.PAGE:
        for path, value in (
            (("web", "webPageDetails", "name"), event.name or None),
            (("web", "webPageDetails", "URL"), text_at(event.properties, "url")),
            (("web", "webReferrer", "URL"), text_at(event.properties, "referrer")),
        ):
            if value is not None:
                record = with_field(record, path, value)
    if event.kind is Kind.TRACK and event.name in _GEOFENCE:
        record = with_field(record, ("placeContext", "POIinteraction"), xdm_places.poi_of(event))
    if zone := text_at(event.context, "timezone"):
        record = with_field(record, ("placeContext", "ianaTimezone"), zone)
    if event.location is not None:
        own["location"] = xdm_places.beside(record, event.location, event.timestamp) or None
        record = xdm_places.with_position(record, event.location)
    own = {name: value for name, value in own.items() if value is not None}
    record[OWN] = msgspec.to_builtins(own)
    return record


def _address(event: Event) -> dict[str, Any]:
    """What the context does not say of the device any more."""
    if event.device is None:
        return {}
    found: dict[str, Any] = msgspec.to_builtins(event.device)
    if "device" in event.context or event.device.id.startswith(("anonymous:", "user:")):
        del found["id"]
        found.pop("type", None)
    return found
