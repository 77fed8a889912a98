"""Trips: on the way to pick something up, told in time, once, whatever the phone does."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from geographiclib.geodesic import Geodesic  # type: ignore[import-untyped]

from engine.app.rendering import render_body
from engine.domain.people.events import Device, Event, Location
from tests.story import NOON, Story, event, rule_set, said, seconds

RULES = """
geofences:
  gate: {circle: {lat: 52.66, lng: -8.63, radius: 60}, properties: {store_id: s12, name: Gate Café}}
  mill: {circle: {lat: 52.70, lng: -8.63, radius: 60}, properties: {store_id: 13}}
offers:
  ready: {purpose: service, message: {push: {title: "{{ trip.order_id }}", body: "{{ geofence.name }}"}}}
actions:
  tell-kitchen:
    purpose: service
    webhook: kitchen
    body: {order: "{{ trip.order_id }}", seconds: "{{ trip.eta_seconds }}"}
rules:
  kitchen: {when: {arriving: pickup, within: 3m}, do: tell-kitchen}
  hurry:
    when: {arriving: pickup, within: 60s}
    if: trip.eta_seconds <= 60 && geofence.store_id == "s12"
    offer: ready
  here: {when: {arrived: pickup}, if: trip.fulfilment == "pickup", offer: ready}
trips:
  pickup:
    starts: {event: Order Placed, if: event.properties.fulfilment == "pickup"}
    to: event.properties.store_id
    by: event.properties.order_id
    ends: [Order Picked Up, Order Cancelled]
    expires: 2h
"""
WORKSPACE = "consent: {purposes: {service: {basis: contract}, marketing: {basis: consent}}}"
MINUTE = timedelta(minutes=1)
PHONE = Device(id="phone", type="android", token="t")


def placed(order: object = "o1", second: float = 0, **fields: object) -> Event:
    own = {"order_id": order, "store_id": "s12", "fulfilment": "pickup", **fields}
    return event("Order Placed", NOON + seconds(second), properties=own)


def over(name: str, second: float, **properties: object) -> Event:
    return event(name, NOON + seconds(second), properties=properties)


def at(second: float, out: float, **fields: object) -> Event:
    """`out` metres from the café's edge, in the south."""
    there = Geodesic.WGS84.Direct(52.66, -8.63, 180, 60 + out)
    known = {"latitude": there["lat2"], "longitude": there["lon2"], "accuracy": 8.0, **fields}
    location = Location(**known)  # type: ignore[arg-type]
    return event("Location Updated", NOON + seconds(second), location=location, device=PHONE)


class Trip(Story):
    def __init__(self) -> None:
        super().__init__(rule_set(RULES, WORKSPACE))
        self.bodies: list[dict[str, str]] = []

    def happens(self, *events: Event) -> list[tuple[str | None, float]]:
        """Rules that were decided on, each at its second."""
        for each in events:
            self.tell(each)
            assert self.verdict is not None
            sends = [sending.candidate for sending in self.verdict.sends]
            self.bodies += [render_body(c) for c in sends if c.offer.webhook is not None]
        return [(d.rule, (d.decided_at - NOON).total_seconds()) for d in self.decisions]


def drive(begin: float, end: float, speed: float, start: float = 0.0, every: float = 5.0) -> list[Event]:
    steps = int(abs(begin - end) / speed / every)
    sign = -1 if begin > end else 1
    return [at(start + every * k, begin + sign * speed * every * k) for k in range(steps + 1)]


@pytest.mark.parametrize("speed", [1.4, 5.0, 14.0])
def test_told_in_time_and_once(speed: float) -> None:
    story = Trip()
    far = speed * 600
    found = dict(story.happens(placed(), *drive(far, -110, speed, 1.0)))
    arrived = found["here"]
    assert 1.0 + (far + 4) / speed == pytest.approx(arrived, abs=10)
    assert 0.7 <= (arrived - found["kitchen"]) / 180 <= 1.3
    assert 0.7 <= (arrived - found["hurry"]) / 60 <= 1.3
    assert len(story.decisions) == 3
    assert {said(d) for d in story.decisions} == {"offered"}
    assert [d.geofence for d in story.decisions] == ["gate"] * 3
    [body] = story.bodies
    assert body["order"] == "o1"
    assert 100 <= float(body["seconds"]) <= 180


def test_the_estimate_follows_each_fix() -> None:
    story = Trip()
    story.happens(placed(), *drive(3000, 2400, 5.0, 1.0))
    (trip,) = story.profile.trips.values()
    first = trip.eta_seconds
    assert first is not None
    story.happens(*drive(2400, 1500, 10.0, 122.0))
    (trip,) = story.profile.trips.values()
    assert trip.eta_seconds is not None
    assert trip.eta_seconds < first / 1.8
    waits = [at(220 + 5 * k, 1490) for k in range(12)]
    story.happens(*waits)
    (later,) = story.profile.trips.values()
    assert later.eta_seconds is not None
    assert later.eta_seconds > trip.eta_seconds


def test_who_goes_away_from_the_place_is_not_arriving() -> None:
    story = Trip()
    assert story.happens(placed(), *drive(20, 900, 5.0, 1.0)) == []


def test_whoever_is_there_unannounced_is_told_of_both_ways() -> None:
    """A phone that sent nothing on the way."""
    story = Trip()
    found = story.happens(placed(), at(1000, -30))
    assert [rule for rule, _ in found] == ["kitchen", "hurry", "here"]
    assert story.bodies == [{"order": "o1", "seconds": "0"}]
    assert story.happens(at(1010, -20), at(1200, 500), at(1300, -30)) == found


def test_an_order_placed_at_the_counter() -> None:
    story = Trip()
    found = story.happens(at(0, -30), placed(second=5))
    assert [rule for rule, _ in found] == ["kitchen", "hurry", "here"]


def test_the_phone_reports_the_region_itself() -> None:
    story = Trip()
    entered = event("Geofence Entered", NOON + MINUTE, properties={"geofence": "gate"}, device=PHONE)
    assert [rule for rule, _ in story.happens(placed(), entered)] == ["kitchen", "hurry", "here"]


@pytest.mark.parametrize(
    ("ended", "left"),
    [
        (over("Order Picked Up", 10, order_id="o1"), ["o2"]),
        (over("Order Cancelled", 10, order_id="o2"), ["o1"]),
        (over("Order Cancelled", 10, order_id="o3"), ["o1", "o2"]),
        (over("Order Picked Up", 10), []),  # without saying which
        (over("Order Shipped", 10, order_id="o1"), ["o1", "o2"]),
        (over("Anything", 7199), ["o1", "o2"]),
        (over("Anything", 7200), ["o2"]),
        (over("Anything", 7201), []),
    ],
)
def test_what_ends_a_trip(ended: Event, left: list[str]) -> None:
    story = Trip()
    story.happens(placed("o1"), placed("o2", 1), placed("o1", 5), ended)
    assert [trip.kept["order_id"] for trip in story.profile.trips.values()] == left


@pytest.mark.parametrize(
    ("order", "to", "note"),
    [
        ({}, "gate", None),
        ({"store_id": "gate"}, "gate", None),
        ({"store_id": 13}, "mill", None),
        ({"store_id": "s99"}, None, "trip pickup: no place to go to"),
        ({"store_id": None}, None, "trip pickup: no place to go to"),
        ({"order": None}, None, "trip pickup: no by"),
        ({"fulfilment": "delivery"}, None, None),
    ],
)
def test_where_a_trip_goes(order: dict[str, object], to: str | None, note: str | None) -> None:
    story = Trip()
    story.happens(placed(**order))  # type: ignore[arg-type]
    assert [trip.fence for trip in story.profile.trips.values()] == ([to] if to else [])
    assert story.seen is not None
    assert story.seen.notes == ((note,) if note else ())


def test_an_order_of_the_past_begins_no_trip() -> None:
    story = Trip()
    story.happens(msgspec.structs.replace(placed(), history=True))
    assert story.profile.trips == {}


def test_many_orders_stay_bounded_and_large_ones_are_not_kept() -> None:
    story = Trip()
    story.happens(*(placed(f"o{n}", n) for n in range(30)))
    assert next(iter(story.profile.trips.values())).kept["order_id"] == "o10"
    assert len(story.profile.trips) == 20
    story.happens(placed("big", 40, note="x" * 3000))
    assert list(story.profile.trips.values())[-1].kept == {}


def test_positions_of_a_trip_go_with_the_consent() -> None:
    rules = rule_set(
        RULES,
        "consent: {purposes: {service: {basis: contract}, location: {basis: consent}}, "
        "location_precision: {granted: exact, denied: none, unknown: exact}}",
    )
    story = Story(rules)
    for each in (placed(), *drive(3000, 2400, 5.0, 1.0)):
        story.tell(each)
    assert story.profile.trips["pickup\no1"].meters is not None
    story.tell(event("No", NOON + seconds(200), consent={"location": False}, device=PHONE))
    trip = story.profile.trips["pickup\no1"]
    assert (trip.meters, trip.pace, trip.farthest) == (None, None, None)
