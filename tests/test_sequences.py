"""What rules look back at and wait for, as timelines: `after`, `unless`, `for`, and their `by`."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.people import memory
from engine.domain.people.profiles import Profile
from tests.story import CAFE, FAR, NOON, Story, event, fix, rule_set, said, seconds, someone, stored

OFFER = """
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: "For {{ event.properties.cart_id }}"}}}
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {store_id: s1}}
rules:
"""
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def story(rules: str) -> Story:
    return Story(rule_set(OFFER + rules))


def at(moment: datetime, name: str, **properties: Any) -> Any:
    return event(name, moment, properties=properties)


def reasons(*decisions: Any) -> list[str]:
    return [said(decision) for decision in decisions]


# after

DRIVE = """
  test-drive:
    when: {event: Finance Calculator Used}
    after: {event: Car Review, within: 30m, by: event.properties.model}
    unless: {event: Car Purchased}
    offer: gift
"""


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (seconds(-1), "condition_false"),  # it came first, but happened later
        (seconds(0), "offered"),
        (30 * MINUTE - seconds(1), "offered"),
        (30 * MINUTE, "offered"),
        (30 * MINUTE + seconds(1), "condition_false"),
    ],
)
def test_what_must_have_happened_before_counts_for_its_time(later: timedelta, expected: str) -> None:
    one = story(DRIVE)
    one.tell(at(NOON, "Car Review", model="a"))
    assert said(one.ask(at(NOON + later, "Finance Calculator Used", model="a"))) == expected


def test_another_value_is_another_sequence() -> None:
    one = story(DRIVE)
    one.tell(at(NOON, "Car Review", model="a"))
    one.tell(at(NOON + MINUTE, "Car Review", model="b"))
    assert said(one.ask(at(NOON + 2 * MINUTE, "Finance Calculator Used", model="c"))) == "condition_false"
    assert said(one.ask(at(NOON + 3 * MINUTE, "Finance Calculator Used"))) == "condition_unknown"
    assert said(one.ask(at(NOON + 4 * MINUTE, "Finance Calculator Used", model="a"))) == "offered"


def test_what_is_missing_and_what_was_bought_are_told() -> None:
    one = story(DRIVE)
    first = one.ask(at(NOON, "Finance Calculator Used", model="a"))
    (candidate,) = first.candidates
    assert candidate.numbers == {"after": "by event.properties.model event Car Review within 30m"}
    one.tell(at(NOON, "Car Review", model="a"))
    one.tell(at(NOON + MINUTE, "Car Purchased"))
    second = one.ask(at(NOON + 2 * MINUTE, "Finance Calculator Used", model="a"))
    assert second.candidates[0].numbers == {"unless": "event Car Purchased"}
    assert said(one.ask(at(NOON + 400 * DAY, "Finance Calculator Used", model="a"))) == "condition_false"


def test_late_events_find_their_place() -> None:
    """The phone was away: the review came after the calculator, but happened before."""
    one = story(DRIVE)
    one.tell(event("Car Review", NOON, received_at=NOON + HOUR, properties={"model": "a"}))
    one.tell(event("Car Review", NOON + 2 * HOUR, properties={"model": "a"}))
    late = event(
        "Finance Calculator Used", NOON + MINUTE, received_at=NOON + 3 * HOUR, properties={"model": "a"}
    )
    assert said(one.ask(late)) == "offered"


def test_an_event_is_not_its_own_past() -> None:
    one = story("  again: {when: Wish, after: {event: Wish, within: 1h}, offer: gift}\n")
    assert one.wish(NOON, NOON + MINUTE, NOON + 2 * HOUR, NOON + 3 * HOUR) == [
        "condition_false",
        "offered",
        "condition_false",
        "offered",
    ]


def test_the_first_in_a_while() -> None:
    one = story("  first: {when: Wish, unless: {event: Wish, within: 1h}, offer: gift}\n")
    assert one.wish(NOON, NOON + HOUR, NOON + 2 * HOUR + seconds(1)) == [
        "offered",
        "condition_false",
        "offered",
    ]


def test_all_of_several_must_have_happened_whatever_their_order() -> None:
    rules = (
        "  both: {when: Wish, after: [Open, {event: Read, if: event.properties.pages > 2}], offer: gift}\n"
    )
    one = story(rules)
    assert one.wish(NOON) == ["condition_false"]
    one.tell(at(NOON + MINUTE, "Read", pages=3))
    assert one.wish(NOON + 2 * MINUTE) == ["condition_false"]
    one.tell(at(NOON + 3 * MINUTE, "Open"))
    assert one.wish(NOON + 4 * MINUTE) == ["offered"]


def test_an_event_that_does_not_meet_its_condition_did_not_happen() -> None:
    one = story("  read: {when: Wish, after: {event: Read, if: event.properties.pages > 2}, offer: gift}\n")
    one.tell(at(NOON, "Read", pages=2))
    assert one.wish(NOON) == ["condition_false"]


def test_places_are_looked_back_at_too() -> None:
    one = story("  back: {when: Wish, after: {exit: {tag: cafe}, within: 10m}, offer: gift}\n")
    one.tell(fix(CAFE, NOON))
    one.tell(fix(FAR, NOON + 10 * MINUTE))
    assert one.wish(NOON + 20 * MINUTE, NOON + 20 * MINUTE + seconds(1)) == ["offered", "condition_false"]


def test_a_person_of_whom_no_rule_wants_to_know_remembers_nothing() -> None:
    one = story("  plain: {when: Wish, offer: gift}\n")
    one.tell(at(NOON, "Open"))
    assert (one.profile.past, one.profile.waiting) == ({}, {})


def test_what_no_rule_names_any_more_is_let_go() -> None:
    one = story(DRIVE)
    one.tell(at(NOON, "Car Purchased"))
    assert len(one.profile.past) == 1
    one.rules = rule_set(OFFER + "  read: {when: Wish, after: Read, offer: gift}\n")
    one.tell(at(NOON, "Read"))
    assert list(one.profile.past.values()) == [{"": (memory.microseconds(NOON),)}]


# for

CART = """
  cart:
    when: {event: Cart Updated, for: 1h, by: event.properties.cart_id}
    unless:
      - {event: Order Completed, by: event.properties.cart_id}
      - {event: Cart Emptied, by: event.properties.cart_id}
    offer: gift
"""


def test_a_rule_waits_after_the_last_event() -> None:
    one = story(CART)
    assert one.tell(at(NOON, "Cart Updated", cart_id="c1")) == ()
    assert one.tell(at(NOON + 30 * MINUTE, "Cart Updated", cart_id="c1")) == ()
    assert one.wait(NOON + 90 * MINUTE - seconds(1)) == []
    (decision,) = one.wait(NOON + 90 * MINUTE)
    assert (said(decision), decision.trigger, decision.rule) == ("offered", "event", "cart")
    assert one.verdict is not None
    assert one.verdict.sends[0].candidate.scope.event["properties"] == {"cart_id": "c1"}
    assert one.verdict.sends[0].candidate.scope.event["timestamp"] == NOON + 30 * MINUTE
    assert one.wait(NOON + DAY) == []


def test_each_value_waits_for_itself() -> None:
    one = story(CART)
    one.tell(at(NOON, "Cart Updated", cart_id="c1"))
    one.tell(at(NOON + MINUTE, "Cart Updated", cart_id=2))
    one.tell(at(NOON + 2 * MINUTE, "Order Completed", cart_id="c1"))
    assert [timer.due_at for timer in one.timers.values()] == [NOON + HOUR + MINUTE]
    (decision,) = one.wait(NOON + DAY)
    assert decision.decided_at == NOON + HOUR + MINUTE


@pytest.mark.parametrize("ending", ["Order Completed", "Cart Emptied"])
def test_what_must_not_happen_ends_the_waiting(ending: str) -> None:
    one = story(CART)
    one.tell(at(NOON, "Cart Updated", cart_id="c1"))
    one.tell(at(NOON + HOUR - seconds(1), ending, cart_id="c1"))
    assert one.timers == {}
    assert one.wait(NOON + DAY) == []


def test_another_carts_order_ends_nothing_and_an_order_without_a_cart_neither() -> None:
    one = story(CART)
    one.tell(at(NOON, "Cart Updated", cart_id="c1"))
    one.tell(at(NOON + MINUTE, "Order Completed", cart_id="c2"))
    one.tell(at(NOON + 2 * MINUTE, "Order Completed"))
    assert one.seen is not None
    assert one.seen.notes == ("no value to remember it by",)
    assert reasons(*one.wait(NOON + DAY)) == ["offered"]


def test_what_was_ordered_before_is_not_waited_for() -> None:
    one = story(CART)
    one.tell(at(NOON, "Order Completed", cart_id="c1"))
    one.tell(at(NOON + MINUTE, "Cart Updated", cart_id="c1"))
    assert reasons(*one.wait(NOON + DAY)) == ["condition_false"]


def test_an_absence_within_a_time_looks_back_from_the_end_of_the_waiting() -> None:
    rules = "  quiet: {when: {event: Open, for: 1h}, unless: {event: Read, within: 30m}, offer: gift}\n"
    one = story(rules)
    one.tell(at(NOON, "Open"))
    one.tell(at(NOON + 30 * MINUTE - seconds(1), "Read"))
    assert reasons(*one.wait(NOON + HOUR)) == ["offered"]
    one = story(rules)
    one.tell(at(NOON, "Open"))
    one.tell(at(NOON + 30 * MINUTE, "Read"))
    assert one.timers == {}


def test_a_late_event_moves_nothing_back() -> None:
    one = story(CART)
    one.tell(at(NOON + 30 * MINUTE, "Cart Updated", cart_id="c1"))
    late = event("Cart Updated", NOON, received_at=NOON + 40 * MINUTE, properties={"cart_id": "c1"})
    one.tell(late)
    (decision,) = one.wait(NOON + DAY)
    assert decision.decided_at == NOON + 90 * MINUTE
    one.tell(msgspec.structs.replace(late, message_id="later", received_at=NOON + DAY))
    assert one.wait(NOON + 2 * DAY) == []


def test_a_timer_that_was_moved_while_it_fired_does_nothing() -> None:
    one = story(CART)
    one.tell(at(NOON, "Cart Updated", cart_id="c1"))
    (claimed,) = one.timers.values()
    one.tell(at(NOON + MINUTE, "Cart Updated", cart_id="c1"))
    assert one.tell(msgspec.structs.replace(claimed.event, received_at=NOON + HOUR)) == ()
    assert reasons(*one.wait(NOON + DAY)) == ["offered"]


def test_a_person_cannot_send_the_engines_own_event() -> None:
    one = story(CART)
    one.tell(at(NOON, "Cart Updated", cart_id="c1"))
    (claimed,) = one.timers.values()
    forged = event(memory.WAITED, NOON, properties=claimed.event.properties)
    assert one.tell(forged) == ()
    assert reasons(*one.wait(NOON + DAY)) == ["offered"]


def test_a_stay_is_waited_for_and_its_place_is_known() -> None:
    rules = (
        "  long: {when: {enter: {tag: cafe}, for: 20m, if: geofence.store_id == 's1'}, "
        "unless: {exit: {tag: cafe}, within: 20m}, offer: gift, if: geofence.store_id == 's1'}\n"
    )
    one = story(rules)
    one.tell(fix(CAFE, NOON))
    (decision,) = one.wait(NOON + DAY)
    assert (said(decision), decision.geofence, decision.trigger) == ("offered", "cafe", "enter")


def test_two_profiles_that_become_one_wait_as_one() -> None:
    def told(*updates: tuple[int, str]) -> Profile:
        one = story(CART)
        for minute, name in updates:
            one.tell(at(NOON + minute * MINUTE, name, cart_id="c1"))
        return one.profile

    one, other = told((0, "Cart Updated"), (9, "Order Completed")), told((5, "Cart Updated"))
    for first, second in itertools.permutations((one, other)):
        waiting = memory.united_waiting(first.waiting, second.waiting)
        past = memory.united_past(first.past, second.past)
        assert waiting["cart"]["c1"] == (memory.microseconds(NOON + 5 * MINUTE), True)
        assert sum(len(times) for values in past.values() for times in values.values()) == 1
        both = someone(past=past, waiting=waiting)
        assert stored(both) == both


# bounds


def test_the_memory_is_bounded_and_forgets_the_longest_ago() -> None:
    one = story(DRIVE + CART)
    for n in range(memory.MOST_VALUES + 10):
        one.tell(at(NOON + n * seconds(1), "Car Review", model=f"m{n}"))
        one.tell(at(NOON + n * seconds(1), "Cart Updated", cart_id=f"c{n}"))
        for later in range(10):
            one.tell(at(NOON + n * seconds(1) + later * seconds(0.01), "Car Review", model=f"m{n}"))
    (values,) = one.profile.past.values()
    assert len(values) == memory.MOST_VALUES
    assert "m9" not in values
    assert {len(times) for times in values.values()} == {memory.MOST_TIMES}
    assert len(one.profile.waiting["cart"]) == memory.MOST_WAITING
    assert len(one.timers) == memory.MOST_WAITING
    assert len(one.wait(NOON + DAY)) == memory.MOST_WAITING


def test_values_are_kept_short_and_alike() -> None:
    assert memory.value_of("x" * 64) == "x" * 64
    assert len(memory.value_of("x" * 10_000)) == 17
    assert memory.value_of(7) == memory.value_of(7.0) == memory.value_of("7")
    assert memory.value_of({"a": 1, "b": [2]}) == memory.value_of({"b": [2], "a": 1})
    assert memory.value_of(True) != memory.value_of(1)


_names = st.sampled_from(["Cart Updated", "Order Completed", "Cart Emptied", "Open"])
_events = st.lists(st.tuples(_names, st.integers(0, 300), st.sampled_from(["c1", "c2"])), max_size=12)


@settings(max_examples=80, deadline=None)
@given(_events)
def test_a_cart_is_told_of_once_an_hour_after_its_last_update_unless_it_came_to_an_end(
    told: list[tuple[str, int, str]],
) -> None:
    """In order of time, against a plain reading of the rule."""
    told = sorted(told, key=lambda one: one[1])
    one = story(CART)
    for name, minute, cart in told:
        one.wait(NOON + minute * MINUTE - seconds(1))
        one.tell(at(NOON + minute * MINUTE, name, cart_id=cart))
    one.wait(NOON + DAY)
    offered = [(s.decision.decided_at, s.candidate.scope.event["properties"]["cart_id"]) for s in one.sends]

    expected: set[tuple[datetime, str]] = set()
    for cart in ("c1", "c2"):
        updates = sorted({m for n, m, c in told if n == "Cart Updated" and c == cart})
        ends = [m for n, m, c in told if n in ("Order Completed", "Cart Emptied") and c == cart]
        for minute, following in itertools.zip_longest(updates, updates[1:], fillvalue=10_000):
            if following > minute + 60 and not any(end <= minute + 60 for end in ends):
                expected.add((NOON + (minute + 60) * MINUTE, cart))
    assert sorted(offered) == sorted(expected)
