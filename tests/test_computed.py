"""Traits, stated and computed: exact, whatever the order in which events come.

Long because every kind of trait is read from the same workspace.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from math import isfinite
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import decide
from engine.domain.people.computed import profile_view
from engine.domain.people.events import Event, Kind
from tests.story import CAFE, FAR, GIFT, NOON, Story, event, fix, rule_set, said, seconds, someone

WORKSPACE = """
currency: EUR
rates: {USD: 0.92, GBP: 1.17}
traits:
  name: {type: string}
  age: {type: number}
  member: {type: boolean}
  departs_at: {type: timestamp}
  tags: {type: list}
computed:
  orders: {count: Order Completed}
  large: {count: {event: Order Completed, if: event.properties.revenue >= 100}}
  spend: {sum: event.properties.revenue, of: Order Completed}
  last_store: {last: event.properties.store, of: Order Completed}
  days_since_order: {days_since: Order Completed}
  last_worth: {last: event.properties.revenue, of: Order Completed}
  tier: {steps: spend, from: {bronze: 0, silver: 100, gold: 500.5}}
  pace: {steps: orders, from: {none: 0, some: 1, many: 3}}
  mood: {steps: last_worth, from: {loss: -50, fair: 0, good: 50}}
  pages: {count: {page: Prices}}
  screens: {count: {screen: Home}}
"""
RULES = rule_set(workspace=WORKSPACE)


def order(revenue: object = None, at: datetime = NOON, **properties: Any) -> Event:
    stated = properties if revenue is None else {"revenue": revenue, **properties}
    return event("Order Completed", at, properties=stated)


def view(story: Story, now: datetime = NOON) -> dict[str, Any]:
    return profile_view(story.profile, story.rules.workspace, now)


def after(*events: Event, now: datetime = NOON) -> dict[str, Any]:
    story = Story(RULES)
    for each in events:
        story.tell(each, now)
    return view(story, now)


def test_before_anything_happened() -> None:
    known = after()
    assert {name: known[name] for name in ("orders", "large", "spend", "pages")} == dict.fromkeys(
        ("orders", "large", "spend", "pages"), 0
    )
    assert (known["tier"], known["pace"]) == ("bronze", "none")
    assert not {"last_store", "days_since_order", "last_worth"} & known.keys()


def test_steps_are_at_the_lowest_before_anything_happened() -> None:
    """Also where the lowest begins below zero."""
    assert after()["mood"] == "loss"


def test_what_counts_and_what_does_not() -> None:
    known = after(
        order(50),
        order(100),
        order(99.99),
        order("100"),
        order(),
        event("order completed"),
        event("Prices"),
        event("Prices", kind=Kind.PAGE),
        event("Home", kind=Kind.SCREEN),
        event("Home", kind=Kind.PAGE),
        event("Order Completed", kind=Kind.PAGE),
    )
    assert (known["orders"], known["large"], known["pages"], known["screens"]) == (5, 1, 1, 1)


# Money


def test_ten_thousand_tenths_are_a_thousand() -> None:
    story = Story(RULES)
    told = order(0.1)
    profile = story.profile
    for _ in range(10_000):
        profile = decide.observe(RULES, profile, told, NOON).profile
    assert profile.computed["spend"] == 1000.0
    assert profile.computed["orders"] == 10_000


cents = st.integers(-10_000_000, 10_000_000)


@settings(max_examples=100, deadline=None)
@given(st.lists(cents, max_size=40), st.randoms(use_true_random=False))
def test_sums_are_exact_to_the_cent_in_any_order(amounts: list[int], chance: Any) -> None:
    exact = sum((Decimal(a) for a in amounts), Decimal()) / 100
    for _ in range(2):
        known = after(*(order(a / 100) for a in amounts))
        assert known["spend"] == float(exact)
        chance.shuffle(amounts)


@pytest.mark.parametrize(
    ("currency", "expected"),
    [
        ("EUR", 10.0),
        ("eur", 10.0),
        ("USD", 9.2),
        ("usd", 9.2),
        ("GBP", 11.7),
        (None, 10.0),
    ],
)
def test_sums_are_in_the_workspaces_currency(currency: str | None, expected: float) -> None:
    assert after(order(10, currency=currency))["spend"] == expected


@pytest.mark.parametrize("currency", ["JPY", "EURO", "XXX", "E"])
def test_a_sum_without_a_rate_is_left_out_and_told(currency: str) -> None:
    story = Story(RULES)
    story.tell(order(10))
    story.tell(order(10, currency=currency, store="s9"))
    assert story.seen is not None
    assert any("spend" in note and "currency" in note for note in story.seen.notes)
    known = view(story)
    assert known["spend"] == 10.0
    assert (known["orders"], known["last_store"]) == (2, "s9")  # it happened all the same


def test_currencies_mix_to_the_cent() -> None:
    story = Story(RULES)
    for _ in range(100):
        story.tell(order(19.99, currency="USD"))
        story.tell(order(0.07, currency="GBP"))
        story.tell(order(-5.01))
    exact = 100 * (Decimal("19.99") * Decimal("0.92") + Decimal("0.07") * Decimal("1.17") - Decimal("5.01"))
    assert view(story)["spend"] == float(exact)


@pytest.mark.parametrize("revenue", [None, "12.50", True, [12.5], {}, {"amount": 12.5}])
def test_what_is_no_number_is_left_out_of_a_sum_and_told(revenue: object) -> None:
    story = Story(RULES)
    story.tell(order(7.5))
    told = event("Order Completed", properties={"revenue": revenue})
    story.tell(told)
    assert story.seen is not None
    assert any("spend" in note for note in story.seen.notes)
    assert (view(story)["spend"], view(story)["orders"]) == (7.5, 2)


@pytest.mark.parametrize(
    "absurd",
    [1.7e308, -1.7e308, 10**400, float("inf"), float("nan")],
    ids=["large", "small", "beyond floats", "infinite", "nan"],
)
def test_no_amount_makes_a_sum_infinite(absurd: float) -> None:
    rules = rule_set(workspace="computed: {spend: {sum: event.properties.revenue, of: Order Completed}}")
    story = Story(rules)
    for revenue in (5, absurd, absurd):
        story.tell(order(revenue))
    assert isfinite(view(story)["spend"])


# Last, and days since


def test_the_last_is_the_one_that_happened_last() -> None:
    orders = [order(1, NOON - timedelta(hours=h), store=f"{h} h ago") for h in (3, 2, 1)]
    for sequence in permutations(orders):
        assert after(*sequence)["last_store"] == "1 h ago"


def test_what_says_nothing_leaves_the_last_as_it_was() -> None:
    early = order(1, NOON - seconds(9), store="s1")
    assert after(early, order(1))["last_store"] == "s1"
    assert after(early, order(1, store=None))["last_store"] == "s1"
    assert after(early, order(1, store=""))["last_store"] == ""
    assert after(early, order(1, store=False))["last_store"] is False


@pytest.mark.parametrize(
    ("what", "properties", "expected"),
    [
        ("event.properties.x", {"x": 7}, 7),
        ("event.properties.x", {"x": 7.25}, 7.25),
        ("event.properties.x", {"x": "text"}, "text"),
        ("event.properties.x", {"x": True}, True),
        ("event.properties.x", {"x": ["a", 1]}, ["a", 1]),
        ("event.properties.x", {"x": {"a": [1]}}, {"a": [1]}),
        ("event.properties.items.map(i, i.sku)", {"items": [{"sku": "a"}, {"sku": "b"}]}, ["a", "b"]),
        ("event.timestamp", {}, NOON),
        ("timestamp(event.properties.x)", {"x": "2026-01-12T13:00:00+01:00"}, NOON),
        (
            "event.timestamp - timestamp(event.properties.x)",
            {"x": "2026-01-12T11:00:00Z"},
            timedelta(hours=1),
        ),
    ],
)
def test_the_last_reads_as_it_was_after_it_was_stored(
    what: str, properties: dict[str, Any], expected: object
) -> None:
    rules = rule_set(workspace=f'computed: {{kept: {{last: "{what}", of: Open}}}}')
    story = Story(rules)
    story.tell(event("Open", properties=properties))
    assert view(story)["kept"] == expected


def test_days_since_to_the_second() -> None:
    rules = rule_set(
        GIFT.replace("when: Wish,", "when: Wish, if: profile.days_since_order >= 30,"), WORKSPACE
    )
    story = Story(rules)
    assert story.wish(NOON) == ["condition_unknown"]
    story.tell(order(1))
    thirty = NOON + timedelta(days=30)
    assert story.wish(thirty - seconds(1), thirty, thirty + seconds(1)) == [
        "condition_false",
        "offered",
        "offered",
    ]
    # One that happened in between, and was told late.
    story.tell(order(1, NOON + seconds(5)), thirty + seconds(2))
    assert story.wish(thirty + seconds(4), thirty + seconds(5)) == ["condition_false", "offered"]
    # One from before changes nothing.
    story.tell(order(1, NOON - timedelta(days=90)), thirty + seconds(6))
    assert story.wish(thirty + seconds(7)) == ["offered"]


def test_days_since_something_by_a_fast_clock_are_none() -> None:
    assert after(order(1, NOON + timedelta(hours=3)))["days_since_order"] == 0.0


def test_days_since_a_visit_are_since_the_fix_that_showed_it() -> None:
    """The phone sent it later than it took it."""
    places = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}}
"""
    workspace = "computed: {days: {days_since: {enter: {fence: cafe}}}, n: {count: {enter: {fence: cafe}}}}"
    story = Story(rule_set(places + GIFT, workspace))
    cached = msgspec.structs.replace(CAFE, at=NOON - timedelta(hours=12))
    story.tell(fix(cached, NOON, sent_at=NOON))
    known = view(story)
    assert (known["n"], known["days"]) == (1, 0.5)


# Steps


@pytest.mark.parametrize(
    ("spend", "tier"),
    [
        (-1, "bronze"),
        (0, "bronze"),
        (99.99, "bronze"),
        (100, "silver"),
        (100.01, "silver"),
        (500.49, "silver"),
        (500.5, "gold"),
        (1e9, "gold"),
    ],
)
def test_a_step_begins_at_its_threshold(spend: float, tier: str) -> None:
    assert after(order(spend))["tier"] == tier


@pytest.mark.parametrize(
    ("orders", "pace"), [(0, "none"), (1, "some"), (2, "some"), (3, "many"), (9, "many")]
)
def test_steps_of_a_count(orders: int, pace: str) -> None:
    assert after(*(order(1) for _ in range(orders)))["pace"] == pace


def test_steps_go_down_as_well() -> None:
    assert after(order(120), order(-30))["tier"] == "bronze"
    assert after(order(-50))["mood"] == "loss"
    assert after(order(0))["mood"] == "fair"


def test_the_event_that_reaches_a_step_is_judged_by_it() -> None:
    rules = GIFT.replace("when: Wish,", 'when: Order Completed, if: profile.tier == "silver",')
    story = Story(rule_set(rules, WORKSPACE))
    assert [said(story.ask(order(r))) for r in (60, 39.99, 0.01)] == [
        "condition_false",
        "condition_false",
        "offered",
    ]


# Any order

timelines = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from([None, "USD", "JPY"]), st.integers(1, 50_000)),
    max_size=12,
    unique_by=lambda told: told[0],
)


@settings(max_examples=60, deadline=None)
@given(timelines, st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_the_order_of_arrival(
    timeline: list[tuple[int, str | None, int]], chance: Any
) -> None:
    now = NOON + timedelta(hours=12)
    events = [
        order(amount / 100, NOON + timedelta(minutes=minute), currency=currency, store=f"s{minute}")
        for minute, currency, amount in timeline
    ]
    in_order = after(*sorted(events, key=lambda e: e.timestamp), now=now)
    chance.shuffle(events)
    assert after(*events, now=now) == in_order


# Visits


def test_visits_are_counted_once_a_stay() -> None:
    places = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {store: s1}}
"""
    workspace = """
computed:
  visits: {count: {enter: {tag: cafe}}}
  of_s1: {count: {enter: {tag: cafe}, if: geofence.store == "s1"}}
  left: {count: {exit: {fence: cafe}}}
  store: {last: geofence.store, of: {enter: {tag: cafe}}}
"""
    story = Story(rule_set(places + GIFT, workspace))
    for minute, where in enumerate((FAR, CAFE, CAFE, CAFE, FAR, FAR, CAFE)):
        story.tell(fix(where, NOON + timedelta(minutes=minute)))
    known = view(story)
    assert [known[n] for n in ("visits", "of_s1", "left", "store")] == [2, 2, 1, "s1"]


# Stated traits


def traits(at: datetime = NOON, **stated: Any) -> Event:
    return event("", at, kind=Kind.IDENTIFY, traits=stated)


def test_the_newest_write_of_each_trait_stands() -> None:
    writes = [
        traits(NOON - seconds(2), name="Ada", age=30),
        traits(NOON - seconds(1), name=None, age=31),
        traits(NOON, name="Grace"),
    ]
    for sequence in permutations(writes):
        known = after(*sequence)
        assert (known["name"], known["age"]) == ("Grace", 31)
    for sequence in permutations(writes[:2]):
        assert "name" not in after(*sequence)


@pytest.mark.parametrize(
    ("trait", "good", "bad"),
    [
        ("name", ["Ada", ""], [1, True, ["Ada"], {}, None]),
        ("age", [30, 30.5, -1, 0], ["30", True, [30], None]),
        ("member", [True, False], [1, 0, "true", None]),
        ("tags", [[], ["a"]], ["a", {"a": 1}, None]),
    ],
)
def test_a_trait_of_another_type_is_unknown(trait: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert after(traits(**{trait: value}))[trait] == value
    for value in bad:
        assert trait not in after(traits(**{trait: value}))


def test_traits_that_nobody_declared_are_kept_and_not_shown() -> None:
    story = Story(RULES)
    story.tell(traits(shoe_size=43))
    assert story.profile.traits["shoe_size"].value == 43
    assert "shoe_size" not in view(story)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-12T12:00:00Z", NOON),
        ("2026-01-12T13:00:00+01:00", NOON),
        ("2026-01-12T12:00:00", NOON),  # without a zone it is UTC
        ("2026-01-12", datetime(2026, 1, 12, tzinfo=UTC)),
    ],
)
def test_times_people_state(text: str, moment: datetime) -> None:
    assert after(traits(departs_at=text))["departs_at"] == moment


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "",
        "2026-13-01",
        1768219200,
        "0001-01-01T00:00:00+14:00",  # before the first day there is
        "9999-12-31T23:59:59-14:00",
        "9" * 5000,
        None,
    ],
    ids=lambda text: str(text)[:30],
)
def test_a_time_that_is_none_is_unknown_and_harmless(text: object) -> None:
    rules = rule_set(
        GIFT.replace("when: Wish,", 'when: Wish, if: profile.departs_at - now > duration("40m"),'), WORKSPACE
    )
    story = Story(rules, someone())
    story.tell(traits(departs_at=text))
    assert story.wish(NOON + seconds(1)) == ["condition_unknown"]
