"""One reported position, and whether it may be believed after those that its device sent before."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from math import cos, hypot, radians
from typing import Final

import msgspec

from engine.domain.people.events import Event
from engine.domain.places.earth import METERS_PER_DEGREE_AT_LEAST, METERS_PER_DEGREE_AT_MOST, meters_between

FASTEST_METERS_PER_SECOND: Final = 340.0
CLOCK_TOLERANCE: Final = timedelta(seconds=60)
"""Requests take their time; a device's clock has been set when it is off by more than this."""
_FLAT_DEGREES: Final = 0.5
_FLAT_UP_TO: Final = 80.0
"""Between points so close, and so far from the poles, a way is no shorter than a degree's least length
makes it along the parallel that is nearer to the pole, and no longer than its greatest along the other."""
_NO_AGE: Final = timedelta()
_OLDEST: Final = timedelta(days=3650)
_AHEAD_WITHOUT_SENT_AT: Final = timedelta(hours=24)


class Ignored(StrEnum):
    """Why a fix changed nothing. Stable codes."""

    MOCK = "mock"
    DOUBLED = "doubled"
    OUT_OF_ORDER = "out_of_order"
    FUTURE = "future"
    TELEPORT = "teleport"
    INACCURATE = "inaccurate"
    NOT_CARRIED = "not_carried"


class Fix(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A position in WGS 84 degrees, accurate to `accuracy_meters`, at the device's own time `at`.

    `sent_at` is the same device's clock when it sent the request, `received_at` ours when it came.
    `floor` is the building's storey where the phone knows it, 0 being the ground floor.
    """

    latitude: float
    longitude: float
    at: datetime
    received_at: datetime
    accuracy_meters: float = 25.0
    sent_at: datetime | None = None
    speed: float | None = None
    heading: float | None = None
    floor: int | None = None
    is_mock: bool = False
    device_id: str = ""

    @property
    def when(self) -> datetime:
        """The fix's time by our clock: its age when it was sent, before the receipt."""
        sent_at = self.sent_at
        age = (self.received_at if sent_at is None else sent_at) - self.at
        if age < _NO_AGE:
            return self.received_at
        return self.received_at - (age if age < _OLDEST else _OLDEST)

    def __repr__(self) -> str:
        return "Fix(…)"


class Spot(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where a device was, at its own time."""

    latitude: float
    longitude: float
    accuracy_meters: float
    at: datetime

    def __repr__(self) -> str:
        return "Spot(…)"


class Trail(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is remembered of one device.

    `last` is its last good fix, `when` that was by our clock. `rest` is where it had last moved to,
    at our time. `jump` is a fix impossibly far from `last`, kept in case the next one agrees.
    """

    last: Spot
    when: datetime
    rest: Spot
    jump: Spot | None = None

    def __repr__(self) -> str:
        return "Trail(…)"


class Followed(msgspec.Struct, frozen=True, gc=False):
    """A trail after a fix. `ignored`: the fix is not believed yet. `moved`: the device has left the
    place where it rested. `clock_set`: its clock was set back, so that times before and after cannot
    be compared."""

    trail: Trail
    ignored: Ignored | None = None
    moved: bool = False
    clock_set: bool = False

    def __repr__(self) -> str:
        return f"Followed(ignored={self.ignored!r}, …)"


def fix_of(event: Event) -> Fix | None:
    """The fix that an event carries, at the device's own, uncorrected time. Where the device stated
    none, at the event's, which is by our clock already."""
    location = event.location
    if location is None:
        return None
    return Fix(
        latitude=location.latitude,
        longitude=location.longitude,
        at=location.at or event.timestamp,
        received_at=event.received_at,
        accuracy_meters=location.accuracy,
        sent_at=event.sent_at if location.at is not None else None,
        speed=location.speed,
        heading=location.heading,
        floor=location.floor,
        is_mock=location.is_mock,
        device_id=event.device.id if event.device is not None else "",
    )


def follow(trail: Trail | None, fix: Fix) -> Followed | Ignored:
    """The device's trail after this fix, or why the fix is not believed and leaves no trace."""
    if fix.is_mock:
        return Ignored.MOCK
    if _lies_ahead(fix):
        return Ignored.FUTURE
    when = fix.when
    spot = Spot(fix.latitude, fix.longitude, fix.accuracy_meters, fix.at)
    if trail is None:
        return Followed(Trail(spot, when, _resting(spot, when)))
    last = trail.last
    clock_set = False
    if fix.at <= last.at:
        if fix.at == last.at:
            return Ignored.DOUBLED
        if not _clock_was_set_back(trail, fix, when):
            return Ignored.OUT_OF_ORDER
        clock_set = True
    elif not _reachable(last, spot):
        jump = trail.jump
        if jump is None or not _reachable(jump, spot):
            return Followed(Trail(last, trail.when, trail.rest, spot), Ignored.TELEPORT)
        if jump.at >= spot.at:
            return Ignored.DOUBLED if jump.at == spot.at else Ignored.OUT_OF_ORDER
    if _has_moved(trail.rest, spot):
        return Followed(Trail(spot, when, _resting(spot, when)), None, True, clock_set)
    return Followed(Trail(spot, when, trail.rest), None, False, clock_set)


def _lies_ahead(fix: Fix) -> bool:
    """Whether the fix claims a time after it was sent *and* after it came. (A phone's fixes may
    carry the satellites' right time while the clock that stamps `sentAt` is slow.)"""
    if fix.sent_at is None:
        return fix.at - fix.received_at > _AHEAD_WITHOUT_SENT_AT
    return fix.at - fix.sent_at > CLOCK_TOLERANCE and fix.at - fix.received_at > CLOCK_TOLERANCE


def _clock_was_set_back(trail: Trail, fix: Fix, when: datetime) -> bool:
    """Whether an older time means a newer fix: by our clock it is newer, and the device's clock is
    behind ours by more than before. Without `sentAt`, when only the newest fix lies ahead of us."""
    if fix.sent_at is None:
        latest = fix.received_at + CLOCK_TOLERANCE
        return trail.last.at > latest >= fix.at
    behind, was_behind = when - fix.at, trail.when - trail.last.at
    return when > trail.when and behind - was_behind > CLOCK_TOLERANCE


def _resting(spot: Spot, when: datetime) -> Spot:
    return Spot(spot.latitude, spot.longitude, spot.accuracy_meters, when)


def _reachable(earlier: Spot, later: Spot) -> bool:
    seconds = abs((later.at - earlier.at).total_seconds())
    allowed = FASTEST_METERS_PER_SECOND * seconds + earlier.accuracy_meters + later.accuracy_meters
    return is_within(earlier, later, allowed)


def _has_moved(rest: Spot, spot: Spot) -> bool:
    """Farther away than noise at the stated accuracies explains."""
    return not is_within(rest, spot, 2 * (rest.accuracy_meters + spot.accuracy_meters))


def is_within(a: Spot, b: Spot, meters: float) -> bool:
    """Bounds of the way on a flat map spare the exact one nearly always."""
    north = abs(a.latitude - b.latitude)
    east = abs(a.longitude - b.longitude)
    if (north + east) * METERS_PER_DEGREE_AT_MOST <= meters:
        return True
    if north * METERS_PER_DEGREE_AT_LEAST > meters:
        return False
    farther = max(abs(a.latitude), abs(b.latitude))
    if north < _FLAT_DEGREES and east < _FLAT_DEGREES and farther < _FLAT_UP_TO:
        at_least = hypot(north, east * cos(radians(farther)))
        if at_least * METERS_PER_DEGREE_AT_LEAST > meters:
            return False
        at_most = hypot(north, east * cos(radians(farther - north)))
        if at_most * METERS_PER_DEGREE_AT_MOST <= meters:
            return True
    return meters_between(a.latitude, a.longitude, b.latitude, b.longitude) <= meters
