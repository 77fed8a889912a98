"""What a phone would really deliver of a way: less than its owner walked, and later.

An app on the screen gets a fix a second. One in the background gets what its system allows, and its
SDK sends in batches. The figures are those that the makers document:

- iOS watches 20 regions for an app, and tells it that one was entered or left within 3 to 5 minutes
  on average (https://developer.apple.com/documentation/corelocation/cllocationmanager/1423656-startmonitoring),
  once the phone has been on the other side for 20 seconds
  (https://developer.apple.com/documentation/corelocation/monitoring_the_user_s_proximity_to_geographic_regions).
  A significant change of place wakes an app after 500 m or more, and not more often than every five
  minutes (https://developer.apple.com/documentation/corelocation/cllocationmanager/startmonitoringsignificantlocationchanges()).
- Android watches 100, and answers to them every couple of minutes where the app is in the background
  (https://developer.android.com/develop/sensors-and-location/location/geofencing); it gives such an
  app a position a few times each hour
  (https://developer.android.com/about/versions/oreo/background-location-limits). Both watch nothing
  smaller than 100 m well.
- Segment's SDKs send after 20 events or 30 seconds
  (https://segment.com/docs/connections/sources/catalog/libraries/mobile/apple/); an app that was woken
  has some ten seconds, so that what it wanted to say sometimes waits for the next time.

One app keeps a slot for itself: 19 and 99 are watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Location
from engine.domain.places.earth import meters_between
from engine.domain.places.fence_index import FenceIndex

Os = Literal["ios", "android"]
App = Literal["foreground", "background"]

WATCHED: Final = {"ios": 19, "android": 99}
SMALLEST_REGION_METERS: Final = 100.0
IOS_STAYS: Final = timedelta(seconds=20)
IOS_TELLS: Final = (60.0, 300.0)
"""Between so many seconds after that: three minutes on average."""
IOS_CHANGE_METERS: Final = 500.0
IOS_CHANGE_EVERY: Final = timedelta(minutes=5)
ANDROID_LOOKS_EVERY: Final = timedelta(minutes=2)
ANDROID_FIX_EVERY: Final = timedelta(minutes=15)
BATCH_EVENTS: Final = 20
BATCH_SECONDS: Final = timedelta(seconds=30)
WAITS_SHARE: Final = 0.1
"""Of what an app says when it was woken, how much is not sent before it sleeps again."""
ACCURACY_METERS: Final = {"foreground": 8.0, "background": 40.0}


class Phone(msgspec.Struct, frozen=True):
    os: Os
    app: App


class Region(msgspec.Struct, frozen=True):
    """A circle that the phone watches in the place of a geofence."""

    fence: str
    latitude: float
    longitude: float
    radius_meters: float


class Report(msgspec.Struct, frozen=True):
    """A fix, or with `region` what the phone says of a geofence at that time and place; sent then."""

    at: datetime
    sent_at: datetime
    location: Location
    region: str | None = None
    entered: bool = False

    def __repr__(self) -> str:
        return f"Report(region={self.region!r})"


def regions(index: FenceIndex, fences: Iterable[str]) -> tuple[Region, ...]:
    """Circles around the geofences, as small as phones watch them."""
    found = []
    for fence in sorted(fences):
        if fence in index:
            edge = index.outlines[fence]
            radius = max(SMALLEST_REGION_METERS, edge.reach_meters)
            found.append(Region(fence, edge.latitude, edge.longitude, radius))
    return tuple(found)


def watched_fences(rules: RuleSet) -> frozenset[str]:
    """The geofences that a phone of this workspace is told to watch: those that rules name."""
    return frozenset(fence for rule in rules.rules.values() for fence in rule.when.fences)


def reports(track: Sequence[Location], places: Sequence[Region], phone: Phone, seed: int = 0) -> list[Report]:
    """What the phone delivers of a track, whose fixes have their times, in order of sending. The
    same track, places, phone and seed give the same."""
    if phone.app == "foreground":
        own = [_as_seen(fix, phone) for fix in track]
        return list(_batched([Report(_time(fix), _time(fix), fix) for fix in own]))
    heard = _ios(track, places, phone, seed) if phone.os == "ios" else _android(track, places, phone)
    return _woken(sorted(heard, key=lambda report: report.at), seed)


def _time(fix: Location) -> datetime:
    assert fix.at is not None
    return fix.at


def _as_seen(fix: Location, phone: Phone) -> Location:
    """As exactly as such an app is told; one in the background is told no speed and heading."""
    least = ACCURACY_METERS[phone.app]
    if phone.app == "foreground":
        return msgspec.structs.replace(fix, accuracy=max(least, fix.accuracy))
    return msgspec.structs.replace(fix, accuracy=max(least, fix.accuracy), speed=None, heading=None)


def _batched(events: Sequence[Report]) -> Iterator[Report]:
    """As an SDK sends: twenty at once, or what there is half a minute after the first."""
    batch: list[Report] = []
    for event in events:
        if batch and event.at >= batch[0].at + BATCH_SECONDS:
            yield from _sent(batch, batch[0].at + BATCH_SECONDS)
            batch = []
        batch.append(event)
        if len(batch) == BATCH_EVENTS:
            yield from _sent(batch, event.at)
            batch = []
    if batch:
        yield from _sent(batch, batch[0].at + BATCH_SECONDS)


def _sent(batch: Sequence[Report], at: datetime) -> Iterator[Report]:
    for event in batch:
        yield msgspec.structs.replace(event, sent_at=at)


def _between(least: float, most: float, *names: object) -> float:
    """A number that the names choose, evenly over all names: chance that a replay meets again."""
    digest = blake2b(repr(names).encode(), digest_size=8).digest()
    return least + (most - least) * int.from_bytes(digest, "big") / 2**64


def _nearest(places: Sequence[Region], fix: Location, most: int) -> list[Region]:
    return sorted(places, key=lambda p: meters_between(fix.latitude, fix.longitude, p.latitude, p.longitude))[
        :most
    ]


def _is_in(fix: Location, place: Region) -> bool:
    away = meters_between(fix.latitude, fix.longitude, place.latitude, place.longitude)
    return away <= place.radius_meters


def _ios(track: Sequence[Location], places: Sequence[Region], phone: Phone, seed: int) -> Iterator[Report]:
    """Significant changes, each of which chooses the regions anew; and what becomes of those."""
    inside: dict[str, bool] = {}
    since: dict[str, datetime] = {}
    last_told: dict[str, datetime] = {}
    woken: Location | None = None
    watched: list[Region] = []
    for number, fix in enumerate(track):
        at = _time(fix)
        if woken is None or (
            at - _time(woken) >= IOS_CHANGE_EVERY
            and meters_between(fix.latitude, fix.longitude, woken.latitude, woken.longitude)
            >= IOS_CHANGE_METERS
        ):
            woken = fix
            watched = _nearest(places, fix, WATCHED["ios"])
            for place in watched:
                inside.setdefault(place.fence, _is_in(fix, place))
            yield Report(at, at, _as_seen(fix, phone))
        for place in watched:
            if _is_in(fix, place) is inside[place.fence]:
                since.pop(place.fence, None)
                continue
            if at - since.setdefault(place.fence, at) >= IOS_STAYS:
                inside[place.fence] = not inside[place.fence]
                del since[place.fence]
                told = at + timedelta(seconds=_between(*IOS_TELLS, seed, place.fence, at))
                told = last_told[place.fence] = max(told, last_told.get(place.fence, told))
                where = next((f for f in track[number:] if _time(f) >= told), track[-1])
                own = msgspec.structs.replace(_as_seen(where, phone), at=told)
                yield Report(told, told, own, place.fence, inside[place.fence])


def _android(track: Sequence[Location], places: Sequence[Region], phone: Phone) -> Iterator[Report]:
    """A look every two minutes at the regions, and a fix four times an hour."""
    inside: dict[str, bool] = {}
    looked: datetime | None = None
    told: datetime | None = None
    for fix in track:
        at = _time(fix)
        if told is None or at - told >= ANDROID_FIX_EVERY:
            told = at
            yield Report(at, at, _as_seen(fix, phone))
        if looked is not None and at - looked < ANDROID_LOOKS_EVERY:
            continue
        first, looked = looked is None, at
        for place in _nearest(places, fix, WATCHED["android"]):
            now = _is_in(fix, place)
            if inside.setdefault(place.fence, now if first else False) is not now:
                inside[place.fence] = now
                yield Report(at, at, _as_seen(fix, phone), place.fence, now)


def _woken(events: Sequence[Report], seed: int) -> list[Report]:
    """Sent right after an app was woken; what was not comes along the next time."""
    sent: list[Report] = []
    late: list[Report] = []
    for event in events:
        late.append(event)
        if _between(0.0, 1.0, seed, event.region, event.at) >= WAITS_SHARE:
            sent += _sent(late, event.at + timedelta(seconds=2))
            late = []
    if late:
        sent += _sent(late, late[-1].at + timedelta(hours=2))  # when the app is opened again
    return sent


def caught_share(ahead: timedelta, os: Os) -> float:
    """Which share of approaches a phone in the background can tell of so long ahead: those in which
    it looks at all while the person is that near."""
    every = IOS_CHANGE_EVERY if os == "ios" else ANDROID_FIX_EVERY
    return min(1.0, ahead / every)
