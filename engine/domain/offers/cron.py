"""Schedules in the five fields of cron, on a person's own clock: minute, hour, day of the month, month,
day of the week. Lists, ranges, steps and English names; of two restricted kinds of day either counts, as
cron has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, Mapping[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART: Final = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]+))?")
_YEARS: Final = 8
"""The 29th of February comes again within this, also around 2100."""


class CronError(ValueError):
    """It is no schedule; the text says which field is wrong."""


class Cron(msgspec.Struct, frozen=True):
    """When a clock on the wall must show what. Days of the week count from Sunday, 0."""

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool = False

    def is_day(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week


def parse(text: str) -> Cron:
    """Raises CronError for what is no schedule, or one that never comes."""
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        raise CronError(f"a schedule has five fields, minute hour day month weekday: this has {len(words)}")
    minutes, hours, days, months, weekdays = (
        _field(word, *field) for word, field in zip(words, _FIELDS, strict=True)
    )
    cron = Cron(
        text=" ".join(words),
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either_day=not words[2].startswith("*") and not words[4].startswith("*"),
    )
    if next_after(cron, datetime(2001, 1, 1, tzinfo=ZoneInfo("UTC"))) is None:
        raise CronError("this day never comes")
    return cron


def _field(text: str, what: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise CronError(f'"{part}" is no {what}')
        first, last, step = match.groups()
        if first == "*":
            start, end = low, high
        else:
            start = _number(first, what, low, high, names)
            end = _number(last, what, low, high, names) if last else (high if step else start)
        if end < start or (step is not None and int(step) == 0):
            raise CronError(f'"{part}" is no range of a {what}')
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, what: str, low: int, high: int, names: Mapping[str, int]) -> int:
    number = names.get(text, int(text) if text.isdigit() else -1)
    if not low <= number <= high:
        raise CronError(f'"{text}" is no {what}, {low} to {high}')
    return number


def next_after(cron: Cron, local: datetime) -> datetime | None:
    """The next time, UTC, strictly later. A time that is left out when clocks are put forward comes as
    much later; of one that comes twice the first counts."""
    now = local.astimezone(UTC)
    day = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
    last = day + timedelta(days=366 * _YEARS)
    minutes, hours = sorted(cron.minutes), sorted(cron.hours)
    while day <= last:
        if cron.is_day(day):
            for hour in hours:
                for minute in minutes:
                    found = day.replace(hour=hour, minute=minute, tzinfo=local.tzinfo).astimezone(UTC)
                    if found > now:
                        return found
        elif day.month not in cron.months:
            day = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
            continue
        day += timedelta(days=1)
    return None
