"""A fix on the wire to a `Location`, or the reason why it is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.domain.people.events import Location
from engine.formats.segment_time import parse_time
from engine.formats.segment_verdicts import (
    LATITUDE_OUT_OF_RANGE,
    LONGITUDE_OUT_OF_RANGE,
    Refusal,
    invalid_timestamp,
    not_a_number,
)

# What a fix consists of. An event's free-form parts must not keep it once it has become a Location,
# since positions are coarsened to the person's consent before they are stored.
POSITION_FIELDS = frozenset(
    ("latitude", "longitude", "accuracy", "altitude", "speed", "heading", "isMock", "timestamp")
)

# A phone's clock can say anything; within these years a difference of two fixes is always a timedelta
# that can be added to a date again.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def read_location(fields: Mapping[str, Any], stated_at: datetime | None) -> Location | Refusal | None:
    """The fix in `fields`; None unless latitude and longitude are both there.

    Numbers may come as text. A negative accuracy, speed or heading means "invalid" (iOS) and counts
    as absent. `at` is the fix's own `timestamp`, else `stated_at`, the event's time as the device
    stated it, so that fixes of one device are always compared by one clock.
    """
    latitude = fields.get("latitude")
    longitude = fields.get("longitude")
    if latitude is None or longitude is None or latitude == "" or longitude == "":
        return None
    if type(latitude) is not float:
        latitude = _number(latitude)
    if type(longitude) is not float:
        longitude = _number(longitude)
    # A comparison with NaN is false, so that "not within" finds what is no number, too.
    if not -90.0 <= latitude <= 90.0:
        return LATITUDE_OUT_OF_RANGE if math.isfinite(latitude) else not_a_number("latitude")
    if not -180.0 <= longitude <= 180.0:
        return LONGITUDE_OUT_OF_RANGE if math.isfinite(longitude) else not_a_number("longitude")

    accuracy, altitude = fields.get("accuracy"), fields.get("altitude")
    speed, heading = fields.get("speed"), fields.get("heading")
    if type(accuracy) is not float:
        accuracy = _optional(accuracy)
    if type(altitude) is not float:
        altitude = _optional(altitude)
    if type(speed) is not float:
        speed = _optional(speed)
    if heading is not None:
        heading = _optional(heading)
    # One look at all four: only their sum tells where one of them is no number.
    if not math.isfinite((accuracy or 0.0) + (altitude or 0.0) + (speed or 0.0) + (heading or 0.0)):
        for name, value in (
            ("accuracy", accuracy),
            ("altitude", altitude),
            ("speed", speed),
            ("heading", heading),
        ):
            if value is not None and not math.isfinite(value):
                return not_a_number(name)

    at = stated_at
    timestamp = fields.get("timestamp")
    if timestamp is not None and timestamp != "":
        at = parse_time(timestamp)
        if at is None:
            return invalid_timestamp("location.timestamp")
    if at is not None and not _EARLIEST <= at <= _LATEST:
        at = _EARLIEST if at < _EARLIEST else _LATEST
    return Location(
        latitude=latitude,
        longitude=longitude,
        accuracy=25.0 if accuracy is None or accuracy < 0 else accuracy,
        altitude=altitude,
        speed=None if speed is None or speed < 0 else speed,
        heading=None if heading is None or heading < 0 else heading % 360.0,
        floor=_floor(fields["floor"]) if "floor" in fields else None,
        is_mock=fields.get("isMock") in (True, "true"),
        at=at,
    )


def _floor(value: Any) -> int | None:
    """A storey; what is no whole number of one is no statement."""
    return value if type(value) is int and -100 <= value <= 1000 else None


def _optional(value: Any) -> float | None:
    if value is None or type(value) is float:
        return value
    return None if value == "" else _number(value)


def _number(value: Any) -> float:
    """`value` as a float; NaN where it is no number. Underscores are Python's, not a device's."""
    if type(value) is bool or not isinstance(value, int | float | str):
        return math.nan
    if isinstance(value, str) and "_" in value:
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
