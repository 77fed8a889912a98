"""Who wins: expected value, then priority, then the rule's name (design 6.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import decide
from engine.domain.offers.decisions import Decision, Outcome
from engine.domain.offers.rules import RuleSet
from tests.story import CAFE, NOON, Story, candidates, event, fix, judge, rule_set, said, someone

MODELS = ("redeem", "buys_anyway")


def offer(name: str, fields: str = "", purpose: str = "marketing") -> str:
    comma = ", " if fields else ""
    return f"  {name}: {{purpose: {purpose}, {fields}{comma}message: {{push: {{title: {name}, body: b}}}}}}\n"


def rule(name: str, offered: str, fields: str = "", when: str = "Wish") -> str:
    comma = ", " if fields else ""
    many = "offers" if offered.startswith("[") else "offer"
    return f"  {name}: {{when: {when}, {many}: {offered}{comma}{fields}}}\n"


def competition(offers: str, rules: str, workspace: str = "") -> RuleSet:
    return rule_set(f"offers:\n{offers}rules:\n{rules}", workspace, MODELS)


def decided(
    rules: RuleSet, scores: Mapping[str, float | None] | None = None, **properties: Any
) -> tuple[Decision, ...]:
    return Story(rules, scores=scores).tell(event(properties=properties))


def one(rules: RuleSet, scores: Mapping[str, float | None] | None = None, **properties: Any) -> Decision:
    (decision,) = decided(rules, scores, **properties)
    return decision


@pytest.mark.parametrize(
    ("fields", "lever", "scores", "expected"),
    [
        ("value: 10, propensity: 0.5", "", {}, 5.0),
        ("value: 10, cost: 4, propensity: 0.5", "", {}, 3.0),
        ("value: 10, cost: 4, send_cost: 0.25, propensity: 0.5", "", {}, 2.75),
        ("value: 10, propensity: {model: redeem}", "", {"redeem": 0.25}, 2.5),
        (
            "value: 10, cost: 4, propensity: {model: redeem}, baseline: {model: buys_anyway}",
            "",
            {"redeem": 0.75, "buys_anyway": 0.25},
            2.0,  # 0.75 × (10 − 4) − 0.25 × 10
        ),
        (
            "value: 10, cost: 4, send_cost: 0.5, propensity: {model: redeem}, baseline: {model: buys_anyway}",
            "lever: 1",
            {"redeem": 0.75, "buys_anyway": 0.25},
            3.0,
        ),
        ("value: 10, propensity: 0.5", "lever: -0.5", {}, 2.5),
        ("value: 10, propensity: 0.5", "lever: 0.2", {}, 6.0),
        ("value: event.properties.basket * 0.1, propensity: 0.5", "", {}, 4.0),
    ],
)
def test_expected_value(fields: str, lever: str, scores: dict[str, float | None], expected: float) -> None:
    rules = competition(offer("gift", fields), rule("wish", "gift", lever))
    decision = one(rules, scores, basket=80)
    assert said(decision) == "offered"
    assert decision.expected_value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("fields", "lever", "expected"),
    [
        ("value: 10, cost: 10, propensity: 0.5", "", "not_worth_it"),  # exactly nothing
        ("value: 10, cost: 9.99, propensity: 0.5", "", "offered"),
        ("value: 10, cost: 10.01, propensity: 0.5", "", "not_worth_it"),
        ("value: 10, propensity: 0", "", "not_worth_it"),
        ("value: 10, propensity: 0.5, send_cost: 5", "", "not_worth_it"),
        ("value: 10, propensity: 0.5, send_cost: 4.99", "", "offered"),
        ("value: 10, propensity: 0.5", "lever: -1", "not_worth_it"),
        ("value: 10, cost: 20, propensity: 0.5", "lever: 100", "not_worth_it"),
        ("value: 10, cost: 20, propensity: 0.5", "lever: -1", "not_worth_it"),
        ("value: -10, propensity: 0.5", "", "not_worth_it"),
    ],
)
def test_an_offer_must_be_worth_more_than_nothing(fields: str, lever: str, expected: str) -> None:
    rules = competition(offer("gift", fields), rule("wish", "gift", lever))
    assert said(one(rules)) == expected


def test_who_buys_anyway_gets_no_discount() -> None:
    fields = "value: 10, cost: 2, propensity: {model: redeem}, baseline: {model: buys_anyway}"
    rules = competition(offer("gift", fields), rule("wish", "gift"))
    assert said(one(rules, {"redeem": 0.9, "buys_anyway": 0.1})) == "offered"
    assert said(one(rules, {"redeem": 0.9, "buys_anyway": 0.8})) == "not_worth_it"
    unknown = one(rules, {"redeem": 0.9, "buys_anyway": None})
    assert (said(unknown), dict(unknown.candidates[0].numbers)) == ("model_failed", {"model": "buys_anyway"})


@pytest.mark.parametrize(
    ("score", "expected"), [(0.24999, "low_propensity"), (0.25, "offered"), (1.0, "offered")]
)
def test_the_threshold_itself_is_enough(score: float, expected: str) -> None:
    for value in ("", "value: 10, "):
        fields = value + "propensity: {model: redeem, at_least: 0.25}"
        rules = competition(offer("gift", fields), rule("wish", "gift"))
        assert said(one(rules, {"redeem": score})) == expected


ORDERED = [
    # The best first: expected value, priority, name of the rule.
    ("a", "value: 10, propensity: 0.9", "priority: -5"),
    ("z", "value: 10, propensity: 0.8", "priority: 7"),
    ("b", "value: 10, propensity: 0.8", "priority: 3"),
    ("c", "value: 10, propensity: 0.8", "priority: 3"),
    ("d", "value: 0.01, propensity: 0.1", ""),
    ("y", "", "priority: 1000"),
    ("e", "", "priority: 2"),
    ("f", "propensity: 0.99", "priority: 2"),
    ("x", "", ""),
    ("w", "", "priority: -1"),
]


@pytest.mark.parametrize("best", range(len(ORDERED)))
def test_the_best_of_those_that_are_left_wins(best: int) -> None:
    left = ORDERED[best:]
    offers = "".join(offer(f"o{name}", fields) for name, fields, _ in left)
    rules = "".join(rule(name, f"o{name}", fields) for name, _, fields in reversed(left))
    decision = one(competition(offers, rules))
    assert (said(decision), decision.rule, decision.offer) == ("offered", left[0][0], f"o{left[0][0]}")
    losers = [c for c in decision.candidates if c.rule != left[0][0]]
    assert [c.reason for c in losers] == ["outranked"] * (len(left) - 1)
    assert len(decision.candidates) == len(left)


def test_a_loser_shows_both_scores() -> None:
    offers = offer("good", "value: 10, propensity: 0.5") + offer("poor", "value: 10, propensity: 0.25")
    decision = one(competition(offers, rule("poor", "poor") + rule("good", "good")))
    loser = candidates(decision)["poor/poor"]
    assert (loser.propensity, loser.expected_value) == (0.25, 2.5)
    assert dict(loser.numbers) == {"by": "good", "expectedValue": 5.0}
    winner = candidates(decision)["good/good"]
    assert (winner.reason, winner.propensity, winner.expected_value) == (None, 0.5, 5.0)
    assert (decision.propensity, decision.expected_value) == (0.5, 5.0)


def test_the_offers_of_one_rule_compete() -> None:
    offers = "".join(offer(n, f"value: {v}, propensity: 0.5") for n, v in (("a", 1), ("b", 3), ("c", 2)))
    decision = one(competition(offers, rule("wish", "[a, b, c]")))
    assert decision.offer == "b"
    same = offer("b", "value: 1, propensity: 0.5") + offer("a", "value: 1, propensity: 0.5")
    assert one(competition(same, rule("wish", "[b, a]"))).offer == "a"


def test_a_lever_may_turn_the_order_round() -> None:
    offers = offer("a", "value: 10, propensity: 0.5") + offer("b", "value: 8, propensity: 0.5")
    assert one(competition(offers, rule("ra", "a") + rule("rb", "b"))).offer == "a"
    assert one(competition(offers, rule("ra", "a") + rule("rb", "b", "lever: 0.5"))).offer == "b"


def test_two_shops_that_one_fix_enters_compete() -> None:
    places = """
geofences:
  a: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [shop]}
  b: {circle: {lat: 52.66, lng: -8.62, radius: 90}, tags: [shop]}
  c: {circle: {lat: 52.66, lng: -8.62, radius: 120}}
"""
    offers = offer("near", "value: 1, propensity: 0.5") + offer("big", "value: 2, propensity: 0.5")
    rules = rule("shop", "near", when="{enter: {tag: shop}}") + rule(
        "mall", "big", when="{enter: {fence: c}}"
    )
    story = Story(rule_set(f"{places}offers:\n{offers}rules:\n{rules}"))
    decision = story.ask(fix(CAFE, NOON))
    assert (decision.rule, decision.geofence, decision.trigger) == ("mall", "c", "enter")
    assert [(c.rule, c.geofence) for c in decision.candidates] == [
        ("shop", "a"),
        ("shop", "b"),
        ("mall", "c"),
    ]
    alone = Story(rule_set(f"{places}offers:\n{offers}rules:\n{rules.splitlines()[0]}"))
    assert alone.ask(fix(CAFE, NOON)).geofence == "a"


def test_contracts_do_not_compete() -> None:
    offers = offer("gift", "value: 1000, propensity: 1") + offer("ready", purpose="service")
    offers += offer("gate", "value: 1, propensity: 0.1", purpose="service")
    rules = rule("gift", "gift") + rule("ready", "ready", "priority: -9") + rule("gate", "gate")
    decisions = decided(competition(offers, rules))
    assert sorted((d.rule, said(d), len(d.candidates)) for d in decisions) == [
        ("gate", "offered", 1),
        ("gift", "offered", 1),
        ("ready", "offered", 1),
    ]
    assert len({d.id for d in decisions}) == 3


def test_a_contract_goes_out_where_no_offer_does() -> None:
    offers = offer("gift", "value: 1, cost: 2, propensity: 1") + offer("ready", purpose="service")
    decisions = decided(competition(offers, rule("gift", "gift") + rule("ready", "ready")))
    assert sorted((d.rule, said(d)) for d in decisions) == [("gift", "not_worth_it"), ("ready", "offered")]


# Numbers that are none


ABSURD = {
    "nan": math.nan,
    "infinite": math.inf,
    "minus infinite": -math.inf,
    "beyond floats": 10**400,
    "minus beyond floats": -(10**400),
    "text": "10",
    "nothing": None,
    "true": True,
    "list": [10],
    "map": {},
}


@pytest.mark.parametrize("worth", ABSURD.values(), ids=ABSURD.keys())
def test_an_offer_of_no_finite_value_is_never_made(worth: object) -> None:
    fields = "value: event.properties.worth, propensity: 0.5"
    rules = competition(offer("gift", fields) + offer("other"), rule("wish", "gift") + rule("plain", "other"))
    decision = one(rules, worth=worth)
    reasons = {rule: c.reason for rule, c in candidates(decision).items()}
    assert reasons == {"wish/gift": "condition_unknown", "plain/other": None}


@pytest.mark.parametrize("worth", [1e308, 1.7e308])
def test_a_value_that_overflows_on_its_way_is_unknown(worth: float) -> None:
    fields = "value: event.properties.worth, propensity: 1"
    decision = one(competition(offer("gift", fields), rule("wish", "gift", "lever: 100")), worth=worth)
    assert said(decision) == "condition_unknown"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1.0001, 5.0, -0.0001, -3.0, None])
@pytest.mark.parametrize(
    "fields",
    [
        "propensity: {model: redeem}",
        "propensity: {model: redeem, at_least: 0.25}",
        "value: 10, propensity: {model: redeem}",
        "value: -10, propensity: {model: redeem}",
        "value: 10, propensity: 1, baseline: {model: redeem}",
    ],
)
def test_a_score_that_is_no_probability_never_makes_an_offer(score: float | None, fields: str) -> None:
    rules = competition(offer("gift", fields), rule("wish", "gift"))
    assert one(rules, {"redeem": score}).outcome is Outcome.SUPPRESSED


# Order


@st.composite
def contests(draw: st.DrawFn) -> tuple[RuleSet, list[int]]:
    """Some rules, each with an offer of its own or of another, and an order to look at them in."""
    count = draw(st.integers(2, 6))
    offers, rules = "", ""
    for number in range(count):
        value = draw(st.sampled_from(["", "value: 4, propensity: 0.5", "value: 2, propensity: 0.5"]))
        cost = draw(st.sampled_from(["", ", cost: 5", ", cost: 1"])) if value else ""
        offers += offer(f"o{number}", value + cost)
        condition = draw(st.sampled_from(['if: "1 > 2"', "if: event.properties.none > 1", "", "", "cap"]))
        extra = [f"priority: {draw(st.sampled_from([0, 1]))}"]
        if condition == "cap":
            extra.append('during: {from: "01:00", to: "02:00"}')
        elif condition:
            extra.append(condition)
        offered = sorted({number, draw(st.integers(0, number))})
        rules += rule(f"r{number}", f"[{', '.join(f'o{n}' for n in offered)}]", ", ".join(extra))
    order = draw(st.permutations(range(count)))
    return competition(offers, rules), list(order)


@settings(max_examples=60, deadline=None)
@given(contests())
def test_the_order_of_the_candidates_changes_nothing(contest: tuple[RuleSet, list[int]]) -> None:
    rules, order = contest
    shuffled = msgspec.structs.replace(
        rules,
        by_trigger={
            trigger: tuple(
                msgspec.structs.replace(found[i], offers=tuple(reversed(found[i].offers)))
                for i in order
                if i < len(found)
            )
            for trigger, found in rules.by_trigger.items()
        },
    )
    told = event()
    as_written = Story(rules).tell(told)
    otherwise = Story(shuffled).tell(told)
    assert summary(as_written) == summary(otherwise)


def summary(decisions: tuple[Decision, ...]) -> list[Any]:
    """All of each decision, its candidates sorted."""
    return [
        msgspec.structs.replace(
            decision, candidates=tuple(sorted(decision.candidates, key=lambda c: (c.rule, c.offer)))
        )
        for decision in decisions
    ]


def test_the_order_of_places_changes_nothing() -> None:
    """Neither who wins nor, where nobody does, what is told."""
    places = "geofences:\n" + "".join(
        f"  f{n}: {{circle: {{lat: 52.66, lng: -8.62, radius: {60 + n}}}, tags: [shop]}}\n" for n in range(4)
    )
    for fields in ("", 'if: "1 > 2"', 'during: {from: "01:00", to: "02:00"}'):
        text = (
            f"{places}offers:\n{offer('gift')}rules:\n{rule('shop', 'gift', fields, '{enter: {tag: shop}}')}"
        )
        rules = rule_set(text)
        seen = decide.observe(rules, someone(), fix(CAFE), NOON)
        turned = msgspec.structs.replace(seen, triggers=tuple(reversed(seen.triggers)))
        (first,), (second,) = (judge(rules, s, NOON).decisions for s in (seen, turned))
        assert (first.reason, first.rule, first.geofence) == (second.reason, second.rule, second.geofence)
