"""The time zone of a place, for people whose phone does not say in which one it is."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import tzfpy

_STEPS_PER_DEGREE: Final = 50
"""Asked for by squares of some 2 km: at a border the clock changes that much early or late."""


def zone_at(latitude: float, longitude: float) -> str:
    """The zone's name in the IANA database, "" where there is none."""
    return _zone_of(round(latitude * _STEPS_PER_DEGREE), round(longitude * _STEPS_PER_DEGREE))


@lru_cache(maxsize=65_536)
def _zone_of(north: int, east: int) -> str:
    return str(tzfpy.get_tz(east / _STEPS_PER_DEGREE, north / _STEPS_PER_DEGREE))
