"""Times and durations in expressions: their texts, and their parts on somebody's clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from engine.domain.offers.cel_values import MAX_DURATION

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
SECOND: Final = timedelta(seconds=1)
UNITS: Final = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9,
    "h": 3_600 * 10**9, "d": 86_400 * 10**9,
}  # fmt: skip
PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
DURATION = re.compile(rf"([+-]?)((?:(?:{PART.pattern})+)|0)", re.ASCII)
TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
OFFSET = re.compile(r"([+-]?)([0-9]{1,2}):([0-9]{2})")


def duration_from(text: str) -> timedelta | None:
    """`90s`, `1h30m`, `1.5h`, `-10ms`; `7d` is 168 hours. Whole microseconds, cut towards zero."""
    found = DURATION.fullmatch(text) if len(text) <= 100 else None
    if found is None:
        return None
    nanoseconds = 0
    for amount, unit in PART.findall(found.group(2)):
        before, _, after = amount.partition(".")
        nanoseconds += int(before or "0") * UNITS[unit]
        nanoseconds += int(after or "0") * UNITS[unit] // 10 ** len(after)
    if nanoseconds > MAX_DURATION // SECOND * 10**9:
        return None
    span = timedelta(microseconds=nanoseconds // 1_000)
    return -span if found.group(1) == "-" else span


def timestamp_from(text: str) -> datetime | None:
    """An RFC 3339 time with its offset, as UTC."""
    found = TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, ahead_hours, ahead_minutes = found.groups()
    try:
        time = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second),
            int((fraction or "0").ljust(6, "0")[:6]), tzinfo=UTC,
        )  # fmt: skip
        if sign is None:
            return time
        if int(ahead_hours) > 23 or int(ahead_minutes) > 59:
            return None
        ahead = timedelta(hours=int(ahead_hours), minutes=int(ahead_minutes))
        return time - ahead if sign == "+" else time + ahead
    except (ValueError, OverflowError):
        return None


def timestamp_at(seconds: int) -> datetime | None:
    """The time that many seconds after 1970."""
    try:
        return EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None


def seconds_since_epoch(time: datetime) -> int | None:
    """Whole seconds since 1970, rounded down."""
    return (time - EPOCH) // SECOND if time.tzinfo is not None else None


def timestamp_text(time: datetime) -> str | None:
    """RFC 3339 in UTC, with a fraction only where there is one."""
    if time.tzinfo is None:
        return None
    utc = time.astimezone(UTC)
    return utc.replace(tzinfo=None, microsecond=0).isoformat() + _fraction(utc.microsecond) + "Z"


def duration_text(span: timedelta) -> str:
    """Seconds with an `s`, as in `5400s` or `-0.500s`."""
    microseconds = span // MICROSECOND
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    return f"{'-' if microseconds < 0 else ''}{seconds}{_fraction(rest)}s"


def _fraction(microseconds: int) -> str:
    if not microseconds:
        return ""
    return f".{microseconds // 1000:03}" if microseconds % 1000 == 0 else f".{microseconds:06}"


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo | None:
    """The time zone of a name (`Europe/Dublin`) or an offset (`+05:30`); None where there is none."""
    if found := OFFSET.fullmatch(name):
        hours, minutes = int(found.group(2)), int(found.group(3))
        if hours > 23 or minutes > 59:
            return None
        ahead = timedelta(hours=hours, minutes=minutes)
        return timezone(-ahead if found.group(1) == "-" else ahead)
    try:
        return ZoneInfo(name) if 0 < len(name) <= 64 else None
    except (ValueError, OSError, LookupError):
        return None


def _of_time(part: Callable[[datetime], int]) -> Callable[..., int | None]:
    def getter(time: Any, zone_name: Any = "UTC") -> int | None:
        if not isinstance(time, datetime) or time.tzinfo is None or not isinstance(zone_name, str):
            return None
        where = zone(zone_name)
        try:
            return part(time.astimezone(where)) if where is not None else None
        except (OverflowError, ValueError):
            return None

    return getter


def _of_both(
    part: Callable[[datetime], int], unit: timedelta, rest_of: timedelta | None = None
) -> Callable[..., int | None]:
    """A part of a time, or a duration counted in whole units (for milliseconds: past the second)."""
    of_time = _of_time(part)

    def getter(value: Any, *zone_name: Any) -> int | None:
        if not isinstance(value, timedelta):
            return of_time(value, *zone_name)
        if zone_name:
            return None
        size = abs(value) if rest_of is None else abs(value) % rest_of
        return -(size // unit) if value < timedelta() else size // unit

    return getter


GETTERS: Final[Mapping[str, Callable[..., int | None]]] = {
    "getFullYear": _of_time(lambda time: time.year),
    "getMonth": _of_time(lambda time: time.month - 1),
    "getDate": _of_time(lambda time: time.day),
    "getDayOfMonth": _of_time(lambda time: time.day - 1),
    "getDayOfWeek": _of_time(lambda time: time.isoweekday() % 7),
    "getDayOfYear": _of_time(lambda time: time.timetuple().tm_yday - 1),
    "getHours": _of_both(lambda time: time.hour, timedelta(hours=1)),
    "getMinutes": _of_both(lambda time: time.minute, timedelta(minutes=1)),
    "getSeconds": _of_both(lambda time: time.second, SECOND),
    "getMilliseconds": _of_both(lambda time: time.microsecond // 1000, timedelta(milliseconds=1), SECOND),
}
