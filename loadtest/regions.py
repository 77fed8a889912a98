"""The promise of `POST /v1/geofences`: people walk and drive at random, ask again only when they are
told to, and every place that they enter must be in their list when they do."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Final

import msgspec
from rich.table import Table

from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.shapes import Circle
from engine.domain.places.watching import Moving, Stake, Watch, watch
from loadtest import city

FENCES: Final = 5_000
PEOPLE: Final = 1_000
SLOTS: Final = 19
SECONDS: Final = 3_600
STEP_SECONDS: Final = 5
SIDE_METERS: Final = 10_000.0
LIVE_SHARE: Final = 0.6
DRIVING_SHARE: Final = 0.3
LEAD_SHARE: Final = 0.1
LEAD_SECONDS: Final = 90.0
_METERS_PER_DEGREE: Final = 111_195.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of places with a live rule; those not in the list, of which `crowded` at moments when
    more places were closer than the phone can move unnoticed than fit into the list, and `between` two
    fixes, the later of which was already past where the phone had to ask again; the requests
    of a person in an hour, and microseconds of each; metres until a refresh, on average; and how much
    of a list changes when the phone moves 10 m."""

    people: int
    enters: int
    missed: int
    crowded: int
    between: int
    kept_share: float
    requests_an_hour: float
    microseconds: float
    refresh_meters: float
    changed_by_10_meters: float


def simulate(people: int = PEOPLE, fences: int = FENCES, seconds: int = SECONDS, seed: int = 304) -> Report:
    """Everyone's hour."""
    chance = random.Random(seed)
    index = build(_places(chance, fences))
    stakes = {fence_id: _stake(chance) for fence_id in index.ids if chance.random() < LIVE_SHARE}
    enters = missed = crowded = between = asked = changed = listed = 0
    spent = meters = 0.0
    for _ in range(people):
        before: frozenset[str] | None = None
        good: tuple[float, float, float] | None = None
        told = Watch((), 0.0, 0)
        held: frozenset[str] = frozenset()
        for number, (east, north, speed) in enumerate(_walk(chance, seconds)):
            now = float(number * STEP_SECONDS)
            place = _at(east, north)
            around = frozenset(index.containing(*place)) & stakes.keys()
            entered = around - before if before is not None else frozenset()
            before = around
            enters += len(entered)
            good_still = (
                good is not None
                and math.hypot(east - good[0], north - good[1]) < told.refresh_radius
                and now < good[2] + told.refresh_after
            )
            unlisted = len(entered - held)
            missed += unlisted
            if told.crowded:
                crowded += unlisted
            elif not good_still:
                between += unlisted
            if good_still:
                continue
            started = time.process_time()
            told = _asked(index, place, speed, stakes)
            spent += time.process_time() - started
            held = frozenset(region.id for region in told.regions)
            beside = _asked(index, _at(east + 10, north), speed, stakes)
            changed += len(held - {region.id for region in beside.regions})
            listed += len(held)
            good = east, north, now
            asked += 1
            meters += told.refresh_radius
    return Report(
        people=people,
        enters=enters,
        missed=missed,
        crowded=crowded,
        between=between,
        kept_share=1 - missed / max(1, enters),
        requests_an_hour=asked / people * 3600 / seconds,
        microseconds=spent / asked * 1e6,
        refresh_meters=meters / asked,
        changed_by_10_meters=changed / max(1, listed),
    )


def _asked(index: FenceIndex, place: tuple[float, float], speed: float, stakes: dict[str, Stake]) -> Watch:
    return watch(index, Moving(*place, 10.0, speed), stakes.get, SLOTS)


def _stake(chance: random.Random) -> Stake:
    lead = LEAD_SECONDS if chance.random() < LEAD_SHARE else 0.0
    return Stake(True, False, False, 10 ** chance.uniform(-1, 1), lead)


def _places(chance: random.Random, count: int) -> Iterator[Fence]:
    for number in range(count):
        latitude, longitude = _at(chance.uniform(0, SIDE_METERS), chance.uniform(0, SIDE_METERS))
        yield Fence(f"shop-{number}", Circle(latitude, longitude, chance.uniform(30, 80)))


def _walk(chance: random.Random, seconds: int) -> Iterator[tuple[float, float, float]]:
    """Metres east and north of the city's corner, and metres a second, step by step."""
    east, north = chance.uniform(0, SIDE_METERS), chance.uniform(0, SIDE_METERS)
    heading = chance.uniform(0, 2 * math.pi)
    speed = chance.uniform(6, 14) if chance.random() < DRIVING_SHARE else chance.uniform(0.8, 1.8)
    for _ in range(seconds // STEP_SECONDS):
        heading += chance.gauss(0, 0.2)
        step = speed * STEP_SECONDS
        inside = (0 < east + step * math.sin(heading) < SIDE_METERS) and (
            0 < north + step * math.cos(heading) < SIDE_METERS
        )
        if not inside:
            heading += math.pi / 2
            continue
        east, north = east + step * math.sin(heading), north + step * math.cos(heading)
        yield east, north, speed


def _at(east: float, north: float) -> tuple[float, float]:
    half = SIDE_METERS / 2
    wide = _METERS_PER_DEGREE * math.cos(math.radians(city.LATITUDE))
    return city.LATITUDE + (north - half) / _METERS_PER_DEGREE, city.LONGITUDE + (east - half) / wide


def table(report: Report) -> Table:
    grid = Table(title=f"what {report.people:,} phones watch, {SLOTS} places each", title_justify="left")
    grid.add_column("what")
    grid.add_column("", justify="right")
    for what, value in (
        ("entries of places with a live rule", f"{report.enters:,}"),
        ("in the list when entered", f"{report.kept_share:.2%}"),
        ("missed", f"{report.missed:,}"),
        ("  of these where the list was too short", f"{report.crowded:,}"),
        ("  between two fixes, 5 s apart", f"{report.between:,}"),
        ("requests of a person in an hour", f"{report.requests_an_hour:.1f}"),
        ("metres to the next one", f"{report.refresh_meters:.0f}"),
        ("a request, µs", f"{report.microseconds:,.0f}"),
        ("of a list, changed by 10 m", f"{report.changed_by_10_meters:.1%}"),
    ):
        grid.add_row(what, value)
    return grid
