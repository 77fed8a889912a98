"""When the sun rises and sets: the almanac's equations, good to about a minute where people live.

After the NOAA Global Monitoring Laboratory's "General Solar Position Calculations"
(https://gml.noaa.gov/grad/solcalc/solareqns.PDF): fractional year, equation of time, declination, and
the hour angle of a zenith of 90.833° (refraction, and the sun's radius).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import acos, cos, degrees, pi, radians, sin, tan
from typing import Final

import msgspec

_ZENITH: Final = radians(90.833)
_DAY: Final = timedelta(days=1)


class Daylight(msgspec.Struct, frozen=True):
    """Of the solar day around a moment: when it begins and ends (None where the sun stays up, or
    down), and whether the sun is up at that moment."""

    sunrise: datetime | None
    sunset: datetime | None
    is_day: bool


def daylight(latitude: float, longitude: float, at: datetime) -> Daylight:
    """Degrees, and an aware moment."""
    local = (at.astimezone(UTC) + timedelta(minutes=4 * longitude)).replace(tzinfo=None)
    noon = datetime(local.year, local.month, local.day, 12)
    year = 2 * pi / 365 * (noon.timetuple().tm_yday - 1)
    minutes = 229.18 * (
        0.000075
        + 0.001868 * cos(year)
        - 0.032077 * sin(year)
        - 0.014615 * cos(2 * year)
        - 0.040849 * sin(2 * year)
    )
    declination = (
        0.006918
        - 0.399912 * cos(year)
        + 0.070257 * sin(year)
        - 0.006758 * cos(2 * year)
        + 0.000907 * sin(2 * year)
        - 0.002697 * cos(3 * year)
        + 0.00148 * sin(3 * year)
    )
    phi = radians(max(-89.99, min(89.99, latitude)))
    hour = cos(_ZENITH) / (cos(phi) * cos(declination)) - tan(phi) * tan(declination)
    if not -1.0 <= hour <= 1.0:
        return Daylight(None, None, hour < -1.0)
    half = timedelta(minutes=4 * degrees(acos(hour)))
    middle = noon.replace(tzinfo=UTC) - timedelta(minutes=4 * longitude + minutes)
    return Daylight(middle - half, middle + half, middle - half <= at < middle + half)
