"""How well approaches are told ahead: a real bus at its stops, and people who go steadily.

An approach is told in time where the person enters the geofence after it, within three times what
was asked; one that nobody enters by then is a false alarm. The lead is the time from being told
until presence says that they are inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import cos, exp, radians, sqrt
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

import msgspec
from rich.table import Table

from engine.domain.places.earth import METERS_PER_DEGREE_AT_LEAST
from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.interest import Interest, interest
from engine.domain.places.presence import SILENCE, Fix, Presence, Transition, step
from engine.domain.places.shapes import Circle
from engine.formats.geojson import Sizes, read_geojson
from engine.formats.gpx import read_gpx

ROOT: Final = Path(__file__).parents[1]
ASKED: Final = (30, 60, 90)
RADII: Final = (40.0, 100.0)
LATE: Final = 3
"""An enter later than so many times what was asked is none that was meant."""
START: Final = datetime(2026, 1, 12, 9, 0, tzinfo=UTC)
WALKS: Final = 40
STEADY: Final = {
    "walker": (1.4, 1.0),
    "walker, drifting fixes": (1.4, 3.0),
    "car": (13.0, 1.0),
    "car, drifting fixes": (13.0, 3.0),
}
"""Metres per second, and by how many metres the fixes are wrong."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How the approaches of one radius and one asked lead went. `lead` is the median of actual over
    asked, `near` the share between 0.8 and 1.2."""

    who: str
    radius_meters: float
    asked_seconds: int
    entered: int
    in_time: float
    lead: float
    near: float
    false_alarms: float


def measure() -> tuple[Told, ...]:
    """All figures, in a second or two."""
    bus = bus_fixes()
    found = [
        _told("bus", [_ride(bus, stops(radius), asked)], radius, asked) for radius in RADII for asked in ASKED
    ]
    for who, (speed, noise) in STEADY.items():
        for asked in ASKED:
            rides = [
                _ride(steady(speed, noise, asked, Random(seed)), [_SHOP], asked) for seed in range(WALKS)
            ]
            found.append(_told(who, rides, _RADIUS, asked))
    return tuple(found)


def bus_fixes() -> list[Fix]:
    """A phone on the 304 through Limerick. It was recorded without accuracy, speed and heading."""
    track = read_gpx((ROOT / "rules/tracks/bus-304.gpx").read_bytes(), "bus-304.gpx")
    return [
        Fix(latitude=f.latitude, longitude=f.longitude, at=f.time, received_at=f.time, sent_at=f.time)
        for f in track.fixes
    ]


def stops(radius: float) -> list[Fence]:
    """The 36 stops of the line."""
    data = (ROOT / "rules/places/bus-304-stops.geojson").read_bytes()
    found = read_geojson(data, "stops.geojson", Sizes(radius_meters=radius))
    return [Fence(feature.properties["stop_id"], feature.shape) for feature in found.features]


_RADIUS: Final = 60.0
_DRIFT_SECONDS: Final = 30.0
_SHOP: Final = Fence("shop", Circle(52.66, -8.63, _RADIUS))


def steady(speed: float, noise: float, asked: int, chance: Random) -> Iterator[Fix]:
    """Straight through the shop's circle at one speed from some direction, past its middle at up to
    half of its radius. A fix every 1 to 5 s, wrong by `noise` metres each way (one standard deviation)
    with an error that drifts over half a minute, as satellites' does."""
    turn = chance.uniform(0, 360)
    north, east = cos(radians(turn)), cos(radians(turn - 90))
    aside = chance.uniform(-_RADIUS / 2, _RADIUS / 2)
    along, seconds = -(_RADIUS + speed * (asked * 2.5 + 60)), 0.0
    across = cos(radians(52.66))
    wrong_north, wrong_east = chance.gauss(0, noise), chance.gauss(0, noise)
    while along < _RADIUS:
        y = along * north - aside * east + wrong_north
        x = along * east + aside * north + wrong_east
        at = START + timedelta(seconds=seconds)
        yield Fix(
            latitude=52.66 + y / METERS_PER_DEGREE_AT_LEAST,
            longitude=-8.63 + x / (METERS_PER_DEGREE_AT_LEAST * across),
            at=at,
            received_at=at,
            accuracy_meters=5.0,
        )
        pause = chance.uniform(1, 5)
        seconds += pause
        along += speed * pause
        stays = exp(-pause / _DRIFT_SECONDS)
        fresh = noise * sqrt(1 - stays * stays)
        wrong_north = wrong_north * stays + chance.gauss(0, fresh)
        wrong_east = wrong_east * stays + chance.gauss(0, fresh)


def _ride(fixes: Iterator[Fix] | Sequence[Fix], fences: Sequence[Fence], asked: int) -> list[Transition]:
    index: FenceIndex = build(fences)
    wanted: Interest = interest(index, (), [(fence.id, timedelta(seconds=asked)) for fence in fences])
    presence, found = Presence(), list[Transition]()
    for fix in fixes:
        moved = step(presence, fix, index, SILENCE, wanted)
        presence = moved.presence
        found += moved.transitions
    return found


def _told(who: str, rides: Sequence[Sequence[Transition]], radius: float, asked: int) -> Told:
    leads: list[float] = []
    entered = told = false = 0
    for ride in rides:
        enters = [t for t in ride if t.kind == "enter"]
        approaches = [t for t in ride if t.kind == "approach"]
        # The first fix inside is an enter that nobody could have told.
        entered += sum(1 for t in enters if t is not ride[0])
        told += len(approaches)
        for one in approaches:
            leads_to = [
                lead
                for t in enters
                if t.fence == one.fence and 0 < (lead := (t.at - one.at).total_seconds()) <= LATE * asked
            ]
            if leads_to:
                leads.append(min(leads_to) / asked)
            else:
                false += 1
    return Told(
        who=who,
        radius_meters=radius,
        asked_seconds=asked,
        entered=entered,
        in_time=len(leads) / entered,
        lead=median(leads),
        near=sum(0.8 <= lead <= 1.2 for lead in leads) / len(leads),
        false_alarms=false / told,
    )


def table(found: Sequence[Told]) -> Table:
    """A row for each who, radius and asked lead."""
    grid = Table(title="approaches told ahead", title_justify="left")
    for heading in ("who", "radius m", "asked s", "entered", "in time", "lead", "0.8 to 1.2", "false alarms"):
        grid.add_column(heading, justify="left" if heading == "who" else "right")
    for one in found:
        grid.add_row(
            one.who,
            f"{one.radius_meters:.0f}",
            str(one.asked_seconds),
            str(one.entered),
            f"{one.in_time:.0%}",
            f"{one.lead:.2f}",
            f"{one.near:.0%}",
            f"{one.false_alarms:.0%}",
        )
    return grid
