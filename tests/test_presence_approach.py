"""Approaches: who is about to be there, told once, in time, and of nobody who stands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import msgspec
import pytest
from geographiclib.geodesic import Geodesic  # type: ignore[import-untyped]

from engine.domain.offers.decisions import Outcome
from engine.domain.people.events import Location
from engine.domain.places.approach import Approaches
from engine.domain.places.fence_index import Fence, build
from engine.domain.places.interest import Interest, interest
from engine.domain.places.presence import SILENCE, Fix, Presence, Transition, step
from engine.domain.places.shapes import Circle, Polygon
from loadtest.approach import measure
from tests.story import NOON, Story, event, rule_set, said, seconds

RADIUS = 60.0
SHOP = build([Fence("shop", Circle(52.66, -8.63, RADIUS))])


def wants(*ahead: float) -> Interest:
    return interest(SHOP, (), [("shop", timedelta(seconds=each)) for each in ahead])


def at(second: float, out: float, **fields: object) -> Fix:
    """`out` metres north of the shop's edge, with 5 m of accuracy."""
    there = Geodesic.WGS84.Direct(52.66, -8.63, 0, RADIUS + out)
    moment = NOON + timedelta(seconds=second)
    known: dict[str, object] = {"accuracy_meters": 5.0, "device_id": "d", "received_at": moment}
    known.update(latitude=there["lat2"], longitude=there["lon2"], at=moment)
    return msgspec.convert({**known, **fields}, Fix)


def told(fixes: Iterable[Fix], wanted: Interest) -> list[tuple[float, str, float | None]]:
    """Second, kind, and for an approach how long before."""
    presence, found = Presence(), list[Transition]()
    for each in fixes:
        moved = step(presence, each, SHOP, SILENCE, wanted)
        packed = msgspec.msgpack.encode(moved.presence)
        presence = msgspec.msgpack.decode(packed, type=Presence)
        assert presence == moved.presence
        found += moved.transitions
    return [
        ((t.at - NOON).total_seconds(), t.kind, t.span.total_seconds() if t.span else None) for t in found
    ]


def walk(begin: float, end: float, speed: float, start: float = 0.0, every: float = 2.0) -> list[Fix]:
    """Straight south (north where `end` is the farther one) from `begin` to `end` metres outside."""
    steps = int(abs(end - begin) / speed / every)
    sign = 1 if end > begin else -1
    return [at(start + every * k, begin + sign * speed * every * k) for k in range(steps + 1)]


def test_each_lead_is_told_once_before_the_enter() -> None:
    found = told(walk(300, -20, 1.5), wants(30, 90))
    assert [(kind, span) for _, kind, span in found] == [
        ("approach", 90.0),
        ("approach", 30.0),
        ("enter", None),
    ]
    enter = found[2][0]
    assert 0.8 * 90 <= enter - found[0][0] <= 1.2 * 90
    assert 0.8 * 30 <= enter - found[1][0] <= 1.2 * 30


def test_who_stands_or_goes_by_or_away_is_not_told() -> None:
    standing = [at(2 * k, 30 + (k % 3)) for k in range(120)]
    assert told(standing, wants(90)) == []
    away = walk(5, 300, 1.5)
    assert told(away, wants(90)) == []
    past = []
    for k in range(120):  # along a street that passes 200 m from the shop
        there = Geodesic.WGS84.Direct(52.66, -8.63, 0, 260)
        on = Geodesic.WGS84.Direct(there["lat2"], there["lon2"], 90, 3 * k - 180)
        past.append(msgspec.structs.replace(at(2 * k, 0), latitude=on["lat2"], longitude=on["lon2"]))
    assert told(past, wants(90)) == []


def test_who_stands_is_told_once_they_go_on_and_not_as_the_crow_flies() -> None:
    there = walk(300, 40, 1.5)
    waits = [at(there[-1].at.timestamp() - NOON.timestamp() + 2 * k, 40) for k in range(1, 120)]
    assert [kind for _, kind, _ in told([*there, *waits], wants(10))] == []
    goes = walk(40, -20, 1.5, waits[-1].at.timestamp() - NOON.timestamp() + 2)
    found = told([*there, *waits, *goes], wants(10))
    assert [kind for _, kind, _ in found] == ["approach", "enter"]
    assert found[0][0] > waits[-1].at.timestamp() - NOON.timestamp()


@pytest.mark.parametrize(("far", "kinds"), [(1.6, ["approach"]), (2.6, ["approach", "approach"])])
def test_told_again_only_from_twice_the_distance(far: float, kinds: list[str]) -> None:
    """It turns round where it was told, goes off, and comes back."""
    first = walk(300, 100, 1.5)
    [(second, _, _)] = told(first, wants(90))
    where = 300 - 1.5 * second
    off = walk(100, where * far, 1.5, 400)
    back = walk(where * far, 20, 1.5, 800)
    assert [kind for _, kind, _ in told([*first, *off, *back], wants(90))] == kinds


def test_told_again_after_having_been_inside() -> None:
    through = walk(300, -115, 1.5)
    out = walk(-5, 100, 1.5, 500)
    found = told([*through, *out, *walk(100, -20, 1.5, 700)], wants(30))
    assert [kind for _, kind, _ in found] == ["approach", "enter", "exit", "approach", "enter"]


def test_speed_and_heading_as_the_phone_sends_them() -> None:
    """A phone in the background: one fix in two minutes, nothing to reckon from."""
    first = at(0, 2000)
    for sent, kinds in (
        ({"speed": 10.0, "heading": 180.0}, ["approach"]),
        ({"speed": 10.0, "heading": 0.0}, []),
        ({"speed": 2.0, "heading": 180.0}, []),
        ({"speed": 0.0, "heading": 180.0}, []),
        ({"speed": 10.0}, []),
        ({}, []),
    ):
        assert [kind for _, kind, _ in told([first, at(400, 500, **sent)], wants(60))] == kinds


def test_only_believed_fixes_of_the_carried_device_count() -> None:
    way = walk(300, 100, 1.5)
    false = [
        msgspec.structs.replace(f, latitude=52.66, is_mock=True, at=f.at + timedelta(seconds=0.5))
        for f in way
    ]
    mixed = [f for pair in zip(way, false, strict=True) for f in pair]
    assert told(mixed, wants(60)) == told(way, wants(60))
    tablet = [msgspec.structs.replace(f, device_id="tablet", latitude=52.9) for f in way]
    both = [f for pair in zip(way, tablet, strict=True) for f in pair]
    assert told(both, wants(60)) == told(way, wants(60))


def test_over_the_antimeridian_and_into_a_polygon() -> None:
    west, east = 179.999, -179.999
    square = Polygon(
        ((((-17.001, west), (-17.001, east), (-16.999, east), (-16.999, west), (-17.001, west))),)
    )
    index = build([Fence("bay", square), Fence("far", Circle(10, 10, 50))])
    wanted = interest(index, (), [(fence, timedelta(seconds=60)) for fence in ("bay", "far")])
    presence, kinds = Presence(), []
    for k in range(60):  # eastwards at 10 m/s, from 500 m before the date line
        there = Geodesic.WGS84.Direct(-17.0, 179.995, 90, 20 * k)
        each = msgspec.structs.replace(at(2 * k, 0), latitude=there["lat2"], longitude=there["lon2"])
        moved = step(presence, each, index, SILENCE, wanted)
        presence = moved.presence
        kinds += [(t.kind, t.fence) for t in moved.transitions]
    assert kinds == [("approach", "bay"), ("enter", "bay"), ("exit", "bay")]


def test_near_finds_all_that_is_near() -> None:
    spots = [(0.0, 179.99), (0.0, -179.99), (89.99, 0.0), (89.99, 180.0), (-45.0, 10.0), (-45.0, 10.02)]
    spots += [(52.66 + k / 300, -8.63 + k / 500) for k in range(20)]
    index = build([Fence(str(n), Circle(north, east, 50)) for n, (north, east) in enumerate(spots)])
    approaches = Approaches(index, {str(n): (60,) for n in range(len(spots))})
    for latitude, longitude in [*spots, (1.0, 1.0), (52.7, -8.6), (-45.0, 10.01)]:
        for meters in (10.0, 3000.0, 30_000.0, 2_000_000.0):
            near = sorted(fence for _, fence in approaches.near(latitude, longitude, meters))
            assert near == sorted(
                fence for fence in index.fences if index.distance_meters(fence, latitude, longitude) <= meters
            )


RULES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.63, radius: 60}, tags: [cafe], properties: {name: The Mill}}
offers:
  latte: {purpose: marketing, message: {push: {title: Latte, body: "{{ geofence.name }}"}}}
rules:
  ahead: {when: {approach: {tag: cafe}, within: 60s, if: geofence.name == "The Mill"}, offer: latte}
  near: {when: {approach: {fence: cafe}, within: 20s}, offer: latte}
"""


def come(story: Story, until: float) -> None:
    for each in walk(300, until, 1.5):
        location = Location(latitude=each.latitude, longitude=each.longitude, accuracy=5.0)
        story.tell(event("Location Updated", each.at, location=location))


def test_a_rule_fires_at_its_own_lead() -> None:
    story = Story(rule_set(RULES))
    come(story, -20)
    assert [(d.rule, d.trigger, d.geofence) for d in story.decisions] == [
        ("ahead", "approach", "cafe"),
        ("near", "approach", "cafe"),
    ]
    assert {d.outcome for d in story.decisions} == {Outcome.OFFERED}


def test_an_approach_is_old_news_after_its_own_lead() -> None:
    rules = rule_set(RULES)
    assert [rules.rules[name].fresh for name in ("ahead", "near")] == [seconds(60), seconds(20)]
    for late, outcome in ((60, "offered"), (61, "stale_event")):
        story = Story(rules)
        for each in walk(300, 60, 1.5):
            location = Location(latitude=each.latitude, longitude=each.longitude, accuracy=5.0)
            came = each.at + seconds(late)
            story.tell(event("Location Updated", each.at, location=location, received_at=came))
        assert [said(d) for d in story.decisions] == [outcome]


def test_a_workspace_without_approaches_keeps_no_way() -> None:
    story = Story(
        rule_set(RULES.replace("approach", "enter").replace(", within: 60s", "").replace(", within: 20s", ""))
    )
    come(story, 20)
    assert story.profile.presence.way == ()


def test_the_figures_of_the_benchmark() -> None:
    found = measure()
    for one in found:
        if one.who == "bus":
            assert one.entered == 35  # at the last of the 36 the recording begins
            assert one.in_time >= 0.90
            assert 0.7 <= one.lead <= 1.5
            assert one.false_alarms <= 0.15
        elif "drifting" not in one.who:
            assert one.in_time == 1.0
            assert one.near >= 0.95
    assert len(found) == 18
