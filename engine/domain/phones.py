"""What a phone would really deliver of a way: less than its owner walked, and later.

An app on the screen gets a fix a second. One in the background gets what its system allows, and its
SDK sends in batches. The figures are those that the makers document:

- iOS watches 20 regions for an app, and tells it that one was entered or left "within 3 to 5 minutes
  on average, if not sooner" [1]: here evenly between one minute and five. It does so once the phone has
  been on the other side for 20 seconds, at a distance from the edge that "is approximately 200 meters"
  [2]; somebody who enters cannot be so far inside of a small circle, so that this holds for leaving.
  A woken app has "around 10 seconds" [2]. A significant change of place, of 500 m or more, wakes an app
  not "more frequently than once every five minutes" [3].
- Android watches 100 for an app; in the background it answers "every couple of minutes" [4],
  "approximately two minutes" [5], and gives a position "only a few times each hour" [6]: here four. A
  circle is best no smaller than 100 to 150 m [4].
- Segment's SDKs send after 20 events or 30 seconds, as they come (`flushAt`, `flushInterval`) [7].

Nobody documents how exact a position in the background is (Wi-Fi gives 20 to 50 m [4]: here 40), how
exact one under the sky, and how often the ten seconds are too short for sending: here once in ten.

1. https://developer.apple.com/documentation/corelocation/cllocationmanager/startmonitoring(for:)
2. https://developer.apple.com/library/archive/documentation/UserExperience/Conceptual/LocationAwarenessPG/RegionMonitoring/RegionMonitoring.html
3. https://developer.apple.com/documentation/corelocation/cllocationmanager/startmonitoringsignificantlocationchanges()
4. https://developer.android.com/develop/sensors-and-location/location/geofencing
5. https://developer.android.com/develop/sensors-and-location/location/battery
6. https://developer.android.com/about/versions/oreo/background-location-limits
7. https://github.com/segmentio/analytics-swift/blob/main/Sources/Segment/Configuration.swift, and
   https://github.com/segmentio/analytics-kotlin likewise

The app keeps one slot for a circle around the phone: 19 and 99 are places, those that the engine
tells it to watch for this very person (`POST /v1/geofences`). Woken because it entered one, outside of
that circle, or after the time that it was told, it asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Final, Literal

import msgspec

from engine.domain.monitoring import Said, monitored
from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Location
from engine.domain.people.profiles import Profile
from engine.domain.places.earth import meters_between
from engine.domain.places.watching import DEFAULT_LIMITS, DELAY_SECONDS, Moving, Region, Watch

Os = Literal["ios", "android"]
App = Literal["foreground", "background"]

_OWN: Final = ""
"""The name of the circle around the phone itself: leaving it, it asks again."""
SMALLEST_REGION_METERS: Final = 100.0
IOS_STAYS: Final = timedelta(seconds=20)
IOS_AWAY_METERS: Final = 200.0
"""So far outside of a region somebody is who left it."""
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


Ask = Callable[[Location], Watch]
"""What the engine answers a phone that asks from there which regions to watch, and until when."""


class Report(msgspec.Struct, frozen=True):
    """A fix, or with `region` what the phone says of a geofence at that time and place; sent then."""

    at: datetime
    sent_at: datetime
    location: Location
    region: str | None = None
    entered: bool = False

    def __repr__(self) -> str:
        return f"Report(region={self.region!r})"


def asking(
    rules: RuleSet,
    os: Os,
    who: Callable[[], Profile],
    scores: Callable[[Profile, datetime], Mapping[str, float | None]],
) -> Ask:
    """The engine as a phone asks it: about that person as they are by then, whose models say `scores`."""

    def ask(fix: Location) -> Watch:
        profile, now = who(), _time(fix)
        address = next((one for one in profile.devices.values() if one.type == os), None)
        moving = Moving(fix.latitude, fix.longitude, fix.accuracy, fix.speed, DELAY_SECONDS[os])
        limit = DEFAULT_LIMITS[os]
        return monitored(rules, profile, address, moving, Said(), limit, now, scores(profile, now))[0]

    return ask


def reports(track: Sequence[Location], ask: Ask, phone: Phone, seed: int = 0) -> list[Report]:
    """What the phone delivers of a track, whose fixes have their times, in order of sending. The
    same track, answers, phone and seed give the same."""
    found = [report for _, several in delivered(track, ask, phone, seed) for report in several]
    return sorted(found, key=lambda report: report.sent_at)


def delivered(
    track: Sequence[Location], ask: Ask, phone: Phone, seed: int = 0
) -> Iterator[tuple[datetime, list[Report]]]:
    """Fix by fix, so that what the engine is asked may hang on what it was told before: what is sent
    from then on, at the latest known then. Nothing is asked before its fix is asked for."""
    if phone.app == "foreground":
        own = [_as_seen(fix, phone) for fix in track]
        sent = list(_batched([Report(_time(fix), _time(fix), fix) for fix in own]))
        yield _time(track[0]), sent
        return
    background = _Background(ask, phone, seed)
    for fix in track:
        yield _time(fix), background.follow(fix)
    if track:
        yield _time(track[-1]), background.rest(track[-1])


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


class _Background:
    """A phone with the app in the background: the regions that it was told to watch, on which side of
    each it is, and what it has not yet said."""

    def __init__(self, ask: Ask, phone: Phone, seed: int) -> None:
        self._ask = ask
        self._phone = phone
        self._seed = seed
        self._watched: tuple[Region, ...] = ()
        self._inside: dict[str, bool] = {}
        self._since: dict[str, datetime] = {}
        self._asked: Location | None = None
        self._until: datetime | None = None
        self._waiting: list[tuple[datetime, str, bool]] = []
        """A heap of what iOS will tell: when, of which region, and whether it was entered."""
        self._told_at: dict[str, datetime] = {}
        self._woken: Location | None = None
        self._looked: datetime | None = None
        self._unsent: list[Report] = []

    def follow(self, fix: Location) -> list[Report]:
        """What is sent at this fix."""
        return self._ios(fix) if self._phone.os == "ios" else self._android(fix)

    def rest(self, last: Location) -> list[Report]:
        """What is still to be told when the track has ended."""
        sent: list[Report] = []
        while self._waiting:
            at, region, entered = heappop(self._waiting)
            sent += self._said(at, last, region, entered)
        if self._unsent:  # when the app is opened again
            sent += _sent(self._unsent, self._unsent[-1].at + timedelta(hours=2))
            self._unsent = []
        return sent

    def _ios(self, fix: Location) -> list[Report]:
        """Significant changes, and what becomes of the regions."""
        at = _time(fix)
        sent: list[Report] = []
        while self._waiting and self._waiting[0][0] <= at:
            told_at, region, entered = heappop(self._waiting)
            sent += self._said(told_at, fix, region, entered)
            self._ask_again(fix, is_told=entered)
        woken = self._woken
        if woken is None or (
            at - _time(woken) >= IOS_CHANGE_EVERY and _between_fixes(fix, woken) >= IOS_CHANGE_METERS
        ):
            self._woken = fix
            sent += self._said(at, fix)
            self._ask_again(fix)
        for place in self._watched:
            away = IOS_AWAY_METERS if self._inside[place.id] else 0.0
            if _is_in(fix, place, away) is self._inside[place.id]:
                self._since.pop(place.id, None)
                continue
            if at - self._since.setdefault(place.id, at) >= IOS_STAYS:
                self._inside[place.id] = entered = not self._inside[place.id]
                del self._since[place.id]
                told = at + timedelta(seconds=_between(*IOS_TELLS, self._seed, place.id, at))
                told = self._told_at[place.id] = max(told, self._told_at.get(place.id, told))
                if place.on_enter if entered else place.on_exit:
                    heappush(self._waiting, (told, place.id, entered))
        return sent

    def _android(self, fix: Location) -> list[Report]:
        """A look every two minutes at the regions, and a fix four times an hour."""
        at = _time(fix)
        sent: list[Report] = []
        if self._woken is None or at - _time(self._woken) >= ANDROID_FIX_EVERY:
            self._woken = fix
            sent += self._said(at, fix)
            self._ask_again(fix)
        if self._looked is not None and at - self._looked < ANDROID_LOOKS_EVERY:
            return sent
        self._looked = at
        is_told = False
        for place in self._watched:
            inside = _is_in(fix, place)
            if self._inside[place.id] is not inside:
                self._inside[place.id] = inside
                is_told = is_told or inside or place.id == _OWN
                if place.on_enter if inside else place.on_exit:
                    sent += self._said(at, fix, place.id, inside)
        if is_told:
            self._ask_again(fix, is_told=True)
        return sent

    def _said(
        self, at: datetime, fix: Location, region: str | None = None, entered: bool = False
    ) -> list[Report]:
        """What the woken app says, where it is sent: with all that was not before, or with the next."""
        if region == _OWN:
            return []
        location = msgspec.structs.replace(_as_seen(fix, self._phone), at=at)
        self._unsent.append(Report(at, at, location, region, entered))
        if _between(0.0, 1.0, self._seed, region, at) < WAITS_SHARE:
            return []
        sent, self._unsent = self._unsent, []
        return list(_sent(sent, at + timedelta(seconds=2)))

    def _ask_again(self, fix: Location, *, is_told: bool = False) -> None:
        """Asks for the regions anew, where it `is_told` that one was entered or has to by now, and watches
        them: as it is on this side of each."""
        asked, until, at = self._asked, self._until, _time(fix)
        if asked is not None and until is not None and at < until and not is_told:
            own = next((place for place in self._watched if place.id == _OWN), None)
            if own is not None and _is_in(fix, own):
                return
        answer = self._ask(_as_seen(fix, self._phone))
        self._asked, self._until = fix, at + timedelta(seconds=answer.refresh_after)
        around = max(SMALLEST_REGION_METERS, answer.refresh_radius)
        own = Region(_OWN, fix.latitude, fix.longitude, around, False, True, False)
        before = self._watched
        self._watched = (*answer.regions, own)
        known = frozenset(before)
        kept = {place.id: self._inside[place.id] for place in answer.regions if place in known}
        self._inside = {place.id: kept.get(place.id, _is_in(fix, place)) for place in self._watched}
        self._since = {name: since for name, since in self._since.items() if name in kept}


def _between_fixes(one: Location, other: Location) -> float:
    return meters_between(one.latitude, one.longitude, other.latitude, other.longitude)


def _is_in(fix: Location, place: Region, more_meters: float = 0.0) -> bool:
    away = meters_between(fix.latitude, fix.longitude, place.latitude, place.longitude)
    return away <= place.radius + more_meters


def caught_share(ahead: timedelta, os: Os) -> float:
    """Which share of approaches a phone in the background can tell of so long ahead: those in which
    it looks at all while the person is that near."""
    every = IOS_CHANGE_EVERY if os == "ios" else ANDROID_FIX_EVERY
    return min(1.0, ahead / every)
