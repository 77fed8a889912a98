"""The stories that the language must say, word for word, each as a timeline with its edges.

The story of business accounts is told where accounts are."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.offers.decisions import Decision
from engine.domain.people.events import Event, Kind, Location, Sender
from engine.domain.people.profiles import Trait, new_profile
from tests.story import BEFORE, NOON, SECRET, Story, event, local, rule_set, said, seconds, someone

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

WORKSPACE = """
consent: {purposes: {marketing: {}, service: {basis: contract}}}
traits: {departs_at: {type: timestamp}}
computed:
  orders: {count: Order Completed}
  lifetime_value: {sum: event.properties.revenue, of: Order Completed}
  days_since_order: {days_since: Order Completed}
  usual_cafe: {most_often: event.properties.store_id, of: Order Completed, within: 90d, at_least: 3}
  usual_hours: {most_often: local.hour, of: Order Completed, within: 90d, at_least: 3, top: 2}
  tier: {steps: lifetime_value, from: {bronze: 0, silver: 200, gold: 500}}
"""
STORIES = """
geofences:
  cafe: {circle: {lat: 51.4712, lng: -0.4880, radius: 60}, tags: [cafe], properties: {store_id: s12}}
  shop: {circle: {lat: 51.4712, lng: -0.4680, radius: 60}, tags: [duty_free]}
audiences:
  dormant: profile.days_since_order >= 30
  likely_buyers: propensity.buy_policy > 0.6 && profile.orders == 0
offers:
  duty-free-10: {purpose: marketing, message: {push: {title: T, body: B}}}
  free-latte: {purpose: marketing, message: {push: {title: T, body: B}}}
  free-cookie: {purpose: marketing, message: {push: {title: T, body: B}}}
  test-drive: {purpose: marketing, message: {push: {title: T, body: B}}}
  home: {purpose: marketing, value: 100.0, propensity: 0.10, message: {push: {title: T, body: B}}}
  motor: {purpose: marketing, value: 100.0, propensity: 0.20, message: {push: {title: T, body: B}}}
  life: {purpose: marketing, value: 300.0, propensity: 0.05, message: {push: {title: T, body: B}}}
  usual-order: {purpose: marketing, message: {push: {title: T, body: B}}}
  come-back: {purpose: marketing, message: {push: {title: T, body: B}}}
  your-cart: {purpose: marketing, message: {push: {title: T, body: B}}}
actions:
  tell-kitchen: {purpose: service, webhook: kitchen, body: {order: "{{ trip.order_id }}"}}
rules:
  duty-free-ahead:
    when: {approach: {tag: duty_free}, within: 60s}
    if: profile.departs_at - now > duration("40m")
    unless: {event: Gate Changed, within: 30m}
    offer: duty-free-10
  latte:
    when: {approach: {tag: cafe}, within: 90s}
    if: profile.tier in ["gold", "silver"] && weather.temp_c < 12.0
    offer: free-latte
    cap: {times: 1, per: 7d}
  test-drive:
    when: {event: Finance Calculator Used}
    after: {page: Car Review, within: 30m, by: event.properties.model}
    unless: {event: Car Purchased}
    offer: test-drive
  next-policy:
    when: {schedule: "0 10 * * 1", audience: likely_buyers, over: 4h}
    offers: [home, motor, life]
  usual-order:
    when: {approach: {tag: cafe}, within: 3m}
    if: geofence.store_id == profile.usual_cafe && local.hour in profile.usual_hours
    offer: usual-order
  win-back:
    when: {audience: dormant, change: entered}
    send: {at: "10:00", expires: 2d}
    offer: come-back
  cart:
    when: {event: Cart Updated, for: 1h, by: event.properties.cart_id}
    unless:
      - {event: Order Completed, by: event.properties.cart_id}
      - {event: Cart Emptied, by: event.properties.cart_id}
    cap: {times: 1, per: 30d, by: event.properties.cart_id}
    offer: your-cart
  copy-test:
    when: {enter: {tag: cafe}}
    experiment: latte-copy-1
    holdout: 10%
    variants: {warm: {share: 50%, offer: free-latte}, cookie: {share: 50%, offer: free-cookie}}
  kitchen:
    when: {arriving: pickup, within: 3m}
    do: tell-kitchen
trips:
  pickup:
    starts: {event: Order Placed, if: event.properties.fulfilment == "pickup"}
    to: event.properties.store_id
    by: event.properties.order_id
    ends: [Order Picked Up, Order Cancelled]
    expires: 2h
"""
RULES = rule_set(STORIES, WORKSPACE, models=["buy_policy"])
METERS_PER_DEGREE = 69_300.0
"""Of longitude, at that latitude."""


def story(number: int = 1, scores: dict[str, float | None] | None = None, **fields: Any) -> Story:
    person = new_profile(("user_id", f"u{number}"), SECRET, NOON).id
    return Story(RULES, someone(id=person, **fields), scores or {"buy_policy": 0.1})


def walk(one: Story, to: float, start: Any, *, meters: float = 400.0, **context: Any) -> list[Decision]:
    """Towards a fence from the west at 1.4 m/s, a fix every five seconds, and inside at the end."""
    made: list[Decision] = []
    for step in range(int(meters / 7) + 1):
        place = Location(
            latitude=51.4712,
            longitude=to - (meters - 7 * step) / METERS_PER_DEGREE,
            accuracy=5.0,
            speed=1.4,
            heading=90.0,
        )
        fix = event("Location Updated", start + seconds(5 * step), location=place, context=context)
        made += one.tell(fix)
    return made


CAFE, SHOP = -0.4880, -0.4680


def by_rule(decisions: list[Decision]) -> dict[str | None, str]:
    return {d.rule: said(d) for d in decisions if said(d) != "condition_false"}


# duty free


@pytest.mark.parametrize(
    ("minutes", "gate_changed", "expected"),
    [
        (120, None, "offered"),
        (30, None, None),  # too little time
        (120, 10 * MINUTE, None),
        (120, 40 * MINUTE, "offered"),
    ],
)
def test_duty_free_ahead(minutes: int, gate_changed: timedelta | None, expected: str | None) -> None:
    departs = Trait((NOON + minutes * MINUTE).isoformat(), BEFORE)
    one = story(traits={"departs_at": departs})
    if gate_changed is not None:
        one.tell(event("Gate Changed", NOON - gate_changed))
    assert by_rule(walk(one, SHOP, NOON)).get("duty-free-ahead") == expected


# latte, usual order, copy test


def test_a_latte_once_a_week_for_those_who_earned_it_on_a_cold_day() -> None:
    one = story()
    weather = {"weather": {"temp_c": 4.0}}
    assert "latte" not in by_rule(walk(one, CAFE, NOON, **weather))
    one.tell(event("Order Completed", NOON + HOUR, properties={"revenue": 250.0}))
    assert by_rule(walk(one, CAFE, NOON + 2 * HOUR, **weather))["latte"] == "offered"
    assert by_rule(walk(one, CAFE, NOON + DAY, **weather))["latte"] == "capped"
    assert "latte" not in by_rule(walk(one, CAFE, NOON + 8 * DAY, weather={"temp_c": 12.0}))
    assert by_rule(walk(one, CAFE, NOON + 9 * DAY, **weather))["latte"] == "offered"


def test_the_usual_order_at_the_usual_place_and_hour() -> None:
    one = story()
    for day in (1, 2, 3):
        one.tell(event("Order Completed", NOON + day * DAY, properties={"store_id": "s12", "revenue": 3}))
    assert by_rule(walk(one, CAFE, NOON + 4 * DAY)).get("usual-order") == "offered"
    assert "usual-order" not in by_rule(walk(one, CAFE, NOON + 5 * DAY + 3 * HOUR))


def test_two_copies_are_tried_on_everybody_but_a_tenth() -> None:
    found: Counter[tuple[str | None, str]] = Counter()
    for number in range(150):
        decisions = walk(story(number), CAFE, NOON, meters=70.0)
        (tried,) = [d for d in decisions if d.rule == "copy-test"]
        found[tried.offer, said(tried)] += 1
    assert found.keys() == {
        *(("free-latte", how) for how in ("offered", "experiment_control")),
        *(("free-cookie", how) for how in ("offered", "experiment_control")),
    }
    assert 5 <= sum(n for (_, how), n in found.items() if how == "experiment_control") <= 30


# test drive


def review(at: Any, model: str) -> Event:
    return event("Car Review", at, kind=Kind.PAGE, properties={"model": model})


def calculator(at: Any, model: str) -> Event:
    return event("Finance Calculator Used", at, properties={"model": model})


def test_a_test_drive_after_review_and_calculator_until_one_is_bought() -> None:
    one = story()
    one.tell(review(NOON, "x1"))
    assert said(one.ask(calculator(NOON + 30 * MINUTE + seconds(1), "x1"))) == "condition_false"
    one.tell(review(NOON + HOUR, "x1"))
    assert said(one.ask(calculator(NOON + HOUR + 30 * MINUTE, "x1"))) == "offered"
    one.tell(event("Car Purchased", NOON + 2 * HOUR))
    one.tell(review(NOON + 3 * HOUR, "x1"))
    assert said(one.ask(calculator(NOON + 3 * HOUR, "x1"))) == "condition_false"


# next policy


def test_the_policy_worth_most_on_monday_for_those_likely_to_buy() -> None:
    one = story(scores={"buy_policy": 0.7})
    one.tell(event("Quote Asked", traits={"departs_at": NOON.isoformat()}))
    monday = local("Europe/Dublin", "2026-01-19 10:00:00")
    (made,) = one.wait(monday + 4 * HOUR)
    assert (made.rule, made.offer, said(made), made.trigger) == (
        "next-policy",
        "motor",
        "offered",
        "schedule",
    )
    assert {c.offer: c.reason and c.reason.value for c in made.candidates} == {
        "home": "outranked",
        "motor": None,
        "life": "outranked",
    }
    one.tell(event("Order Completed", monday + DAY, properties={"revenue": 1}))
    assert "next-policy" not in {d.rule for d in one.wait(monday + 8 * DAY)}


# win back


def test_who_was_away_for_thirty_days_hears_of_it_at_ten() -> None:
    one = story()
    one.tell(event("Order Completed", NOON, properties={"revenue": 1}))
    thirty = NOON + 30 * DAY
    decisions = one.wait(thirty + 2 * HOUR)
    assert [(d.rule, d.outcome.value, said(d)) for d in decisions] == [("win-back", "deferred", "send_time")]
    ten = local("Europe/Dublin", "2026-02-12 10:00:00")
    assert one.wait(ten - seconds(1)) == []
    (made,) = one.wait(ten + 5 * MINUTE)
    assert (made.rule, said(made)) == ("win-back", "offered")
    assert made.decided_at >= ten


def test_who_came_back_in_the_meantime_is_still_told_but_enters_anew_only_after_another_thirty() -> None:
    one = story()
    one.tell(event("Order Completed", NOON, properties={"revenue": 1}))
    one.wait(NOON + 30 * DAY + HOUR)
    one.tell(event("Order Completed", NOON + 30 * DAY + 2 * HOUR, properties={"revenue": 1}))
    made = one.wait(NOON + 60 * DAY)
    assert [d.rule for d in made] == ["win-back"]


# cart


def test_a_cart_left_alone_once_a_month_each() -> None:
    one = story()
    for minute, cart in ((0, "a"), (10, "b"), (20, "a")):
        one.tell(event("Cart Updated", NOON + minute * MINUTE, properties={"cart_id": cart}))
    made = one.wait(NOON + DAY)
    assert [(d.decided_at, said(d)) for d in made] == [
        (NOON + 70 * MINUTE, "offered"),
        (NOON + 80 * MINUTE, "offered"),
    ]
    one.tell(event("Cart Updated", NOON + 2 * DAY, properties={"cart_id": "a"}))
    assert [said(d) for d in one.wait(NOON + 3 * DAY)] == ["capped"]
    one.tell(event("Cart Updated", NOON + 31 * DAY, properties={"cart_id": "a"}))
    one.tell(event("Cart Emptied", NOON + 31 * DAY + MINUTE, properties={"cart_id": "a"}))
    assert one.wait(NOON + 32 * DAY) == []


# kitchen


def test_the_kitchen_hears_of_a_pickup_three_minutes_ahead() -> None:
    one = story()
    placed = {"fulfilment": "pickup", "store_id": "s12", "order_id": "o7"}
    one.tell(event("Order Placed", NOON - MINUTE, properties=placed))
    made = [d for d in walk(one, CAFE, NOON) if d.rule == "kitchen"]
    assert [(d.offer, d.channel, said(d)) for d in made] == [("tell-kitchen", "webhook", "offered")]
    assert 60 <= (400 / 1.4) - (made[0].decided_at - NOON).total_seconds() <= 240


# a journey, as the README shows it


def test_a_reminder_of_a_cart_that_was_not_looked_at() -> None:
    rules = """
offers:
  your-cart: {purpose: marketing, message: {push: {title: T, body: B}}}
  your-cart-again: {purpose: marketing, message: {push: {title: T, body: B}}}
rules:
  cart:
    when: {event: Cart Updated, for: 1h, by: event.properties.cart_id}
    unless: {event: Order Completed, by: event.properties.cart_id}
    offer: your-cart
  reminder:
    when: {event: Offer Delivered, for: 1d, if: event.rule == "cart"}
    unless: {event: Offer Tapped, within: 1d}
    send: {at: "10:00", expires: 2d}
    offer: your-cart-again
"""

    def played(*, taps: bool) -> list[tuple[str | None, str]]:
        one = Story(rule_set(rules))
        one.tell(event("Cart Updated", NOON, properties={"cart_id": "a"}))
        (made,) = one.wait(NOON + HOUR)
        told = {"properties": {"decision": made.id}}
        one.tell(event("Offer Delivered", NOON + HOUR, sender=Sender.ENGINE, **told))
        if taps:
            one.tell(event("Offer Tapped", NOON + 2 * HOUR, **told))
        return [(d.rule, d.outcome.value) for d in one.wait(NOON + 5 * DAY)]

    assert played(taps=False) == [("reminder", "deferred"), ("reminder", "offered")]
    assert played(taps=True) == []


# what must hold whatever happens


def deed(number: int, what: tuple[int, int]) -> Event:
    """One of the things that people do, at some minute of three days."""
    kind, minute = what
    at, name = NOON + minute * MINUTE, f"m{number}"
    made = [
        event("Cart Updated", at, properties={"cart_id": "a"}),
        event("Order Completed", at, properties={"cart_id": "a", "revenue": 120, "store_id": "s12"}),
        review(at, "x1"),
        calculator(at, "x1"),
        event("Offer Shown", at, properties={"decision": "nobody's"}),
        event("Car Purchased", at),
    ][kind]
    return msgspec.structs.replace(made, message_id=name)


deeds = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3 * 24 * 60)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(deeds, st.randoms(use_true_random=False))
def test_a_replay_decides_the_same(done: list[tuple[int, int]], random: Any) -> None:
    """Deciding is pure: the same events in the same order, timers with them, give the same decisions."""

    def played() -> tuple[list[Decision], Any]:
        one = story()
        for number, what in enumerate(done):
            told = deed(number, what)
            one.wait(told.timestamp)
            one.tell(told, max(told.timestamp, NOON))
        one.wait(NOON + 40 * DAY)
        return one.decisions, one.profile

    assert played() == played()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 300), st.booleans()), max_size=25))
def test_no_cap_is_exceeded_in_whatever_order(wishes: list[tuple[int, int, bool]]) -> None:
    """Several rules, caps by value and of the workspace, offers that wait for the morning: in no window
    is more offered than it says."""
    rules = """
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: b}}}
rules:
  now: {when: Wish, offer: gift, cap: {times: 2, per: 1h, by: event.properties.cart}}
  later: {when: Later, offer: gift, send: {at: "10:00", expires: 3d}, cap: {times: 1, per: 2d}}
"""
    capped = (
        "caps: [{channel: push, times: 3, per: 2h}]\nquiet_hours: {from: '21:00', to: '08:00', then: defer}\n"
    )
    one = Story(rule_set(rules, capped))
    now = NOON
    for cart, minute, later in wishes:
        now = max(now, NOON + minute * 20 * MINUTE)  # received in this order, whatever they say
        one.wait(now)
        one.tell(
            event(
                "Later" if later else "Wish",
                NOON + minute * 20 * MINUTE,
                received_at=now,
                properties={"cart": cart},
            )
        )
    one.wait(now + 5 * DAY)
    made = [(s.decision.decided_at, s.candidate) for s in one.sends]
    for at, candidate in made:
        before = [other for moment, other in made if at - 2 * HOUR < moment <= at]
        assert len(before) <= 3
        if candidate.rule.id == "now":
            cart = candidate.scope.event["properties"]["cart"]
            same = [
                c
                for moment, c in made
                if at - HOUR < moment <= at
                and c.rule.id == "now"
                and c.scope.event["properties"]["cart"] == cart
            ]
            assert len(same) <= 2
        else:
            assert len([c for m, c in made if at - 2 * DAY < m <= at and c.rule.id == "later"]) <= 1
