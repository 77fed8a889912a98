"""Computed traits of all kinds, with windows and without, beside a slow oracle that keeps every event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import permutations
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import decide
from engine.domain.offers.rules import Computed, ComputedKind, RuleSet
from engine.domain.people import computed, tallies
from engine.domain.people.computed import read
from engine.domain.people.events import Event
from tests.story import CAFE, FAR, NOON, Story, event, fix, rule_set, seconds, stored

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WINDOWS = {"ever": None, "1h": HOUR, "7h": 7 * HOUR, "2d": 2 * DAY, "10d": 10 * DAY, "400d": 400 * DAY}
VALUED = ("sum", "average", "min", "max", "first", "last", "distinct", "most_often")
OF = "of: Order Completed"


def workspace() -> str:
    """Every kind with every window."""
    lines = ["currency: EUR", "rates: {USD: 0.5}", "computed:"]
    for text, span in WINDOWS.items():
        within = f", within: {text}" if span else ""
        lines.append(f"  count_{text or 'ever'}: {{count: Order Completed{within}}}")
        for kind in VALUED:
            lines.append(f"  {kind}_{text or 'ever'}: {{{kind}: event.properties.x, {OF}{within}}}")
        lines.append(
            f"  top_{text or 'ever'}: {{most_often: event.properties.x, {OF}{within}, at_least: 2, top: 2}}"
        )
        lines.append(f"  ratio_{text or 'ever'}: {{ratio: sum_{text or 'ever'}, of: count_{text or 'ever'}}}")
        lines.append(
            f"  steps_{text or 'ever'}: {{steps: count_{text or 'ever'}, from: {{a: 0, b: 2, c: 4}}}}"
        )
    return "\n".join(lines)


RULES = rule_set(workspace=workspace())
TRAITS = RULES.workspace.computed


class Order(NamedTuple):
    """What happened `at`, and was told at `now`."""

    at: datetime
    x: Any
    currency: str | None
    now: datetime


def told(orders: Iterable[Order], rules: RuleSet = RULES) -> dict[str, Any]:
    """The state after all orders, stored and read again after each."""
    story = Story(rules)
    for one in orders:
        properties = {"x": one.x} | ({"currency": one.currency} if one.currency else {})
        told = event("Order Completed", one.at, properties=properties, received_at=one.now)
        profile = decide.observe(rules, story.profile, told, one.now).profile
        story.profile = stored(profile)
    return story.profile.computed


# The oracle: every order, looked at anew.


def width(span: timedelta) -> timedelta:
    for longest, wide in ((6 * HOUR, MINUTE), (2 * DAY, 15 * MINUTE), (14 * DAY, HOUR)):
        if span <= longest:
            return wide
    return DAY


def bucket(at: datetime, span: timedelta) -> int:
    return (at - EPOCH) // width(span)


def counts_at(at: datetime, span: timedelta | None, now: datetime) -> bool:
    """Whether any moment of its bucket is within the window."""
    return span is None or EPOCH + (bucket(at, span) + 1) * width(span) > now - span


def is_amount(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def amount(order: Order) -> Fraction | None:
    if not is_amount(order.x) or order.currency not in (None, "EUR", "USD"):
        return None
    return Fraction(str(order.x)) * (Fraction(1, 2) if order.currency == "USD" else 1)


def kept(x: Any) -> list[Any]:
    return [e for e in (x if isinstance(x, list) else [x]) if isinstance(e, str) or is_amount(e)]


def in_order(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=lambda v: (isinstance(v, str), v))


def oracle(trait: Computed, orders: list[Order], now: datetime) -> Any:
    """What a trait reads as; None for unknown."""
    span = trait.within
    seen = [o for o in orders if counts_at(o.at, span, now) and counts_at(o.at, span, o.now)]
    amounts = [a for o in seen if (a := amount(o)) is not None]
    valued = sorted((o for o in seen if o.x is not None), key=lambda o: o.at)
    match trait.kind:
        case ComputedKind.COUNT:
            return len(seen)
        case ComputedKind.SUM:
            return float(sum(amounts))
        case ComputedKind.AVERAGE:
            return float(sum(amounts) / len(amounts)) if amounts else None
        case ComputedKind.MIN:
            return float(min(amounts)) if amounts else None
        case ComputedKind.MAX:
            return float(max(amounts)) if amounts else None
        case ComputedKind.FIRST:
            return valued[0].x if valued else None
        case ComputedKind.LAST:
            return valued[-1].x if valued else None
        case ComputedKind.DISTINCT:
            return in_order({e for o in seen for e in kept(o.x)}) or None
        case ComputedKind.MOST_OFTEN:
            numbers = Counter(e for o in seen for e in kept(o.x))
            last = {
                e: max(bucket(o.at, span) for o in seen if e in kept(o.x)) if span else 0 for e in numbers
            }
            ranked = [e for e in in_order(numbers) if numbers[e] >= trait.at_least]
            ranked.sort(key=lambda e: (-numbers[e], -last[e]))
            if not ranked:
                return None
            return ranked[0] if trait.top is None else ranked[: trait.top]
    raise AssertionError(trait)


def expected(orders: list[Order], now: datetime) -> dict[str, Any]:
    known = {
        trait.name: value
        for trait in TRAITS
        if trait.kind not in (ComputedKind.STEPS, ComputedKind.RATIO)
        and (value := oracle(trait, orders, now)) is not None
    }
    for name in WINDOWS:
        count = known[f"count_{name}"]
        if count:
            known[f"ratio_{name}"] = known[f"sum_{name}"] / count
        known[f"steps_{name}"] = "a" if count < 2 else "b" if count < 4 else "c"
    return known


XS = st.one_of(
    st.integers(-500, 500),
    st.integers(-500, 500).map(lambda cents: cents / 100),
    st.sampled_from(["a", "b", "é"]),
    st.sampled_from(["a", "b", "é"]),
    st.lists(st.sampled_from(["a", "b", "c", 3]), max_size=3),
    st.none(),
)
AGES = st.one_of(
    st.timedeltas(timedelta(0), 3 * HOUR),
    st.timedeltas(timedelta(0), 12 * DAY),
    st.timedeltas(-DAY, 420 * DAY),
    st.integers(0, 60).map(lambda n: n * 10 * MINUTE),
)
STEPS = st.one_of(st.timedeltas(timedelta(0), HOUR), st.timedeltas(timedelta(0), 40 * DAY))


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Order], datetime]:
    """Orders as they are told, late ones and some from the future among them, and a moment after."""
    orders, now, taken = [], NOON, set()
    for _ in range(draw(st.integers(0, 12))):
        now += draw(STEPS)
        at = now - draw(AGES)
        while at in taken:  # of two at the same microsecond neither is the last
            at += timedelta(microseconds=1)
        taken.add(at)
        orders.append(Order(at, draw(XS), draw(st.sampled_from([None, None, "EUR", "USD", "JPY"])), now))
    return orders, now + draw(STEPS)


@settings(max_examples=150, deadline=None)
@given(histories())
def test_all_kinds_agree_with_the_oracle(history: tuple[list[Order], datetime]) -> None:
    orders, now = history
    found, wanted = read(told(orders), TRAITS, now), expected(orders, now)
    for name in found:
        if name.startswith(("average", "ratio")) and name in wanted:
            wanted[name] = pytest.approx(wanted[name], rel=1e-12)
    assert found == wanted


@settings(max_examples=60, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(history: tuple[list[Order], datetime], chance: Any) -> None:
    """All told at the end, in any order."""
    orders, now = history
    orders = [one._replace(now=now) for one in orders]
    known = read(told(orders), TRAITS, now)
    chance.shuffle(orders)
    assert read(told(orders), TRAITS, now) == known


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_two_halves_come_to_the_whole(history: tuple[list[Order], datetime], data: Any) -> None:
    """As a merge of two profiles needs it; and a copy that both had is taken out again."""
    orders, now = history
    orders = [one._replace(now=now) for one in orders]
    mine = data.draw(st.lists(st.booleans(), min_size=len(orders), max_size=len(orders)))
    one = told([o for o, is_mine in zip(orders, mine, strict=True) if is_mine])
    other = told([o for o, is_mine in zip(orders, mine, strict=True) if not is_mine])
    together = computed.merged(one, other, TRAITS)
    assert read(together, TRAITS, now) == read(told(orders), TRAITS, now)
    assert read(computed.merged(other, one, TRAITS), TRAITS, now) == read(together, TRAITS, now)


def test_a_copy_is_taken_out() -> None:
    orders = [Order(NOON - n * HOUR, n % 3, None, NOON) for n in range(5)]
    doubled = computed.merged(told(orders), told(orders[2:3]), TRAITS)
    scope = decide.Scope(event={"properties": {"x": 2}, "name": "Order Completed"}, now=NOON)
    once = computed.count_out(doubled, TRAITS_OF_ORDERS, scope, orders[2].at, RULES.workspace)
    assert read(once, TRAITS, NOON) == read(told(orders), TRAITS, NOON)


TRAITS_OF_ORDERS = tuple(trait for trait in TRAITS if trait.pattern is not None)


@settings(max_examples=60, deadline=None)
@given(histories())
def test_nothing_changes_before_the_next_change(history: tuple[list[Order], datetime]) -> None:
    """Between now and when a trait is said to change next, it reads the same."""
    orders, now = history
    state = told(orders)
    known = read(state, TRAITS, now)
    for trait in TRAITS:
        if trait.kind in (ComputedKind.STEPS, ComputedKind.RATIO):
            continue
        change = computed.next_change(trait, state, now)
        last = change - timedelta(microseconds=1) if change is not None else now + 2000 * DAY
        assert change is None or change > now
        assert read(state, (trait,), last).get(trait.name) == known.get(trait.name)


# By hand


def rules_of(text: str) -> RuleSet:
    return rule_set(workspace=f"computed:\n  x: {{{text}}}", rules=FENCES)


FENCES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe]}
"""


def x_after(text: str, *events: Event, now: datetime = NOON) -> Any:
    story = Story(rules_of(text))
    for each in events:
        story.tell(each)
    return read(story.profile.computed, story.rules.workspace.computed, now).get("x")


@pytest.mark.parametrize(
    ("within", "at", "past"),
    [
        ("1h", "2026-01-12T12:00:00Z", "2026-01-12T13:01:00Z"),
        ("1h", "2026-01-12T12:00:59Z", "2026-01-12T13:01:00Z"),
        ("6h", "2026-01-12T12:00:30Z", "2026-01-12T18:01:00Z"),
        ("7h", "2026-01-12T12:14:59Z", "2026-01-12T19:15:00Z"),
        ("2d", "2026-01-12T12:15:00Z", "2026-01-14T12:30:00Z"),
        ("14d", "2026-01-12T12:15:00Z", "2026-01-26T13:00:00Z"),
        ("30d", "2026-01-12T23:59:59Z", "2026-02-12T00:00:00Z"),
        ("365d", "2026-01-12T00:00:00Z", "2027-01-13T00:00:00Z"),
    ],
)
def test_what_happened_slides_out_to_the_very_moment(within: str, at: str, past: str) -> None:
    happened, end = datetime.fromisoformat(at), datetime.fromisoformat(past)
    told = event("Order Completed", happened)
    text = f"count: Order Completed, within: {within}"
    assert x_after(text, told, now=end - timedelta(microseconds=1)) == 1
    assert x_after(text, told, now=end) == 0


def test_visits_are_counted_where_they_happen() -> None:
    walk = [fix(FAR, NOON), fix(CAFE, NOON + MINUTE), fix(FAR, NOON + 20 * MINUTE)]
    assert x_after("count: {enter: {tag: cafe}}, within: 30d", *walk) == 1
    assert x_after("most_often: geofence.id, of: {exit: {tag: cafe}}, within: 30d", *walk) == "cafe"


def test_the_clock_is_the_persons_at_the_events_time() -> None:
    def order(text: str) -> Event:
        at = datetime.fromisoformat(text)
        return event("Order Completed", at, context={"timezone": "America/New_York"})

    orders = [order("2026-03-07T13:30:00Z"), order("2026-03-09T12:10:00Z"), order("2026-03-09T12:59:00Z")]
    text = "most_often: local.hour, of: Order Completed, within: 90d"
    assert x_after(text, *orders, now=orders[-1].timestamp) == 8  # daylight saving began in between


def test_values_are_told_apart_as_people_do() -> None:
    def order(x: Any) -> Event:
        return event("Order Completed", properties={"x": x})

    text = "distinct: event.properties.x, of: Order Completed"
    assert x_after(text, order(3), order(3.0), order("3"), order(True), order(1)) == [1, 3, True, "3"]
    assert x_after(text, order(["a", None, {"b": 1}, "a"])) == ["a"]
    assert x_after(text, order({"b": 1})) is None


def test_of_values_seen_equally_often_the_newest_wins() -> None:
    def order(x: str, days: int) -> Event:
        return event("Order Completed", NOON - days * DAY, properties={"x": x}, received_at=NOON)

    text = "most_often: event.properties.x, of: Order Completed, within: 90d"
    for sequence in permutations([order("a", 9), order("b", 3), order("c", 5)]):
        assert x_after(text, *sequence) == "b"
    ever = "most_often: event.properties.x, of: Order Completed"
    for sequence in permutations([order("a", 9), order("b", 3), order("c", 5)]):
        assert x_after(ever, *sequence) == "a"


def test_tiers_go_up_and_down() -> None:
    rules = rule_set(
        workspace="""
computed:
  spend: {sum: event.properties.x, of: Order Completed, within: 30d}
  tier: {steps: spend, from: {bronze: 0, silver: 100, gold: 500}}
"""
    )
    story = Story(rules)
    tiers = []
    for days, x in ((0, 90), (10, 40), (20, 400), (21, -350), (22, 0)):
        story.tell(event("Order Completed", NOON + days * DAY, properties={"x": x}))
        tiers.append(read(story.profile.computed, rules.workspace.computed, NOON + days * DAY)["tier"])
    assert tiers == ["bronze", "silver", "gold", "silver", "silver"]
    for days, tier in ((30, "silver"), (31, "bronze"), (200, "bronze")):
        late = NOON.replace(hour=0) + days * DAY
        assert read(story.profile.computed, rules.workspace.computed, late)["tier"] == tier


# State stays small


def test_windows_keep_a_bounded_number_of_buckets() -> None:
    for text in ("1h", "6h", "2d", "14d", "400d"):
        span = WINDOWS.get(text) or {"6h": 6 * HOUR, "14d": 14 * DAY}[text]
        rules = rules_of(f"sum: event.properties.x, of: Order Completed, within: {text}")
        trait = rules.workspace.computed[0]
        state: Any = None
        for n in range(1500):
            at = NOON + n * span / 1000
            state, _ = tallies.put(trait, state, 1, at, at)
        assert len(state[2]) <= span / width(span) + 2 <= 402


def test_values_without_number_are_let_go_and_told() -> None:
    ever = rules_of("distinct: event.properties.x, of: Order Completed")
    windowed = rules_of("most_often: event.properties.x, of: Order Completed, within: 400d")
    for rules, most in ((ever, tallies.MOST_VALUES), (windowed, tallies.MOST_PAIRS)):
        story = Story(rules)
        for day in range(30):
            xs = [f"{day} {n}" for n in range(50)]
            told = event("Order Completed", NOON + day * DAY, properties={"x": xs})
            story.tell(told)
        state = story.profile.computed["x"]
        size = len(state) if rules is ever else sum(map(len, state[2].values()))
        assert size <= most
        assert story.seen is not None
        assert any("too many different values" in note for note in story.seen.notes)
    assert read(story.profile.computed, windowed.workspace.computed, NOON + 29 * DAY)["x"].startswith("29 ")


@pytest.mark.parametrize("x", ["y" * 5000, list(range(5000)), 10**400], ids=["text", "list", "number"])
@pytest.mark.parametrize("kind", ["first", "last"])
def test_a_value_too_large_is_not_kept(kind: str, x: Any) -> None:
    story = Story(rules_of(f"{kind}: event.properties.x, of: Order Completed"))
    story.tell(event("Order Completed", properties={"x": "small"}))
    story.tell(event("Order Completed", NOON - seconds(1), properties={"x": x}))
    story.tell(event("Order Completed", NOON + seconds(1), properties={"x": x}))
    assert read(story.profile.computed, story.rules.workspace.computed, NOON)["x"] == "small"
