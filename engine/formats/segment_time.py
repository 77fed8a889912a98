"""Times on the wire: text or numbers to aware UTC datetimes, and the correction of a device's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from engine.formats.segment_verdicts import Refusal, invalid_timestamp

_AGE_LEAST = -timedelta(hours=24)
"""An event may be this far ahead of its receipt."""
# Below this a number of seconds is before the year 5138, above it one of milliseconds after March 1973.
EPOCH_MILLISECONDS_FROM = 100_000_000_000
_LENGTH_MIN = len("2026-01-02T03:04:05")
_PUNCTUATION = frozenset(f"--{between}::" for between in "Tt ")
"""What stands at every third character of one, from the fifth on."""


class EventTime(msgspec.Struct, frozen=True, gc=False):
    """`at` is corrected and clamped, `stated` what the caller's own words mean, `text` those words."""

    at: datetime
    stated: datetime | None
    text: str | None


def parse_time(value: Any) -> datetime | None:
    """RFC 3339 text (any number of fractional digits, `T` or a space, no zone means UTC) or a number
    of epoch seconds or milliseconds, as UTC; None where it is neither."""
    if type(value) is not str:
        return _parse_epoch(value) if type(value) is int or type(value) is float else None
    # The guard excludes what fromisoformat knows beyond RFC 3339: bare dates, weeks, no dashes.
    if value[4:17:3] not in _PUNCTUATION or len(value) < _LENGTH_MIN:
        return None
    try:
        moment = datetime.fromisoformat(value if value[-1] != "z" else value[:-1] + "Z")
    except ValueError:
        return _parse_leap_second(value)
    zone = moment.tzinfo
    if zone is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if zone is None else moment.astimezone(UTC)
    except OverflowError:
        return None


def event_time(
    timestamp: Any,
    original_timestamp: Any,
    sent_at: datetime | None,
    received_at: datetime,
    retention: timedelta,
) -> EventTime | Refusal:
    """The time of an event by wire.md, "Time".

    `originalTimestamp` or, without one, `timestamp` is the device's clock and moves by its skew,
    `received_at - sent_at`; where both are present the caller set `timestamp`, which stands. Clamped
    to 24 h ahead of the receipt and `retention` behind it; the receipt's own time without any.
    """
    if timestamp == "":
        timestamp = None
    if original_timestamp == "":
        original_timestamp = None
    value = original_timestamp if timestamp is None else timestamp
    if value is None:
        return EventTime(received_at, None, None)
    stated = parse_time(value)
    if stated is None:
        return invalid_timestamp("originalTimestamp" if timestamp is None else "timestamp")
    if sent_at is None or (timestamp is not None and original_timestamp is not None):
        sent_at = received_at
    # Differences first: stated + (received - sent) could leave the calendar with a wild sentAt.
    age = sent_at - stated
    if age > retention:
        age = retention
    elif age < _AGE_LEAST:
        age = _AGE_LEAST
    return EventTime(received_at - age, stated, value if type(value) is str else str(value))


def _parse_leap_second(text: str) -> datetime | None:
    """`…:59:60` is valid RFC 3339 and unknown to Python: it counts as the second that follows."""
    if text[14:19] != "59:60":
        return None
    before = parse_time(f"{text[:17]}59{text[19:]}")
    try:
        return None if before is None else before + timedelta(seconds=1)
    except OverflowError:
        return None


def _parse_epoch(number: float) -> datetime | None:
    try:
        seconds = number / 1000 if abs(number) >= EPOCH_MILLISECONDS_FROM else number
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
