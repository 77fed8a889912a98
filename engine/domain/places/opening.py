"""When a place is open, on its own clock."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60

Span = tuple[int, int]
"""From (inclusive) to (exclusive), in minutes after midnight; past midnight the end is over 1440."""


class Opening(msgspec.Struct, frozen=True):
    """The hours of each weekday, Monday first, in the time zone of the place."""

    timezone: str
    days: tuple[tuple[Span, ...], ...]

    def is_open(self, at: datetime) -> bool:
        """Whether the place is open at an aware time."""
        local = at.astimezone(ZoneInfo(self.timezone))
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if any(start <= minute < end for start, end in self.days[today]):
            return True
        late = minute + DAY_MINUTES
        return any(start <= late < end for start, end in self.days[today - 1])
