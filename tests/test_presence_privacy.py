"""Location consent withdrawn: the last exact fix goes at once, stored positions soon after."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.adapters.postgres.merges import bring_over
from engine.app.reloading import Reloading
from engine.app.rulesets import Files, build
from engine.app.timers import Timers
from engine.domain.people.events import Device, Event, Kind
from engine.domain.people.profiles import decode_profile, encode_profile
from engine.domain.places.presence import Presence
from tests import lanes
from tests.lanes import fetch
from tests.story import CAFE, NOON, Story, event, fix, rule_set, seconds

WORKSPACE = """
consent:
  purposes:
    marketing: {basis: consent, unknown: deny}
    location: {basis: consent, unknown: deny}
  location_precision: {granted: exact, denied: PRECISION, unknown: city}
"""
RULES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}}
offers:
  cake: {purpose: marketing, message: {push: {title: Cake, body: Cake}}}
rules:
  stay: {when: {dwell: {fence: cafe}, for: 5m}, offer: cake}
  ahead: {when: {approach: {fence: cafe}, within: 60s}, offer: cake}
"""


def states(granted: bool, at: float, device: str | None = "phone") -> Event:
    own = Device(id=device) if device is not None else None
    return event("Consent", NOON + seconds(at), consent={"location": granted}, device=own)


def at(second: float, device: str | None = "phone") -> Event:
    own = Device(id=device) if device is not None else None
    return fix(CAFE, NOON + seconds(second), device=own)


@pytest.mark.parametrize("precision", ["none", "city", "neighbourhood"])
def test_the_last_fix_goes_at_once(precision: str) -> None:
    story = Story(rule_set(RULES, WORKSPACE.replace("PRECISION", precision)))
    for each in (states(True, 0), at(10), at(20)):
        story.tell(each)
    assert "cafe" in story.profile.presence.inside
    assert story.profile.presence.way
    story.tell(states(False, 30))
    assert story.profile.presence == Presence()
    assert b"dwell" not in encode_profile(story.profile)
    assert story.seen is not None
    assert story.seen.alarms.cancelled == ("dwell cafe",)
    assert [t.event.properties for t in story.seen.alarms.set] == [{"devices": ["", "phone"]}]
    story.tell(states(False, 40))
    assert not story.seen.alarms
    story.tell(at(50))
    kept = story.profile.presence.devices
    assert all(abs(trail.last.latitude - CAFE.latitude) > 1e-3 for trail in kept.values())


def test_what_is_said_on_one_phone_leaves_the_other_alone() -> None:
    story = Story(rule_set(RULES, WORKSPACE.replace("PRECISION", "none")))
    for each in (
        states(True, 0),
        states(True, 1, "tablet"),
        at(10),
        at(12, "tablet"),
        states(False, 30, "tablet"),
    ):
        story.tell(each)
    assert set(story.profile.presence.devices) == {"phone"}
    assert "cafe" in story.profile.presence.inside


async def test_stored_positions_go_with_the_timer(postgres_dsn: str) -> None:
    rules = rule_set(RULES, WORKSPACE.replace("PRECISION", "none"))
    async with lanes.engine(postgres_dsn, rules) as engine:
        engine.now = NOON + seconds(100)
        phone = Device(id="ada-phone", type="android", token="t")

        def told(name: str, second: float, **fields: object) -> Event:
            own = {"user": "ada", "device": phone, "at": NOON + seconds(second), **fields}
            return lanes.event(Kind.TRACK, name, **own)  # type: ignore[arg-type]

        await engine.send(
            told("Yes", 0, consent={"location": True}),
            *(told("Location Updated", second, location=CAFE) for second in (10, 20, 30)),
            lanes.event(Kind.TRACK, "Yes", user="eve", consent={"location": True}, device=Device(id="e")),
            lanes.event(Kind.TRACK, "Location Updated", user="eve", location=CAFE, device=Device(id="e")),
        )
        located = "SELECT profile_id FROM events WHERE located OR body::text LIKE '%52.66%'"
        assert len(await fetch(postgres_dsn, located)) == 4
        await engine.send(told("No", 90, consent={"location": False}))
        ada = await engine.profile("user_id", "ada")
        assert ada is not None
        assert ada.presence == Presence()
        due = NOON + timedelta(hours=1)
        assert await Timers(engine.store, engine.lane, lambda: due).fire_due()
        eve = await engine.profile("user_id", "eve")
        assert eve is not None
        assert [str(row[0]) for row in await fetch(postgres_dsn, located)] == [eve.id]
        assert await fetch(postgres_dsn, "SELECT FROM timers WHERE id LIKE 'positions%'") == []


async def test_positions_that_are_on_their_way_between_profiles_go_too(postgres_dsn: str) -> None:
    """The event that joins an app's history to a person also withdraws consent."""
    rules = rule_set(RULES, WORKSPACE.replace("PRECISION", "none"))
    async with lanes.engine(postgres_dsn, rules) as engine:
        phone = Device(id="phone")
        own = {"anonymous": "app", "device": phone, "at": NOON}
        await engine.send(
            lanes.event(Kind.TRACK, "Yes", consent={"location": True}, **own),  # type: ignore[arg-type]
            lanes.event(Kind.TRACK, "Location Updated", location=CAFE, **own),  # type: ignore[arg-type]
            lanes.event(Kind.IDENTIFY, user="ada", at=NOON),
        )
        no = {**own, "user": "ada", "at": NOON + seconds(60), "consent": {"location": False}}
        await engine.send(lanes.event(Kind.IDENTIFY, **no))  # type: ignore[arg-type]
        for row in await fetch(postgres_dsn, "SELECT document FROM profiles"):
            ended = decode_profile(row[0]).ended
            for before in (ended.itself, ended.survivor) if ended is not None else ():
                assert decode_profile(before).presence == Presence()
        timers = Timers(engine.store, engine.lane, lambda: NOON + timedelta(hours=1))
        await timers.fire_due()
        while await bring_over(engine.store.pool):
            pass
        await fetch(postgres_dsn, "UPDATE timers SET leased_until = NULL")
        await timers.fire_due()
        located = "SELECT FROM events WHERE located OR body::text LIKE '%52.66%'"
        assert await fetch(postgres_dsn, located) == []
        assert await fetch(postgres_dsn, "SELECT FROM timers WHERE id LIKE 'positions%'") == []


def test_a_phone_that_must_not_be_located_is_not() -> None:
    """Some SDKs find a position by other means, the network address for one."""
    story = Story(rule_set(RULES, WORKSPACE.replace("PRECISION", "none")))
    story.tell(states(True, 0))
    refused = Device(id="phone", permissions={"location": "denied"})
    story.tell(fix(CAFE, NOON + seconds(10), device=refused))
    assert story.profile.presence == Presence()
    assert story.seen is not None
    assert story.seen.event.location is None
    story.tell(fix(CAFE, NOON + seconds(20), device=Device(id="phone", permissions={"location": "always"})))
    assert "cafe" in story.profile.presence.inside


async def test_the_silence_is_a_setting() -> None:
    checked = build(Files({"rules.yaml": b"rules: {}"}, {}))

    async def nothing(*_: object) -> str:
        return ""

    five = timedelta(minutes=5)
    assert Reloading(checked, nothing, nothing, five).ruling.rules.silence == five  # type: ignore[arg-type]
