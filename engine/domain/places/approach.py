"""Who is about to enter a geofence: by speed and heading, so many seconds ahead, once each time.

Only the fences that some rule wants to know this of cost anything. An approach is told once; the
next time after the person has been inside, or has moved away to twice the distance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from math import cos, radians
from typing import Final

from engine.domain.places.earth import METERS_PER_DEGREE_AT_LEAST
from engine.domain.places.fence_index import FenceIndex, build
from engine.domain.places.fixes import Fix
from engine.domain.places.motion import (
    STANDING_METERS_PER_SECOND,
    Course,
    Way,
    course,
    memory_seconds,
    speed,
)
from engine.domain.places.said_of_places import SaidOfPlaces

NARROWEST_COSINE: Final = cos(radians(35.0))
"""Heading for a fence: within this angle of the straight way to its edge."""
_PROBE_METERS: Final = 20.0
MOST_APPROACHED: Final = 256

Told = Mapping[str, Mapping[int, int]]
"""Fence id → seconds ahead → metres away, of the approaches told and not over."""
NOBODY: Final[Told] = {}


_STEPS_PER_DEGREE: Final = 100
"""Of the grid that fences are looked up in: a step is 1.1 km, eastwards less."""
_MOST_SQUARES: Final = 150
_FEW: Final = 30
"""More are measured faster all at once."""
MOST_APART: Final = 20_000
"""An index of so many, beside that of all fences, is soon built and small."""
_WIDE_METERS: Final = 500.0
_NORTHERNMOST: Final = 75.0
"""Beyond it, and for longer ways, the index is asked, which knows no poles and no date line."""


class Approaches:
    """The fences with an approach, in an index of their own, and how many whole seconds ahead each is
    to be told. Most fixes are near few of them: a grid finds those in a fifth of the index's time."""

    __slots__ = ("_is_shared", "_squares", "_wide", "asked", "index", "memory", "seconds")

    def __init__(
        self, index: FenceIndex, seconds: Mapping[str, tuple[int, ...]], most_apart: int = MOST_APART
    ) -> None:
        """`seconds`: by fence how long ahead, the longest first. More than `most_apart` are looked for in
        the index of all fences."""
        self.seconds = seconds
        if isinstance(seconds, SaidOfPlaces):
            self.asked = sorted(seconds.every())
        else:
            self.asked = sorted({span for spans in seconds.values() for span in spans})
        self.memory = memory_seconds(self.asked[-1])
        self._squares: dict[tuple[int, int], list[str]] = {}
        self._wide: list[str] = []
        fences = sorted(islice((fence for fence in seconds if fence in index), most_apart + 1))
        self._is_shared = len(fences) > most_apart
        if self._is_shared:
            self.index = index
            return
        self.index = build(index.fences[fence] for fence in fences)
        for fence in fences:
            edge = self.index.outlines[fence]
            if edge.reach_meters > _WIDE_METERS or abs(edge.latitude) > _NORTHERNMOST:
                self._wide.append(fence)
            else:
                square = (_square(edge.latitude), _square(edge.longitude))
                self._squares.setdefault(square, []).append(fence)

    def near(self, latitude: float, longitude: float, meters: float) -> Iterable[tuple[float, str]]:
        """The fences at most `meters` away, in any order, each with its distance."""
        if self._is_shared:
            return [
                found for found in self.index.near(latitude, longitude, meters) if found[1] in self.seconds
            ]
        north = (meters + _WIDE_METERS) / METERS_PER_DEGREE_AT_LEAST
        if abs(latitude) + north > _NORTHERNMOST or abs(longitude) + north * 4 > 180.0:
            return self.index.near(latitude, longitude, meters)
        east = north / cos(radians(abs(latitude) + north))
        rows = range(_square(latitude - north), _square(latitude + north) + 1)
        columns = range(_square(longitude - east), _square(longitude + east) + 1)
        if len(rows) * len(columns) > _MOST_SQUARES:
            return self.index.near(latitude, longitude, meters)
        squares = self._squares
        fences = list(self._wide)
        for row in rows:
            for column in columns:
                fences += squares.get((row, column), ())
        if len(fences) > _FEW:
            return self.index.near(latitude, longitude, meters)
        distance = self.index.distance_meters
        return [(away, fence) for fence in fences if (away := distance(fence, latitude, longitude)) <= meters]


def _square(degrees: float) -> int:
    return int(degrees * _STEPS_PER_DEGREE // 1)


def approaching(
    told: Told, way: Way, fix: Fix, gap_seconds: float, inside: Collection[str], approaches: Approaches
) -> tuple[Told, tuple[tuple[str, int], ...]]:
    """What is told of a good fix: fences with the seconds ahead, and what has now been told.

    `gap_seconds` is the time since the fix before: what falls due before the next one is told now
    rather than late.
    """
    left = _still_told(told, fix, inside, approaches) if told else told
    heading = course(way, fix)
    if heading is None:
        return left, ()
    # How far somebody comes in the time that is asked for, and until half way to the next fix.
    reaches = {
        seconds: pace * (seconds + max(0.0, min(gap_seconds, 0.5 * seconds) / 2 - 0.1 * seconds))
        for seconds in approaches.asked
        if (pace := speed(way, fix, memory_seconds(seconds))) >= STANDING_METERS_PER_SECOND
    }
    reach = max(reaches.values(), default=0.0)
    # Presence says so when they are inside by half the accuracy.
    into = fix.accuracy_meters / 2
    index = approaches.index
    found: list[tuple[str, int]] = []
    for away, fence in approaches.near(fix.latitude, fix.longitude, reach) if reach > into else ():
        if away <= 0.0 or fence in inside:
            continue
        known = left.get(fence, {})
        due = [
            seconds
            for seconds in approaches.seconds[fence]
            if away <= reaches.get(seconds, 0.0) - into and seconds not in known
        ]
        if due and len(left) < MOST_APPROACHED and _is_ahead(fence, away, heading, fix, index):
            found += [(fence, seconds) for seconds in due]
            left = {**left, fence: {**known, **dict.fromkeys(due, round(away))}}
    return left, tuple(found)


def _is_ahead(fence: str, away: float, heading: Course, fix: Fix, index: FenceIndex) -> bool:
    """Whether a few steps on bring the person nearer by nearly as much."""
    step = min(_PROBE_METERS, away)
    north = max(-90.0, min(90.0, fix.latitude + heading.north * step))
    east = (fix.longitude + heading.east * step + 180.0) % 360.0 - 180.0
    return (away - index.distance_meters(fence, north, east)) / step >= NARROWEST_COSINE


def _still_told(told: Told, fix: Fix, inside: Collection[str], approaches: Approaches) -> Told:
    """Without those that the person has been inside of since, or that are twice as far now."""
    left: dict[str, Mapping[int, int]] = {}
    for fence, spans in told.items():
        wanted = approaches.seconds.get(fence)
        if wanted is None or fence in inside:
            continue
        away = approaches.index.distance_meters(fence, fix.latitude, fix.longitude)
        kept = {
            seconds: meters
            for seconds, meters in spans.items()
            if seconds in wanted and away <= 2 * max(meters, fix.accuracy_meters)
        }
        if kept:
            left[fence] = kept
    return left
