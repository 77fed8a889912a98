"""Frequency caps and the person's clock. Rolling windows slide to the second; calendar ones
follow local midnight."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from engine.domain.offers.rules import Cap, During, QuietHours, Window
from engine.domain.people.profiles import Contact

ACCOUNT = "account"
"""Under which name an offer made keeps the account that it was made for, where that is counted."""
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@lru_cache(maxsize=1024)
def zone(name: str | None, default: str) -> ZoneInfo:
    """The named zone, or the default where there is none by that name."""
    if name:
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    return ZoneInfo(default)


def local_view(local: datetime) -> dict[str, Any]:
    """`local.*` of expressions."""
    text = local.isoformat()  # strftime takes five times as long
    return {
        "hour": local.hour,
        "weekday": WEEKDAYS[local.weekday()],
        "date": text[:10],
        "time": text[11:16],
    }


def window_start(window: Window, local: datetime) -> datetime:
    """Since when a window counts, at a moment on the person's clock. Exclusive for a rolling one
    (what is exactly that old has left it), inclusive for a calendar one."""
    if window.rolling is not None:
        return local.astimezone(UTC) - window.rolling
    midnight = datetime.combine(local.date(), time(0), local.tzinfo)
    if window.calendar == "week":
        midnight = datetime.combine(local.date() - timedelta(days=local.weekday()), time(0), local.tzinfo)
    elif window.calendar == "month":
        midnight = datetime.combine(local.date().replace(day=1), time(0), local.tzinfo)
    return midnight.astimezone(UTC)


def counted(contacts: Iterable[Contact], cap: Cap, local: datetime, rule: str | None, value: str = "") -> int:
    """How many offers the cap counts now; those of one rule where `rule` is given, and of one `value`
    where the cap counts those apart. What waits inside an app counts once it was shown."""
    start = window_start(cap.per, local)
    rolling = cap.per.rolling is not None
    return sum(
        1
        for c in contacts
        if (c.at > start if rolling else c.at >= start)
        and (rule is None or c.rule == rule)
        and (cap.channel is None or c.channel == cap.channel)
        and (cap.purpose is None or c.purpose == cap.purpose)
        and (cap.by is None or c.by.get(cap.by.text, "") == value)
        and (not cap.of_account or c.by.get(ACCOUNT, "") == value)
        and _came_to(c, cap)
    )


def _came_to(contact: Contact, cap: Cap) -> bool:
    if contact.uncounted:
        return False
    if contact.shown:
        return True
    if contact.channel == "in_app" or cap.count == "shown":
        return False
    return contact.delivered or cap.count == "offered"


def longest_window(caps: Iterable[Cap]) -> timedelta:
    """How far back any of the caps looks, at the most, on any engine's clock."""
    spans = [timedelta(days=1)]
    for cap in caps:
        calendar = {"day": 2, "week": 8, "month": 32}.get(cap.per.calendar or "", 1)
        spans.append(cap.per.rolling or timedelta(days=calendar))
    return max(spans) + timedelta(days=1)


def _is_between(clock: time, start: time, end: time) -> bool:
    if start <= end:
        return start <= clock < end
    return clock >= start or clock < end


def is_quiet(quiet: QuietHours, local: datetime) -> bool:
    """From `start` inclusive to `end` exclusive, on the person's clock."""
    return _is_between(local.time(), quiet.start, quiet.end)


def is_during(during: During, local: datetime) -> bool:
    """Whether a rule's hours include the moment. A span past midnight belongs to the day on which
    it began."""
    clock = local.time()
    whole_day = during.start == during.end
    if not whole_day and not _is_between(clock, during.start, during.end):
        return False
    began_yesterday = not whole_day and during.start > during.end and clock < during.end
    day = WEEKDAYS[(local.weekday() - began_yesterday) % 7]
    return not during.days or day in during.days
