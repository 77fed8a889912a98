"""How fast and which way a person is going: by the way walked, or as the phone says.

A position every second is mostly noise: what is kept is a point each time that the phone has come
clearly away from the last one, with the length of the way so far. The mean speed over that way,
standing included, says better when a bus is there than its speed of this moment does.
"""

from __future__ import annotations

from math import cos, hypot, radians, sin
from typing import Final

import msgspec

from engine.domain.places.earth import METERS_PER_DEGREE_AT_LEAST
from engine.domain.places.fixes import Fix

STRIDE_METERS: Final = 20.0
STRIDE_SECONDS: Final = 10.0
"""Two waypoints are at least so far apart; farther where a fix is less accurate."""
LONGEST_MEMORY_SECONDS: Final = 180.0
SHORTEST_MEMORY_SECONDS: Final = 60.0
_RECENT_SECONDS: Final = 20.0
_RECENT_SHARE: Final = 0.4
"""How much of the speed is that of the last moments. Found by trial on a bus's track: with the mean
alone it is told too late after every stop, with the present speed alone too early before it."""
FASTEST_METERS_PER_SECOND: Final = 100.0
"""No way between two fixes: one of them was wrong, or it was a flight."""
STANDING_METERS_PER_SECOND: Final = 0.5
_SURE_HEADING_METERS_PER_SECOND: Final = 1.0
"""Phones give a heading to those who stand, too; it means nothing then."""


_METERS_PER_DEGREE: Final = 111_200.0


class Waypoint(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where the person came by: at the device's own time in seconds of the Unix epoch, after
    `along_meters` of way."""

    latitude: float
    longitude: float
    at: float
    along_meters: float

    def __repr__(self) -> str:
        return "Waypoint(…)"


Way = tuple[Waypoint, ...]
"""Oldest first."""


class Course(msgspec.Struct, frozen=True, gc=False):
    """Where somebody is heading: a point `north` and `east` degrees farther for each metre."""

    north: float
    east: float

    def __repr__(self) -> str:
        return "Course(…)"


def memory_seconds(ahead_seconds: float) -> float:
    """Over how long a way to look back in order to look so far ahead."""
    return min(max(2.0 * ahead_seconds, SHORTEST_MEMORY_SECONDS), LONGEST_MEMORY_SECONDS)


def _between(point: Waypoint, fix: Fix) -> float:
    """Metres on a flat map, good to half a percent over the ways of some minutes, in a third of the
    time of the exact one."""
    east = (fix.longitude - point.longitude + 180.0) % 360.0 - 180.0
    return _METERS_PER_DEGREE * hypot(fix.latitude - point.latitude, east * cos(radians(fix.latitude)))


def recent(way: Way, fix: Fix, memory: float) -> Way:
    """The way, unless nothing of it is younger than `memory` seconds."""
    return way if way and fix.at.timestamp() - way[-1].at <= memory else ()


def walked(way: Way, fix: Fix, memory: float) -> Way:
    """The `recent` way after one more good fix of the same device, as far as `memory` seconds look
    back."""
    at = fix.at.timestamp()
    if not way:
        return (Waypoint(fix.latitude, fix.longitude, at, 0.0),)
    last = way[-1]
    step = _between(last, fix)
    seconds = at - last.at
    if seconds <= 0.0 or step > FASTEST_METERS_PER_SECOND * seconds + 2 * fix.accuracy_meters:
        return (Waypoint(fix.latitude, fix.longitude, at, 0.0),)
    if seconds < STRIDE_SECONDS or step < max(STRIDE_METERS, fix.accuracy_meters):
        return way
    first = 0
    while first + 1 < len(way) and way[first + 1].at <= at - memory:
        first += 1
    return (*way[first:], Waypoint(fix.latitude, fix.longitude, at, round(last.along_meters + step, 1)))


def course(way: Way, fix: Fix) -> Course | None:
    """Which way the person is going at this fix; None for one who stands, or nobody knows."""
    if fix.speed is not None and fix.speed < STANDING_METERS_PER_SECOND:
        return None
    if fix.heading is not None and (fix.speed or 0.0) >= _SURE_HEADING_METERS_PER_SECOND:
        angle = radians(fix.heading)
        across = max(cos(radians(fix.latitude)), 1e-6)
        return Course(
            cos(angle) / METERS_PER_DEGREE_AT_LEAST, sin(angle) / (METERS_PER_DEGREE_AT_LEAST * across)
        )
    away = max(STRIDE_METERS, fix.accuracy_meters)
    for point in reversed(way):
        step = _between(point, fix)
        if step >= away:
            east = (fix.longitude - point.longitude + 180.0) % 360.0 - 180.0
            return Course((fix.latitude - point.latitude) / step, east / step)
    return None


def speed(way: Way, fix: Fix, memory: float) -> float:
    """Metres per second to reckon with: the mean over the way, and what the phone says now."""
    mean = _mean(way, fix, memory)
    if mean is not None:
        change = (_mean(way, fix, _RECENT_SECONDS) or 0.0) - mean
        if abs(change) * _RECENT_SECONDS > fix.accuracy_meters:  # else it may be noise
            mean += _RECENT_SHARE * change
    if fix.speed is None:
        return mean or 0.0
    return fix.speed if mean is None else (mean + fix.speed) / 2


def _mean(way: Way, fix: Fix, seconds: float) -> float | None:
    """The mean speed since the last waypoint that is so old, or the first one."""
    at = fix.at.timestamp()
    start = None
    for point in reversed(way):
        start = point
        if point.at <= at - seconds:
            break
    if start is None or at - start.at < 1.0:
        return None
    last = way[-1]
    step = _between(last, fix)
    return (last.along_meters - start.along_meters + step) / (at - start.at)
