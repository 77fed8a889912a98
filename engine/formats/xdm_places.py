"""`placeContext`: where somebody was, and the points of interest that their phone entered or left.

The position leaves the record, because it is coarsened to what the person allowed before it is kept.
How exact it was, XDM says only of a point of interest.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from engine.domain.people.events import Event, Location
from engine.domain.places.regions import ENTERED
from engine.formats.segment_event import identifier
from engine.formats.xdm_fields import at, number_at, object_at, text_at, with_field, without_field

_SCHEMA: Final = ("placeContext", "geo", "_schema")
_FIELDS: Final = (("latitude", "latitude"), ("longitude", "longitude"), ("elevation", "altitude"))
_ACCURACY: Final = Location(latitude=0.0, longitude=0.0).accuracy
_MEASURES: Final = {True: "poiEntries", False: "poiExits"}


def interaction(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_at(record, "placeContext", "POIinteraction")


def region(record: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that say which point was entered or left: its id in any of the places where the
    schemas had it, else its beacon as UUID:major:minor; and its name."""
    found: dict[str, Any] = {}
    for detail in _details(record):
        found["geofence"] = found.get("geofence") or identifier(at(detail, "poiID"))
        found["geofence"] = found["geofence"] or identifier(at(detail, "POIID"))
        found["name"] = found.get("name") or text_at(detail, "name")
    if found["geofence"] is None:
        found["geofence"] = next(filter(None, map(_beacon, _details(record))), None)
    return {name: value for name, value in found.items() if value is not None}


def _details(record: Mapping[str, Any]) -> list[Any]:
    told = interaction(record)
    return [detail for detail in (told.get("poiDetail"), told.get("POIDetail")) if detail] + [told]


def _beacon(detail: Any) -> str | None:
    told = at(detail, "beaconInteractionDetails")
    parts = [identifier(at(told, name)) for name in ("proximityUUID", "beaconMajor", "beaconMinor")]
    return ":".join(part for part in parts if part is not None) if all(parts) else None


def take_position(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The record without its position, and the position as `context.location` has it; None where there
    is none."""
    schema = object_at(record, *_SCHEMA)
    if schema.get("latitude") is None or schema.get("longitude") is None:
        return record, None
    position = {}
    for name, own in _FIELDS:
        if name in schema:
            position[own] = schema[name]
            record = without_field(record, (*_SCHEMA, name))
    accuracy = stated_accuracy(record)
    if accuracy is not None:
        position["accuracy"] = accuracy
    return record, position


def stated_accuracy(record: Mapping[str, Any]) -> float | None:
    """The radius of a position's error, metres."""
    for detail in _details(record):
        for name in ("deviceGeoAccuracy", "accuracy"):
            found = number_at(detail, "geoInteractionDetails", name)
            if found is not None and found >= 0:
                return found
    return None


def with_position(record: dict[str, Any], location: Location) -> dict[str, Any]:
    """The record with a position put where XDM has it."""
    for name, own in _FIELDS:
        if (value := getattr(location, own)) is not None:
            record = with_field(record, (*_SCHEMA, name), value)
    return record


def beside(record: Mapping[str, Any], location: Location, stated_at: datetime | None) -> dict[str, Any]:
    """What a position has that XDM cannot say, or says otherwise, in the words of `context.location`."""
    accuracy = stated_accuracy(record)
    found: dict[str, Any] = {
        "speed": location.speed,
        "heading": location.heading,
        "floor": location.floor,
        "isMock": location.is_mock or None,
    }
    if location.accuracy != (_ACCURACY if accuracy is None else accuracy):
        found["accuracy"] = location.accuracy
    if location.at is not None and location.at != stated_at:
        found["timestamp"] = location.at.isoformat()
    return {name: value for name, value in found.items() if value is not None}


def poi_of(event: Event) -> dict[str, Any]:
    """`placeContext.POIinteraction` of a region's event."""
    measure = _MEASURES[event.name == ENTERED]
    detail = {"poiID": identifier(event.properties.get("geofence")), "name": event.properties.get("name")}
    stated = {name: value for name, value in detail.items() if isinstance(value, str)}
    return {measure: {"value": 1}, **({"poiDetail": stated} if stated else {})}
