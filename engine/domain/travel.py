"""Trips as events begin and end them, and fixes bring them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from engine.domain.observation import Trigger
from engine.domain.offers.rules import RuleSet, TriggerKind, TripPlan, timed
from engine.domain.offers.scope import Scope
from engine.domain.people.events import Event
from engine.domain.places.presence import Presence, fix_of
from engine.domain.places.trips import MOST_TRIPS, Trip, Trips, advanced, is_coming, trip_key, view
from engine.domain.views import event_view

MOST_KEPT_BYTES: Final = 2048
_encode = msgspec.msgpack.Encoder().encode


class Travelled(msgspec.Struct, frozen=True):
    """The trips after an event, what they set off, and notes on those that could not begin."""

    trips: Trips
    triggers: tuple[Trigger, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Travelled({len(self.trips)} trips)"


def travelled(
    rules: RuleSet,
    trips: Trips,
    before: Presence,
    presence: Presence,
    event: Event,
    triggers: Iterable[Trigger],
    now: datetime,
) -> Travelled:
    """Ends what is over, begins what begins, and brings the others on."""
    at = event.known_at
    left = {key: trip for key, trip in trips.items() if goes_on(rules, trip, at)}
    notes: tuple[str, ...] = ()
    for trigger in triggers:
        plans = rules.trips_by_trigger.get((trigger.kind, trigger.name), ())
        if not plans:
            continue
        scope = Scope(event=event_view(event), now=now)
        for plan in plans:
            notes += _turned(rules, plan, trigger, scope, left)
    if not left:
        return Travelled(left, (), notes)
    fix = fix_of(event)
    moved = fix is not None and presence is not before and presence.seen_at is not None
    found: list[Trigger] = []
    for key, trip in left.items():
        if moved and fix is not None and presence.seen_at is not None and trip.fence in rules.index:
            away = rules.index.distance_meters(trip.fence, fix.latitude, fix.longitude)
            trip = advanced(trip, fix, presence.seen_at, presence.way, away)
        trip, told = _told(rules, trip, presence, at)
        left[key] = trip
        found += told
    return Travelled(left, tuple(found), notes)


def goes_on(rules: RuleSet, trip: Trip, at: datetime) -> bool:
    """Whether the person is still on the way, as far as the rules go."""
    plan = rules.trips.get(trip.name)
    return plan is not None and trip.fence in rules.fences and at < trip.started_at + plan.expires


def _turned(
    rules: RuleSet, plan: TripPlan, trigger: Trigger, scope: Scope, trips: dict[str, Trip]
) -> tuple[str, ...]:
    """Begins or ends trips of a plan, in place. Notes on one that goes nowhere."""
    value = _text(plan.by.evaluate(scope)) if plan.by is not None else ""
    for pattern in plan.ends:
        if (trigger.kind, trigger.name) in pattern.triggers and _holds(pattern.condition, scope):
            for key in [key for key, trip in trips.items() if trip.name == plan.name]:
                if value is None or key == trip_key(plan.name, value):
                    del trips[key]
    pattern = plan.starts
    if (trigger.kind, trigger.name) not in pattern.triggers or not _holds(pattern.condition, scope):
        return ()
    said = _text(plan.to.evaluate(scope))
    fence = said if said in rules.fences else rules.stores.get(said or "")
    if value is None or fence is None:
        return (f"trip {plan.name}: no place to go to" if value is not None else f"trip {plan.name}: no by",)
    key = trip_key(plan.name, value)
    if key not in trips:
        while len(trips) >= MOST_TRIPS:
            del trips[min(trips, key=lambda one: trips[one].started_at)]
        kept: Mapping[str, Any] = scope.event["properties"]
        if len(_encode(kept)) > MOST_KEPT_BYTES:
            kept = {}
        trips[key] = Trip(plan.name, fence, trigger.at, kept)
    return ()


def _holds(condition: Any, scope: Scope) -> bool:
    return condition is None or condition.evaluate(scope) is True


def _text(value: Any) -> str | None:
    """The value as a name; None for one that is none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _told(rules: RuleSet, trip: Trip, presence: Presence, at: datetime) -> tuple[Trip, list[Trigger]]:
    """What is told of a trip now. Whoever is there without having been told of is told of both ways:
    the coffee is late, but it is made."""
    if trip.arrived:
        return trip, []
    is_there = trip.fence in presence.inside
    if is_there:
        trip = msgspec.structs.replace(trip, arrived=True)
    eta = trip.eta_seconds
    ahead = rules.trips[trip.name].ahead
    due = tuple(
        seconds
        for seconds in ahead
        if seconds not in trip.told and (is_there or (eta is not None and eta <= seconds and is_coming(trip)))
    )
    if due:
        trip = msgspec.structs.replace(trip, told=(*trip.told, *due))
    fence, said = rules.fences[trip.fence], view(trip)
    found = [
        Trigger(TriggerKind.ARRIVING, timed(trip.name, timedelta(seconds=each)), at, fence, trip=said)
        for each in due
    ]
    if is_there:
        found.append(Trigger(TriggerKind.ARRIVED, trip.name, at, fence, trip=said))
    return trip, found
