"""Offers that wait for a better hour, as timelines: quiet hours, a time of day, second decisions."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from engine.domain.offers.decisions import Decision
from engine.domain.offers.deferral import SPREAD, next_at
from engine.domain.people.profiles import Consent, new_profile
from tests.story import CAFE, NOON, SECRET, Story, event, fix, local, rule_set, said, seconds, someone

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
QUIET = "quiet_hours: {from: '21:00', to: '08:00', then: defer}\n"
OFFERS = """
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: "{{ event.properties.what }}"}}}
  ready: {purpose: service, message: {push: {title: Ready, body: Come in}}}
geofences: {cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe]}}
rules:
"""
PURPOSES = "consent: {purposes: {marketing: {}, service: {basis: contract}}}\n"
WISH = "  wish: {when: Wish, offer: gift}\n"
EVERYWHERE = {name: Consent(True, NOON - timedelta(days=9), name) for name in ("marketing", "location")}
MORNING = "  wish: {when: Wish, offer: gift, send: {at: '10:00', expires: 2d}}\n"


def story(rules: str = WISH, workspace: str = QUIET, **profile: Any) -> Story:
    return Story(rule_set(OFFERS + rules, PURPOSES + workspace), someone(**profile))


def told(decision: Decision) -> tuple[str, str | None]:
    return decision.outcome.value, decision.reason.value if decision.reason else None


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("20:59:59", ("offered", None)),
        ("21:00:00", ("deferred", "quiet_hours")),
        ("07:59:59", ("deferred", "quiet_hours")),
        ("08:00:00", ("offered", None)),
    ],
)
def test_what_falls_into_quiet_hours_waits(clock: str, expected: tuple[str, str | None]) -> None:
    one = story()
    assert told(one.ask(event(at=local("Europe/Dublin", f"2026-01-12 {clock}")))) == expected
    assert len(one.sends) == (expected[0] == "offered")
    assert len(one.timers) == (expected[0] == "deferred")


def test_what_waited_is_decided_again_when_quiet_hours_end() -> None:
    one = story()
    evening = local("Europe/Dublin", "2026-01-12 22:30:00")
    first = one.ask(event(at=evening, properties={"what": "tea"}))
    assert one.profile.contacts == ()
    morning = local("Europe/Dublin", "2026-01-13 08:00:00")
    assert one.wait(morning - seconds(1)) == []
    (second,) = one.wait(morning + SPREAD)
    assert (told(second), second.rule, second.trigger) == (("offered", None), "wish", "event")
    assert morning <= second.decided_at < morning + SPREAD
    assert second.id != first.id
    assert one.sends[0].candidate.scope.event["properties"] == {"what": "tea"}
    assert len(one.profile.contacts) == 1
    assert one.wait(morning + 3 * DAY) == []


def test_the_persons_own_clock_counts_also_where_clocks_change() -> None:
    one = story(timezone="America/New_York")
    night = local("America/New_York", "2026-03-07 23:30:00")
    assert told(one.ask(event(at=night)))[0] == "deferred"
    (second,) = one.wait(night + DAY)
    morning = local("America/New_York", "2026-03-08 08:00:00")  # an hour of the night is missing
    assert morning - night == timedelta(hours=7, minutes=30)
    assert morning <= second.decided_at < morning + SPREAD


@pytest.mark.parametrize(
    ("now", "clock", "then"),
    [
        ("2026-03-28 12:00:00", "01:30", "2026-03-29 01:30:00"),
        ("2026-03-29 00:59:59", "01:30", "2026-03-29 02:30:00"),  # 01:30 is left out in Dublin
        ("2026-10-25 00:00:00", "01:30", "2026-10-25 01:30:00"),  # it comes twice: the first
        ("2026-10-24 10:00:00", "10:00", "2026-10-24 10:00:00"),
        ("2026-10-24 10:00:01", "10:00", "2026-10-25 10:00:00"),
    ],
)
def test_the_next_time_that_a_clock_shows_an_hour(now: str, clock: str, then: str) -> None:
    moment = local("Europe/Dublin", now).astimezone(ZoneInfo("Europe/Dublin"))
    assert next_at(datetime.strptime(clock, "%H:%M").time(), moment) == local("Europe/Dublin", then)


@pytest.mark.parametrize(("then", "quiet"), list(itertools.product(("defer", "drop"), ("", "defer", "drop"))))
def test_a_rule_may_say_otherwise_than_the_workspace(then: str, quiet: str) -> None:
    rule = f"  wish: {{when: Wish, offer: gift{f', quiet: {quiet}' if quiet else ''}}}\n"
    one = story(rule, QUIET.replace("defer", then))
    outcome = told(one.ask(event(at=local("Europe/Dublin", "2026-01-12 22:00:00"))))[0]
    assert outcome == ("deferred" if (quiet or then) == "defer" else "suppressed")


def test_places_are_not_put_off_unless_the_rule_says_so() -> None:
    night = local("Europe/Dublin", "2026-01-12 22:00:00")
    one = story("  visit: {when: {enter: {tag: cafe}}, offer: gift}\n")
    assert told(one.ask(fix(CAFE, night))) == ("suppressed", "quiet_hours")
    one = story("  visit: {when: {enter: {tag: cafe}}, offer: gift, quiet: defer}\n")
    assert told(one.ask(fix(CAFE, night))) == ("deferred", "quiet_hours")
    (second,) = one.wait(night + DAY)
    assert (told(second)[0], second.geofence, second.trigger) == ("offered", "cafe", "enter")


def test_what_was_stale_when_it_came_is_not_put_off() -> None:
    one = story("  wish: {when: Wish, offer: gift, fresh: 10m}\n")
    night = local("Europe/Dublin", "2026-01-12 22:00:00")
    late = event(at=night - HOUR, received_at=night)
    assert said(one.ask(late)) == "stale_event"
    assert told(one.ask(event(at=night)))[0] == "deferred"
    assert [told(d)[0] for d in one.wait(night + DAY)] == ["offered"]


def test_a_service_message_waits_for_no_morning() -> None:
    one = story("  order: {when: Order, offer: ready, send: {at: '10:00'}}\n")
    assert told(one.ask(event("Order", local("Europe/Dublin", "2026-01-12 23:00:00"))))[0] == "offered"


# send


def test_a_rule_names_the_hour() -> None:
    one = story(MORNING)
    assert told(one.ask(event(at=NOON))) == ("deferred", "send_time")
    ten = local("Europe/Dublin", "2026-01-13 10:00:00")
    (second,) = one.wait(NOON + 5 * DAY)
    assert told(second)[0] == "offered"
    assert ten <= second.decided_at < ten + SPREAD


def test_a_hour_that_comes_too_late_is_none() -> None:
    one = story("  wish: {when: Wish, offer: gift, send: {at: '10:00', expires: 2h}}\n")
    late = one.ask(event(at=NOON))
    assert told(late) == ("suppressed", "send_time")
    assert one.timers == {}
    assert told(one.ask(event(at=NOON + timedelta(hours=20, minutes=30))))[0] == "deferred"


def test_an_hour_that_is_quiet_waits_once_more_until_it_expires() -> None:
    one = story("  wish: {when: Wish, offer: gift, send: {at: '22:00', expires: 2d}}\n")
    one.ask(event(at=NOON))
    second, third = one.wait(NOON + 5 * DAY)
    assert (told(second), told(third)) == (("deferred", "quiet_hours"), ("offered", None))
    assert third.decided_at >= local("Europe/Dublin", "2026-01-13 08:00:00")


def test_an_engine_that_was_away_too_long_sends_nothing() -> None:
    one = story(MORNING)
    one.ask(event(at=NOON))
    (timer,) = one.timers.values()
    (second,) = one.tell(msgspec.structs.replace(timer.event, received_at=NOON + 2 * DAY + seconds(1)))
    assert told(second) == ("suppressed", "stale_event")


def test_everything_is_looked_at_anew() -> None:
    """Consent, what was bought, caps: the second decision is a whole one."""
    denied = {"marketing": Consent(False, NOON, "marketing")}
    one = story(MORNING)
    one.ask(event(at=NOON))
    one.profile = msgspec.structs.replace(one.profile, consent=denied)
    assert [told(d) for d in one.wait(NOON + 2 * DAY)] == [("suppressed", "no_consent")]

    bought = MORNING.replace("offer: gift", "offer: gift, unless: {event: Bought, within: 1d}")
    one = story(bought)
    one.ask(event(at=NOON))
    one.tell(event("Bought", NOON + HOUR))
    assert [told(d) for d in one.wait(NOON + 2 * DAY)] == [("suppressed", "condition_false")]

    first_only = MORNING.replace("offer: gift", "offer: gift, unless: {event: Wish, within: 1h}")
    one = story(first_only)
    one.ask(event(at=NOON))
    assert [told(d)[0] for d in one.wait(NOON + 2 * DAY)] == ["offered"]  # its own wish is no other

    capped = MORNING.replace("offer: gift", "offer: gift, cap: {times: 1, per: 2d}") + (
        "  now: {when: Now, offer: gift}\n"
    )
    one = story(capped, QUIET + "caps: [{channel: push, times: 1, per: 2d}]\n")
    one.ask(event(at=NOON))
    one.ask(event("Now", NOON + HOUR))
    assert [told(d) for d in one.wait(NOON + 2 * DAY)] == [("suppressed", "capped")]


AUDIENCE = """
audiences: {small: "profile.orders - profile.returns < 1"}
"""
COUNTS = "computed: {orders: {count: Bought}, returns: {count: Returned}}\n"


@pytest.mark.parametrize("back", [True, False])
def test_who_left_the_audience_again_by_then_is_offered_nothing(back: bool) -> None:
    rules = (
        AUDIENCE + OFFERS + "  again: {when: {audience: small, change: entered}, offer: gift, "
        "send: {at: '10:00', expires: 2d}}\n"
    )
    one = Story(rule_set(rules, PURPOSES + COUNTS))
    one.tell(event("Bought", NOON))
    (first,) = one.tell(event("Returned", NOON + HOUR))
    assert told(first) == ("deferred", "send_time")
    if back:
        one.tell(event("Bought", NOON + 2 * HOUR))
    expected = ("suppressed", "not_in_audience") if back else ("offered", None)
    assert [told(d) for d in one.wait(NOON + 2 * DAY)] == [expected]


@pytest.mark.parametrize(("quiet", "expected"), [("", "suppressed"), (", quiet: defer", "deferred")])
def test_who_arrives_at_night_is_not_told_in_the_morning_unless_the_rule_says_so(
    quiet: str, expected: str
) -> None:
    rules = OFFERS.replace("event.properties.what", "trip.order_id") + (
        f"  here: {{when: {{arrived: pickup}}, if: trip.order_id == 'o1', offer: gift{quiet}}}\n"
        "trips:\n  pickup: {starts: {event: Order Placed}, to: event.properties.store}\n"
    )
    night = local("Europe/Dublin", "2026-01-12 21:30:00")
    one = Story(rule_set(rules, PURPOSES + QUIET), someone(consent=EVERYWHERE))
    one.tell(event("Order Placed", night, properties={"order_id": "o1", "store": "cafe"}))
    (first,) = one.tell(fix(CAFE, night + seconds(60)))
    assert (first.trigger, *told(first)) == ("arrived", expected, "quiet_hours")
    morning = [told(d) for d in one.wait(night + DAY)]
    assert morning == ([("offered", None)] if quiet else [])


def test_what_is_put_off_again_takes_the_place_of_what_was() -> None:
    one = story(MORNING)
    for minute in range(5):
        one.ask(event(at=NOON + minute * seconds(60), properties={"what": str(minute)}))
    assert len(one.timers) == 1
    assert len(one.wait(NOON + 5 * DAY)) == 1
    assert one.sends[0].candidate.scope.event["properties"] == {"what": "4"}


def test_a_cart_left_at_night_waits_for_the_morning_each_for_itself() -> None:
    rules = "  cart: {when: {event: Cart, for: 1h, by: event.properties.what}, offer: gift}\n"
    one = story(rules)
    night = local("Europe/Dublin", "2026-01-12 22:00:00")
    for what in ("a", "b"):
        one.tell(event("Cart", night, properties={"what": what}))
    outcomes = [told(d)[0] for d in one.wait(night + DAY)]
    assert outcomes == ["deferred", "deferred", "offered", "offered"]
    assert {s.candidate.scope.event["properties"]["what"] for s in one.sends} == {"a", "b"}


def test_a_country_is_spread_over_some_minutes_always_the_same_ones() -> None:
    rules = rule_set(OFFERS + MORNING, PURPOSES)

    def due(number: int) -> datetime:
        person = someone(id=new_profile(("user_id", f"u{number}"), SECRET, NOON).id)
        one = Story(rules, person)
        one.ask(event(at=NOON))
        (timer,) = one.timers.values()
        assert timer.paced
        return timer.due_at

    ten = local("Europe/Dublin", "2026-01-13 10:00:00")
    minutes = [int((due(n) - ten).total_seconds() // 60) for n in range(100)]
    assert set(minutes) == {0, 1, 2, 3, 4}
    assert all(minutes.count(minute) >= 10 for minute in range(5))
    assert due(7) == due(7)


def test_a_person_cannot_bring_an_hour_about() -> None:
    one = story(MORNING)
    one.ask(event(at=NOON))
    (timer,) = one.timers.values()
    assert one.tell(event(timer.event.name, NOON, properties=timer.event.properties)) == ()
