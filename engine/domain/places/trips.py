"""Persons on their way to a known place: how long they will still be, from fix to fix.

The way is the straight one, and a fifth more of what lies beyond the last 500 m: streets wind. The
pace is the mean over the way walked of late, standing included; who stands keeps the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.domain.places.fixes import Fix
from engine.domain.places.motion import STANDING_METERS_PER_SECOND, Way, speed

STRAIGHT_METERS: Final = 500.0
WINDING: Final = 1.2
PACE_SECONDS: Final = 120.0
"""Over how long the pace is the mean."""
NEARER_METERS: Final = 20.0
"""Who came nearer by so much since the fix before last is coming."""
MOST_TRIPS: Final = 20


class Trip(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One person's way to `fence`. `kept` are the properties of the event that it began with. `pace`
    is in metres per second and `meters` the distance at the last fix, both None before the first;
    `farthest` the distance from which they come nearer. `told`: the seconds of the arrivings told.
    """

    name: str
    fence: str
    started_at: datetime
    kept: Mapping[str, Any] = {}
    pace: float | None = None
    meters: float | None = None
    farthest: float | None = None
    at: datetime | None = None
    told: tuple[int, ...] = ()
    arrived: bool = False

    @property
    def eta_seconds(self) -> float | None:
        """How long from the last fix on; None where nobody knows."""
        if self.arrived:
            return 0.0
        if self.meters is None or self.pace is None:
            return None
        beyond = max(0.0, self.meters - STRAIGHT_METERS)
        return (self.meters + (WINDING - 1.0) * beyond) / self.pace

    def __repr__(self) -> str:
        return f"Trip({self.name!r})"


Trips = Mapping[str, Trip]
"""By the plan's name and the value that tells several of one person apart."""


def trip_key(name: str, value: str) -> str:
    return f"{name}\n{value}"


def advanced(trip: Trip, fix: Fix, when: datetime, way: Way, meters: float) -> Trip:
    """The trip after a good fix, `meters` away from the place."""
    pace = speed(way, fix, PACE_SECONDS)
    meters = max(0.0, meters)
    farthest = max(meters, trip.farthest if trip.farthest is not None else meters)
    if trip.meters is not None and meters > trip.meters + NEARER_METERS:
        farthest = meters  # they went off, and may come again
    return msgspec.structs.replace(
        trip,
        pace=round(pace, 2) if pace >= STANDING_METERS_PER_SECOND else trip.pace,
        meters=round(meters, 1),
        farthest=round(farthest, 1),
        at=when,
    )


def unplaced(trips: Trips) -> Trips:
    """The trips without how far they have come: nobody may know that any more."""
    return {
        key: msgspec.structs.replace(trip, pace=None, meters=None, farthest=None, at=None)
        for key, trip in trips.items()
    }


def is_coming(trip: Trip) -> bool:
    """Whether they have come nearer since they were farthest."""
    if trip.meters is None or trip.farthest is None:
        return False
    return trip.farthest - trip.meters >= NEARER_METERS


def view(trip: Trip) -> dict[str, Any]:
    """`trip.*` of expressions and messages: the properties of the event that it began with, and how
    far it has come. What is unknown is left out."""
    found: dict[str, Any] = {
        **trip.kept,
        "name": trip.name,
        "to": trip.fence,
        "started_at": trip.started_at,
    }
    eta = trip.eta_seconds
    if eta is not None:
        found["eta_seconds"] = round(eta)
    if trip.meters is not None:
        found["meters"] = round(trip.meters)
    return found
