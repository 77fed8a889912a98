"""Times on the wire: text or numbers to aware UTC datetimes, and the correction of a device's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from engine.formats.segment_verdicts import Refusal, invalid_timestamp

AHEAD_MAX = timedelta(hours=24)
# Below this a number of seconds is before the year 5138, above it one of milliseconds after March 1973.
EPOCH_MILLISECONDS_FROM = 100_000_000_000
_DATE_LENGTH_MIN = len("2026-01-02T03:04:05")


class EventTime(msgspec.Struct, frozen=True, gc=False):
    """`at` is corrected and clamped, `stated` what the caller's own words mean, `text` those words."""

    at: datetime
    stated: datetime | None
    text: str | None


def parse_time(value: Any) -> datetime | None:
    """RFC 3339 text (any number of fractional digits, `T` or a space, no zone means UTC) or a number
    of epoch seconds or milliseconds, as UTC; None where it is neither."""
    if type(value) is str:
        return _parse_text(value)
    if type(value) is int or type(value) is float:
        return _parse_epoch(value)
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
    has_original = original_timestamp is not None and original_timestamp != ""
    has_timestamp = timestamp is not None and timestamp != ""
    if not has_original and not has_timestamp:
        return EventTime(received_at, None, None)
    value = timestamp if has_timestamp else original_timestamp
    stated = parse_time(value)
    if stated is None:
        return invalid_timestamp("timestamp" if has_timestamp else "originalTimestamp")
    at = stated
    if sent_at is not None and not (has_original and has_timestamp):
        # Differences first: stated + (received - sent) could leave the calendar with a wild sentAt.
        age = sent_at - stated
        if age < -AHEAD_MAX:
            at = received_at + AHEAD_MAX
        elif age > retention:
            at = received_at - retention
        else:
            at = received_at - age
    oldest, newest = received_at - retention, received_at + AHEAD_MAX
    at = oldest if at < oldest else newest if at > newest else at
    return EventTime(at, stated, value if type(value) is str else str(value))


def _parse_text(text: str) -> datetime | None:
    # The guard excludes what fromisoformat knows beyond RFC 3339: bare dates, weeks, no dashes.
    if len(text) < _DATE_LENGTH_MIN or text[4] != "-" or text[7] != "-" or text[10] not in "Tt ":
        return None
    if text[13] != ":" or text[16] != ":":
        return None
    if text[-1] == "z":
        text = text[:-1] + "Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _parse_leap_second(text)
    zone = moment.tzinfo
    if zone is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if zone is None else moment.astimezone(UTC)
    except OverflowError:
        return None


def _parse_leap_second(text: str) -> datetime | None:
    """`…:59:60` is valid RFC 3339 and unknown to Python: it counts as the second that follows."""
    if text[14:19] != "59:60":
        return None
    before = _parse_text(f"{text[:17]}59{text[19:]}")
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
