"""What becomes of offers, and what depends on it: conversions, caps of what was delivered or shown,
rules set off by outcomes, actions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from engine.adapters.postgres.outbox import Call, Outbox
from engine.domain.offers.decisions import Decision
from engine.domain.offers.delivery import Send, dropped
from engine.domain.people.events import Event, Sender
from tests import lanes
from tests.lanes import arrival, fetch
from tests.story import NOON, Story, event, rule_set, said, seconds

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OFFERS = """
offers:
  latte:
    purpose: marketing
    tags: [drinks]
    converts: {event: Order Completed, if: offer.id in event.properties.coupons, within: 2h}
    message: {push: {title: Latte, body: For you}}
  cookie: {purpose: marketing, message: {push: {title: Cookie, body: For you}}}
  ready: {purpose: service, message: {push: {title: Ready, body: Come in}}}
actions:
  tell-kitchen:
    purpose: service
    webhook: kitchen
    body: {order: "{{ event.properties.order }}", name: "{{ profile.first_name | default: 'friend' }}"}
rules:
"""
WORKSPACE = """
consent: {purposes: {marketing: {}, service: {basis: contract}}}
traits: {first_name: {type: string}}
computed: {taken: {count: Offer Converted}, orders: {count: Order Completed}}
"""
WISH = "  wish: {when: Wish, offer: latte}\n"


def story(rules: str = WISH, offers: str = OFFERS) -> Story:
    return Story(rule_set(offers + rules, WORKSPACE))


def order(at: Any, *coupons: str, **fields: Any) -> Event:
    return event("Order Completed", at, properties={"coupons": list(coupons)}, **fields)


def outcome(name: str, decision: Decision, at: Any = NOON, sender: Sender = Sender.ENGINE) -> Event:
    return event(name, at, properties={"decision": decision.id}, sender=sender)


# conversions


@pytest.mark.parametrize(
    ("after", "coupons", "expected"),
    [
        (timedelta(0), ["latte"], "already_converted"),
        (2 * HOUR, ["latte"], "already_converted"),
        (2 * HOUR + seconds(1), ["latte"], "offered"),
        (seconds(-1), ["latte"], "offered"),
        (HOUR, ["cookie"], "offered"),
    ],
)
def test_an_offer_taken_up_in_its_time_is_not_made_again(
    after: timedelta, coupons: list[str], expected: str
) -> None:
    one = story()
    assert said(one.ask(event())) == "offered"
    one.tell(order(NOON + after, *coupons, received_at=NOON + 3 * HOUR))
    assert said(one.ask(event(at=NOON + 400 * DAY))) == expected


def test_after_a_while_it_may_be_made_again() -> None:
    one = story(offers=OFFERS.replace("tags: [drinks]", "again_after: 30d"))
    one.ask(event())
    one.tell(order(NOON + HOUR, "latte"))
    assert one.wish(NOON + HOUR + 30 * DAY - seconds(1), NOON + HOUR + 30 * DAY) == [
        "already_converted",
        "offered",
    ]


def test_a_conversion_is_an_event_of_the_offer_made_last_and_comes_once() -> None:
    one = story(WISH + "  thanks: {when: Offer Converted, if: event.offer == 'latte', offer: cookie}\n")
    one.ask(event())
    second = one.ask(event(at=NOON + HOUR))
    one.tell(order(NOON + HOUR + seconds(60), "latte"))
    (timer,) = one.timers.values()
    assert timer.event.properties["decision"] == second.id
    (thanks,) = one.wait(NOON + 2 * HOUR)
    assert (thanks.rule, thanks.offer, said(thanks)) == ("thanks", "cookie", "offered")
    assert one.profile.computed["taken"] == 1
    one.tell(order(NOON + HOUR + seconds(90), "latte"))  # of the first one, still in its time
    assert [c.converted for c in one.profile.contacts[:2]] == [True, True]


def test_what_an_app_or_a_shop_says_of_a_conversion_counts_for_nothing() -> None:
    one = story(WISH + "  thanks: {when: Offer Converted, offer: cookie}\n")
    made = one.ask(event())
    for sender in (Sender.CLIENT, Sender.GENERATED):
        assert one.tell(outcome("Offer Converted", made, sender=sender)) == ()
    assert "taken" not in one.profile.computed


# expiry


def test_an_offer_that_is_not_taken_up_expires() -> None:
    one = story(WISH + "  again: {when: Offer Expired, if: event.rule == 'wish', offer: cookie}\n")
    one.ask(event())
    assert one.wait(NOON + 2 * HOUR - seconds(1)) == []
    (again,) = one.wait(NOON + 2 * HOUR)
    assert (again.rule, again.offer) == ("again", "cookie")


def test_an_offer_that_was_taken_up_does_not_expire() -> None:
    one = story(WISH + "  again: {when: Offer Expired, offer: cookie}\n")
    made = one.ask(event())
    one.tell(order(NOON + HOUR, "latte"))
    assert [timer.event.name for timer in one.timers.values()] == ["Offer Converted"]
    assert one.tell(outcome("Offer Expired", made, NOON + 2 * HOUR)) == ()


def test_where_no_rule_asks_nothing_waits_for_expiry() -> None:
    one = story()
    one.ask(event())
    assert one.timers == {}


# what apps tell


def test_an_offer_shown_sets_rules_off_and_is_told_by_its_offer_and_rule() -> None:
    one = story(WISH + "  seen: {when: Offer Shown, if: event.offer == 'latte', offer: cookie}\n")
    made = one.ask(event())
    assert one.tell(event("Offer Shown", NOON, properties={"decision": "somebody else's"})) == ()
    (seen,) = one.tell(outcome("Offer Shown", made, sender=Sender.CLIENT))
    assert (seen.rule, said(seen)) == ("seen", "offered")
    assert one.profile.contacts[0].shown


def test_journeys_are_made_of_rules() -> None:
    rules = (
        WISH + "  forgotten: {when: {event: Offer Delivered, for: 1h}, "
        "unless: {event: Offer Tapped, within: 1h}, offer: cookie}\n"
    )
    one = story(rules)
    made = one.ask(event())
    one.tell(outcome("Offer Delivered", made))
    assert [said(d) for d in one.wait(NOON + HOUR)] == ["offered"]
    one = story(rules)
    made = one.ask(event())
    one.tell(outcome("Offer Delivered", made))
    one.tell(outcome("Offer Tapped", made, NOON + HOUR / 2, Sender.CLIENT))
    assert one.wait(NOON + DAY) == []


def test_messages_under_a_contract_are_followed_where_a_rule_asks_and_use_up_no_cap() -> None:
    order = "  order: {when: Order, offer: ready}\n"
    rules = order + (
        "  forgotten: {when: {event: Offer Delivered, for: 30m, if: event.rule == 'order'}, "
        "unless: {event: Offer Tapped, within: 30m}, offer: ready}\n"
        "  wish: {when: Wish, offer: cookie}\n"
    )
    for taps in (True, False):
        one = Story(rule_set(OFFERS + rules, WORKSPACE + "caps: [{times: 1, per: 1d}]\n"))
        made = one.ask(event("Order"))
        one.tell(outcome("Offer Delivered", made))
        if taps:
            one.tell(outcome("Offer Tapped", made, NOON + seconds(60), Sender.CLIENT))
        assert [d.rule for d in one.wait(NOON + HOUR)] == ([] if taps else ["forgotten"])
        assert one.wish(NOON + HOUR, NOON + 2 * HOUR) == ["offered", "capped"]
    plain = Story(rule_set(OFFERS + order, WORKSPACE.replace("{count: Offer Converted}", "{count: X}")))
    plain.ask(event("Order"))
    assert plain.profile.contacts == ()


# caps


@pytest.mark.parametrize(("count", "told"), [("delivered", "Offer Delivered"), ("shown", "Offer Shown")])
def test_a_cap_counts_what_came_to_that(count: str, told: str) -> None:
    one = story(f"  wish: {{when: Wish, offer: cookie, cap: {{times: 1, per: 1h, count: {count}}}}}\n")
    assert one.wish(NOON, NOON + seconds(1)) == ["offered", "offered"]
    sender = Sender.ENGINE if told == "Offer Delivered" else Sender.CLIENT
    one.tell(outcome(told, one.decisions[0], NOON + seconds(2), sender))
    assert one.wish(NOON + seconds(3)) == ["capped"]
    assert one.wish(NOON + HOUR) == ["offered"]


def test_a_cap_counts_each_value_for_itself() -> None:
    cap = "{times: 1, per: 30d, by: event.properties.cart_id}"
    one = story(f"  wish: {{when: Wish, offer: cookie, cap: {cap}}}\n")

    def wish(day: int, **properties: Any) -> str:
        return said(one.ask(event(at=NOON + day * DAY, properties=properties)))

    assert [wish(0, cart_id="a"), wish(1, cart_id="b"), wish(2, cart_id="a")] == [
        "offered",
        "offered",
        "capped",
    ]
    assert [wish(3), wish(4)] == ["offered", "capped"]  # those without a value count together
    assert [wish(30, cart_id="a"), wish(30, cart_id="b")] == ["offered", "capped"]


def test_an_uncounted_budget_and_a_code_stop_an_offer_rather_than_give_it_away() -> None:
    limits = {"budget: {times: 500, per: day}": "budget_exhausted", "code: {pool: p}": "no_code"}
    for limit, reason in limits.items():
        one = story(offers=OFFERS.replace("tags: [drinks]", limit))
        stopped = one.ask(event())
        assert said(stopped) == reason
        assert stopped.candidates[0].numbers["counted"] is False


# actions

KITCHEN = "  kitchen: {when: Order Placed, do: tell-kitchen}\n"


def test_an_action_needs_no_device_and_competes_with_nothing() -> None:
    one = story(WISH + KITCHEN + "  also: {when: Order Placed, offer: latte}\n")
    one.profile = msgspec.structs.replace(one.profile, devices={})
    decisions = one.tell(event("Order Placed", properties={"order": 7}))
    assert [(d.rule, d.offer, d.channel, said(d)) for d in decisions] == [
        ("also", "latte", "push", "no_device"),
        ("kitchen", "tell-kitchen", "webhook", "offered"),
    ]
    assert one.profile.contacts == ()


def test_an_action_asks_for_its_purpose() -> None:
    one = story(KITCHEN, OFFERS.replace("purpose: service\n    webhook", "purpose: marketing\n    webhook"))
    one.profile = msgspec.structs.replace(one.profile, consent={})
    assert said(one.ask(event("Order Placed"))) == "no_consent"


async def test_an_action_is_a_row_of_the_outbox_that_waits_for_its_webhook(postgres_dsn: str) -> None:
    rules = lanes.rule_set((OFFERS + KITCHEN).encode(), WORKSPACE.encode())
    async with lanes.engine(postgres_dsn, rules) as engine:
        placed = lanes.event(name="Order Placed", user="ada", properties={"order": "o7"})
        reply = await engine.send(arrival("ada", traits={"first_name": "Ada"}), placed)
        assert [d.channel for d in reply.decisions] == ["webhook"]
        (row,) = await fetch(postgres_dsn, "SELECT * FROM outbox")
        assert (row["provider"], row["lease"]) == ("receiver:kitchen", None)
        outbox = Outbox(engine.store.pool)
        assert await outbox.claim(10, ["fcm"], lanes.NOW) == []
        (send,) = await outbox.claim(10, ["receiver:kitchen"], lanes.NOW)
        assert isinstance(send, Send)
        assert send.payload == Call(
            webhook="kitchen",
            body={"order": "o7", "name": "Ada"},
            decision=reply.decisions[0].id,
            action="tell-kitchen",
            rule="kitchen",
        )
        assert await outbox.settle([dropped(send, "expired", lanes.NOW)], lanes.NOW) == []
        (told,) = await fetch(postgres_dsn, "SELECT event FROM timers")
        assert lanes.decoded(told["event"])["properties"]["channel"] == "webhook"
