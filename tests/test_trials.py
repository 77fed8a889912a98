"""Who is in which group: rollouts, holdouts, experiments; and rules for audiences."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.offers.assignment import place, variant
from engine.domain.offers.rules import Workspace
from engine.domain.people.merging import merged, united_cohort
from engine.domain.people.profiles import Profile, new_profile
from tests.story import BEFORE, NOON, SECRET, Story, event, rule_set, said, someone

OFFERS = """
audiences: {buyers: profile.orders > 0, regulars: profile.orders > 1}
offers:
  latte: {purpose: marketing, message: {push: {title: Latte, body: For you}}}
  cookie: {purpose: marketing, message: {push: {title: Cookie, body: For you}}}
  ready: {purpose: service, message: {push: {title: Ready, body: Come in}}}
rules:
"""
WORKSPACE = """
consent: {purposes: {marketing: {}, service: {basis: contract}}}
computed: {orders: {count: Order Completed}}
"""
PEOPLE = 400


def person(number: int) -> Profile:
    return someone(id=new_profile(("user_id", f"u{number}"), SECRET, NOON).id)


def stories(rules: str, workspace: str = WORKSPACE, people: int = PEOPLE) -> list[Story]:
    loaded = rule_set(OFFERS + rules, workspace)
    return [Story(loaded, person(number)) for number in range(people)]


def first(story: Story) -> Any:
    return story.ask(event())


def about(count: int, share: float, of: int = PEOPLE) -> bool:
    """Within five standard deviations: the people are always the same, so this never changes."""
    return abs(count - share * of) <= 5 * (of * share * (1 - share)) ** 0.5


def test_a_rollout_is_for_a_share_of_people_and_always_the_same_ones() -> None:
    some = stories("  wish: {when: Wish, offer: latte, rollout: 20%}\n")
    once = [said(first(one)) for one in some]
    assert about(once.count("offered"), 0.2)
    assert once.count("not_in_audience") == PEOPLE - once.count("offered")
    assert [said(first(one)) for one in some] == once
    wider = [said(first(one)) for one in stories("  wish: {when: Wish, offer: latte, rollout: 50%}\n")]
    assert all(later == "offered" for later, now in zip(wider, once, strict=True) if now == "offered")


def test_the_workspaces_holdout_is_told_what_it_would_have_got_and_spares_contracts() -> None:
    rules = "  wish: {when: Wish, offer: latte}\n  order: {when: Order, offer: ready}\n"
    some = stories(rules, WORKSPACE + "holdout: 10%\n")
    decisions = [first(one) for one in some]
    held = [decision for decision in decisions if said(decision) == "holdout"]
    assert about(len(held), 0.1)
    assert {(d.offer, d.rule, d.outcome.value) for d in held} == {("latte", "wish", "suppressed")}
    assert all(not one.sends for one in some if said(one.decisions[0]) == "holdout")
    assert {said(one.ask(event("Order"))) for one in some} == {"offered"}


def test_a_rules_holdout_is_a_holdout_and_an_experiments_its_control() -> None:
    plain = Counter(said(first(one)) for one in stories("  w: {when: Wish, offer: latte, holdout: 25%}\n"))
    assert plain.keys() == {"offered", "holdout"}
    assert about(plain["holdout"], 0.25)
    tried = Counter(
        said(first(one))
        for one in stories("  w: {when: Wish, offer: latte, holdout: 25%, experiment: copy}\n")
    )
    assert tried.keys() == {"offered", "experiment_control"}


COPY = """
  copy:
    when: Wish
    experiment: latte-copy-1
    holdout: 10%
    variants: {warm: {share: 50%, offer: latte}, cookie: {share: 50%, offer: cookie}}
"""


def test_variants_share_people_out_and_those_held_out_have_one_too() -> None:
    some = stories(COPY)
    decisions = [first(one) for one in some]
    arms = Counter((d.candidates[0].variant, d.offer) for d in decisions)
    assert arms.keys() == {("warm", "latte"), ("cookie", "cookie")}
    assert about(arms["warm", "latte"], 0.5)
    control = [d for d in decisions if said(d) == "experiment_control"]
    assert about(len(control), 0.1)
    assert {d.offer for d in control} == {"latte", "cookie"}
    assert [first(one).candidates[0].variant for one in some] == [d.candidates[0].variant for d in decisions]


def test_another_salt_shuffles_people_and_the_same_salt_does_not() -> None:
    def arms(rules: str) -> list[str | None]:
        return [first(one).candidates[0].variant for one in stories(rules, people=100)]

    assert arms(COPY) == arms(COPY.replace("  copy:", "  renamed:"))
    same = sum(a == b for a, b in zip(arms(COPY), arms(COPY.replace("copy-1", "copy-2")), strict=True))
    assert 25 < same < 75


def test_a_share_left_over_is_control() -> None:
    rules = "  w: {when: Wish, variants: {a: {share: 30%, offer: latte}, b: {share: 30%, offer: cookie}}}\n"
    found = Counter(said(first(one)) for one in stories(rules))
    assert found.keys() == {"offered", "experiment_control"}
    assert about(found["experiment_control"], 0.4)


def test_a_variant_may_be_another_message_of_the_same_offer() -> None:
    rules = (
        "  w: {when: Wish, offer: latte, variants: "
        "{a: {share: 50%, message: {push: {title: Cold?, body: A latte}}}, "
        "b: {share: 50%, message: {push: {title: Thirsty?, body: A latte}}}}}\n"
    )
    titles = set()
    for one in stories(rules, people=30):
        assert first(one).offer == "latte"
        push = one.sends[0].candidate.offer.push
        assert push is not None
        titles.add(push.title[""]({}))
    assert titles == {"Cold?", "Thirsty?"}


def test_who_lost_the_contest_is_outranked_and_not_held_out() -> None:
    rules = "  a: {when: Wish, offer: latte, priority: 2}\n  b: {when: Wish, offer: cookie, holdout: 100%}\n"
    (one,) = stories(rules, people=1)
    decision = first(one)
    assert {c.rule: c.reason and c.reason.value for c in decision.candidates} == {"a": None, "b": "outranked"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=2, max_size=5, unique=True))
def test_a_group_survives_merges_in_whatever_order(born: list[tuple[int, int]]) -> None:
    people = [
        msgspec.structs.replace(person(number), created_at=BEFORE + timedelta(days=day))
        for day, number in born
    ]
    found = set()
    for order in itertools.permutations(people):
        survivor, *ended = order
        for other in ended:
            survivor = merged(survivor, other, Workspace(), NOON)
        found.add(survivor.cohort_key)
    oldest = min(people, key=lambda one: (one.created_at, one.id))
    assert found == {oldest.id}
    assert united_cohort(oldest, people[0]) in ("", oldest.id)


def test_a_place_is_spread_evenly() -> None:
    places = sorted(place(person(number).id, "salt") for number in range(PEOPLE))
    assert all(abs(at - number / PEOPLE) < 0.08 for number, at in enumerate(places))


def test_shares_that_are_all_leave_nobody_out() -> None:
    rule = rule_set(OFFERS + COPY, WORKSPACE).rules["copy"]
    assert all(variant(rule, person(number).id) is not None for number in range(PEOPLE))


# audiences


def order(n: int = 0) -> Any:
    return event("Order Completed", NOON + timedelta(minutes=n))


def test_a_rule_is_for_those_in_an_audience_and_not_in_another() -> None:
    rules = '  w: {when: Wish, offer: latte, audience: [buyers, "!regulars"]}\n'
    (one,) = stories(rules, people=1)
    before = first(one)
    assert before.candidates[0].numbers == {"audience": "buyers"}
    one.tell(order())
    assert said(first(one)) == "offered"
    one.tell(order(1))
    after = first(one)
    assert (said(after), after.candidates[0].numbers) == ("not_in_audience", {"audience": "!regulars"})


def test_entering_and_leaving_an_audience_set_rules_off() -> None:
    rules = (
        "  in: {when: {audience: regulars, change: entered}, offer: latte}\n"
        "  out: {when: {audience: fresh, change: left}, offer: cookie}\n"
    )
    offers = OFFERS.replace("audiences: {", "audiences: {fresh: profile.days_since_order < 30, ")
    workspace = WORKSPACE.replace(
        "computed: {", "computed: {days_since_order: {days_since: Order Completed}, "
    )
    one = Story(rule_set(offers + rules, workspace))
    assert one.tell(order()) == ()
    entered = one.ask(order(1))
    assert (entered.rule, entered.trigger, said(entered)) == ("in", "audience", "offered")
    assert one.tell(order(2)) == ()
    (left,) = one.wait(NOON + timedelta(days=40))
    assert (left.rule, left.trigger) == ("out", "audience")
    assert left.decided_at >= NOON + timedelta(days=30, minutes=2)
