"""Which places a phone should watch itself, when it can watch only a few.

A phone wakes its app when it enters or leaves one of 19 or 99 circles. Those nearest to it are
chosen, and of those equally near the ones worth most; the answer tells how far the phone may move
before it must ask again, so that it cannot come to a place that is not in its list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, sqrt
from typing import Final

import h3.api.basic_int as h3
import msgspec

from engine.domain.places.fence_index import FenceIndex

SMALLEST_RADIUS_METERS: Final = 100.0
"""Phones' own positions are no better in the background: smaller circles are missed."""
DEFAULT_LIMITS: Final = {"ios": 19, "android": 99}
"""iOS watches 20 regions, Android 100; one is left for the circle around the phone itself.
https://developer.apple.com/documentation/corelocation/monitoring-the-user-s-proximity-to-geographic-regions
https://developer.android.com/develop/sensors-and-location/location/geofencing"""
DELAY_SECONDS: Final = {"ios": 180.0, "android": 120.0}
"""How late phones tell of a region entered: iOS within 3 to 5 minutes on average, Android within some
two. https://developer.apple.com/documentation/corelocation/cllocationmanager/startmonitoring(for:)
https://developer.android.com/develop/sensors-and-location/location/battery"""
WALKING_METERS_PER_SECOND: Final = 1.5
DRIVING_METERS_PER_SECOND: Final = 14.0
_DRIVES_FROM: Final = 4.0
_ASK_SECONDS: Final = 10.0
"""How long asking again takes, from the moment at which the phone has moved far enough."""
SHORTEST_REFRESH_METERS: Final = 60.0
SHORTEST_REFRESH_SECONDS: Final = 10.0
REFRESH_SECONDS: Final = (60, 3600)
"""How soon at the soonest, and at the latest: rules and people change, too."""

_CLOSE_METERS: Final = 250.0
"""What is closer than this comes first, whatever it is worth: otherwise the phone would soon have to
ask again."""
_LEAD_SHARE: Final = 0.5
"""How much of its lead makes a place with an approach count as nearer. Not all of it: most of the
places around are not those that the person is heading for."""
_FIRST_SEARCH_METERS: Final = 500.0
_LAST_SEARCH_METERS: Final = 64_000.0
_SNAP_LEVEL: Final = 10
_LEAST_PULL: Final = 0.8
_MOST_PULL: Final = 1.25
"""How many times nearer its worth makes a place count."""


class Stake(msgspec.Struct, frozen=True):
    """What is to be had at a place for one person: on entering, on leaving, by staying; the value of
    the best in money, None where none is known; how long before entering it is told, 0 for not; and
    whether somebody waits there for this very person, who is on the way."""

    on_enter: bool
    on_exit: bool
    on_dwell: bool
    value: float | None = None
    lead_seconds: float = 0.0
    is_awaited: bool = False


class Region(msgspec.Struct, frozen=True):
    """A circle to watch; `id` is the place's."""

    id: str
    latitude: float
    longitude: float
    radius: float
    on_enter: bool
    on_exit: bool
    on_dwell: bool

    def __repr__(self) -> str:
        return f"Region({self.id!r})"


class Watch(msgspec.Struct, frozen=True):
    """The circles, nearest first, and until when they are good: within `refresh_radius` metres of the
    position asked from, for `refresh_after` seconds. `crowded` places would have to be in the list,
    too, but it was full."""

    regions: tuple[Region, ...]
    refresh_radius: float
    refresh_after: int
    crowded: int = 0


class Moving(msgspec.Struct, frozen=True):
    """The phone: where it is, how exactly it knows, how fast it is (None: not known), and how late
    it tells of regions."""

    latitude: float
    longitude: float
    accuracy_meters: float = 25.0
    speed: float | None = None
    delay_seconds: float = 180.0

    def __repr__(self) -> str:
        return "Moving(…)"

    @property
    def meters_per_second(self) -> float:
        """The speed to reckon with: no slower than somebody who walks, or drives once they drive."""
        speed = self.speed or 0.0
        return max(speed, DRIVING_METERS_PER_SECOND if speed > _DRIVES_FROM else WALKING_METERS_PER_SECOND)


class _Choice(msgspec.Struct, frozen=True):
    """A place in question: its circle; the way to its edge, from the phone and from the middle of the
    phone's cell; and what that counts as."""

    region: Region
    gap: float
    away: float
    counted: float
    is_awaited: bool
    is_widened: bool


def watch(
    index: FenceIndex,
    phone: Moving,
    stake_of: Callable[[str], Stake | None],
    limit: int,
    awaited: Iterable[str] = (),
) -> Watch:
    """The best regions for one person. `stake_of` says what is to be had at a place, None for
    nothing; the places `awaited` come first, however far they are."""
    speed = phone.meters_per_second
    choices, horizon = _choices(index, phone, stake_of, limit, awaited)
    chosen, left = choices[:limit], choices[limit:]
    # Within a circle that an approach widened, the place itself is to be watched: asked again before it.
    ahead = [one.gap for one in chosen if one.is_widened]
    safe = min([horizon, *ahead, *(one.gap for one in left)])
    shortest = max(SHORTEST_REFRESH_METERS, SHORTEST_REFRESH_SECONDS * speed)
    radius = max(shortest, safe - phone.accuracy_meters - _ASK_SECONDS * speed)
    soonest, latest = REFRESH_SECONDS
    return Watch(
        regions=tuple(one.region for one in sorted(chosen, key=lambda one: (one.away, one.region.id))),
        refresh_radius=radius,
        refresh_after=round(min(latest, max(soonest, radius / speed))),
        crowded=sum(one.gap < radius for one in left),
    )


def _choices(
    index: FenceIndex,
    phone: Moving,
    stake_of: Callable[[str], Stake | None],
    limit: int,
    awaited: Iterable[str],
) -> tuple[list[_Choice], float]:
    """Places worth watching, best first, and how far around the phone all of them are among these:
    the search reaches farther until there are more than can be watched."""
    meters = _FIRST_SEARCH_METERS
    while True:
        found = [
            (fence_id, distance, stake)
            for distance, fence_id in index.near(phone.latitude, phone.longitude, meters)
            if (stake := stake_of(fence_id)) is not None
        ]
        if len(found) > 2 * limit or meters >= _LAST_SEARCH_METERS:
            break
        meters *= 2
    near = {fence_id for fence_id, _, _ in found}
    for fence_id in awaited:
        if fence_id in index and fence_id not in near and (stake := stake_of(fence_id)) is not None:
            away = index.distance_meters(fence_id, phone.latitude, phone.longitude)
            found.append((fence_id, away, stake))
    values = sorted(stake.value for _, _, stake in found if stake.value is not None)
    usual = values[len(values) // 2] if values else 0.0
    # Ranked from the middle of a cell, so that small moves change nothing.
    home = h3.cell_to_latlng(h3.latlng_to_cell(phone.latitude, phone.longitude, _SNAP_LEVEL))
    choices = []
    for fence_id, distance, stake in found:
        region, is_widened = _region(index, phone, fence_id, stake, distance)
        away = index.distance_meters(fence_id, *home)
        worth = stake.value / usual if stake.value is not None and usual > 0 else 1.0
        pull = min(_MOST_PULL, max(_LEAST_PULL, sqrt(max(0.0, worth))))
        sooner = _LEAD_SHARE * stake.lead_seconds * phone.meters_per_second
        counted = -inf if away <= _CLOSE_METERS else max(0.0, away - sooner) / pull
        choices.append(_Choice(region, distance, away, counted, stake.is_awaited, is_widened))
    choices.sort(key=lambda one: (not one.is_awaited, one.counted, one.away, one.region.id))
    return choices, meters


def _region(
    index: FenceIndex, phone: Moving, fence_id: str, stake: Stake, distance: float
) -> tuple[Region, bool]:
    """The circle around the whole place, and as much wider as an approach needs: the way made in its
    time, and while the phone is still to tell. Whoever is in there already would not be told of the
    place itself by it."""
    place = index.outlines[fence_id]
    lead = stake.lead_seconds + phone.delay_seconds if stake.lead_seconds else 0.0
    wider = lead * phone.meters_per_second
    around = max(SMALLEST_RADIUS_METERS, place.reach_meters + wider)
    is_widened = wider > 0.0 and distance > around - place.reach_meters + phone.accuracy_meters
    region = Region(
        id=fence_id,
        latitude=place.latitude,
        longitude=place.longitude,
        radius=around if is_widened else max(SMALLEST_RADIUS_METERS, place.reach_meters),
        # Who was never known to be inside cannot leave.
        on_enter=stake.on_enter or stake.on_exit or stake.on_dwell,
        on_exit=stake.on_exit or stake.on_dwell,
        on_dwell=stake.on_dwell,
    )
    return region, is_widened
