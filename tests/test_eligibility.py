"""The gates: their order, what each says, and the moments at which they open and close.

Long because it is one timeline after the other; they read best side by side.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from engine.domain.offers.decisions import ORDER, Decision, Outcome, Reason
from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Location
from engine.domain.people.profiles import Address, Consent, Contact, Identity, Profile
from tests.story import (
    BEFORE,
    CAFE,
    FAR,
    GIFT,
    NOON,
    Story,
    candidates,
    event,
    fix,
    local,
    phone,
    rule_set,
    said,
    seconds,
    someone,
)

IN_ORDER = (
    "outside_dates",
    "quarantined",
    "no_consent",
    "stale_event",
    "condition_false",
    "condition_unknown",
    "outside_hours",
    "no_device",
    "no_permission",
    "capped",
    "model_failed",
    "low_propensity",
    "not_worth_it",
    "quiet_hours",
)
"""Design 6.4, as far as it is built."""


def test_the_reasons_stand_in_the_order_of_checking() -> None:
    """Which candidate came furthest is read from it."""
    assert [r.value for r in Reason if r.value in IN_ORDER] == list(IN_ORDER)
    assert ORDER[Reason.NOT_WORTH_IT] < ORDER[Reason.OUTRANKED] < ORDER[Reason.QUIET_HOURS]


def many(identities: int) -> tuple[Identity, ...]:
    return tuple(Identity("anonymous_id", f"a{n}", BEFORE) for n in range(identities))


def with_all_wrong(wrong: Collection[str], purpose: str = "marketing") -> Decision:
    """What is decided on a wish at 22:00 where just this is wrong."""
    now = NOON + timedelta(hours=10)
    condition = "true"
    if "condition_false" in wrong:
        condition = "event.properties.stock > 5"
    elif "condition_unknown" in wrong:
        condition = "event.properties.size > 5"
    rules = f"""
offers:
  gift:
    purpose: {purpose}
    value: event.properties.worth
    cost: 1
    propensity: {{model: redeem, at_least: 0.25}}
    message: {{push: {{title: A gift, body: For you}}}}
rules:
  wish:
    when: Wish
    if: {condition}
    offer: gift
    fresh: 1m
    cap: {{times: 1, per: 7d}}
    {"ends: 2025-12-31" if "outside_dates" in wrong else ""}
    {'during: {from: "07:00", to: "10:00"}' if "outside_hours" in wrong else ""}
"""
    quiet = 'quiet_hours: {from: "21:00", to: "08:00"}' if "quiet_hours" in wrong else ""
    address = Address(
        token="token" if "no_device" not in wrong else None,
        permissions={"push": "denied"} if "no_permission" in wrong else {},
        seen_at=BEFORE,
    )
    made = Contact(NOON, "gift", "wish", "push", "marketing", "d0")
    profile = someone(
        consent={} if "no_consent" in wrong else {"marketing": Consent(True, BEFORE)},
        devices={"phone": address},
        contacts=(made,) if "capped" in wrong else (),
        identities=many(1001 if "quarantined" in wrong else 1),
    )
    score = None if "model_failed" in wrong else 0.1 if "low_propensity" in wrong else 0.5
    story = Story(rule_set(rules, quiet, ["redeem"]), profile, {"redeem": score})
    happened = now - timedelta(hours=1 if "stale_event" in wrong else 0)
    worth = {"stock": 3, "worth": 0.5 if "not_worth_it" in wrong else 5.0}
    return story.ask(event(at=happened, received_at=now, properties=worth))


@pytest.mark.parametrize("first", range(len(IN_ORDER)))
def test_the_first_gate_that_is_shut_gives_the_reason(first: int) -> None:
    decision = with_all_wrong(IN_ORDER[first:])
    assert said(decision) == IN_ORDER[first]
    assert decision.outcome is Outcome.SUPPRESSED
    assert decision.candidates[0].reason == IN_ORDER[first]


@pytest.mark.parametrize("alone", IN_ORDER)
def test_each_gate_stops_an_offer_by_itself(alone: str) -> None:
    assert said(with_all_wrong([alone])) == alone


def test_an_offer_with_nothing_wrong_is_made() -> None:
    assert said(with_all_wrong([])) == "offered"


SKIPPED_BY_CONTRACT = {
    "no_consent",
    "capped",
    "model_failed",
    "low_propensity",
    "not_worth_it",
    "quiet_hours",
}


@pytest.mark.parametrize("alone", IN_ORDER)
def test_what_a_contract_owes_skips_the_gates_of_marketing_only(alone: str) -> None:
    expected = "offered" if alone in SKIPPED_BY_CONTRACT else alone
    assert said(with_all_wrong([alone], "service")) == expected


def test_a_contract_skips_all_of_them_at_once() -> None:
    assert said(with_all_wrong(SKIPPED_BY_CONTRACT, "service")) == "offered"


NUMBERS: dict[str, dict[str, Any]] = {
    "outside_dates": {"ends": local("Europe/Dublin", "2026-01-01 00:00:00")},
    "quarantined": {"identities": 1001},
    "no_consent": {"purpose": "marketing", "state": "unknown"},
    "stale_event": {"ageSeconds": 3600.0, "freshSeconds": 60.0},
    "condition_false": {"condition": "event.properties.stock > 5"},
    "condition_unknown": {"condition": "event.properties.size > 5"},
    "outside_hours": {"local": "Mon 22:00"},
    "no_device": {},
    "no_permission": {"push": "denied"},
    "capped": {"times": 1, "per": "7d", "count": 1, "of": "wish"},
    "model_failed": {"model": "redeem"},
    "low_propensity": {"propensity": 0.1, "atLeast": 0.25},
    "not_worth_it": {"expectedValue": -0.25, "propensity": 0.5, "value": 0.5, "cost": 1.0},
    "quiet_hours": {"from": "21:00", "to": "08:00", "local": "22:00"},
}


@pytest.mark.parametrize("alone", IN_ORDER)
def test_each_gate_says_by_how_much(alone: str) -> None:
    (judged,) = with_all_wrong([alone]).candidates
    assert dict(judged.numbers) == NUMBERS[alone]


def test_the_score_of_a_candidate_stands_beside_its_reason() -> None:
    low, poor = with_all_wrong(["low_propensity"]), with_all_wrong(["not_worth_it"])
    assert (low.propensity, low.expected_value) == (0.1, None)
    assert (poor.propensity, poor.expected_value) == (0.5, -0.25)
    assert with_all_wrong(["no_device"]).propensity is None


COMPETITION = """
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: For you}}}
  deal: {purpose: partners, message: {push: {title: A deal, body: For you}}}
rules:
  a-false: {when: Wish, if: "1 > 2", offer: gift}
  b-unknown: {when: Wish, if: event.properties.size > 1, offer: gift}
  c-late: {when: Wish, offer: gift, during: {from: "07:00", to: "10:00"}}
  d-no-consent: {when: Wish, offer: deal}
"""


def test_the_decision_has_the_reason_of_the_candidate_that_came_furthest() -> None:
    workspace = "consent: {purposes: {marketing: {}, partners: {}}}"
    decision = Story(rule_set(COMPETITION, workspace)).ask(event())
    assert (said(decision), decision.rule, decision.offer) == ("outside_hours", "c-late", "gift")
    assert {rule: c.reason for rule, c in candidates(decision).items()} == {
        "a-false/gift": "condition_false",
        "b-unknown/gift": "condition_unknown",
        "c-late/gift": "outside_hours",
        "d-no-consent/deal": "no_consent",
    }


def test_one_that_may_is_not_held_up_by_others_that_may_not() -> None:
    workspace = "consent: {purposes: {marketing: {}, partners: {}}}"
    rules = COMPETITION + "  e-good: {when: Wish, offer: gift, priority: -9}\n"
    decision = Story(rule_set(rules, workspace)).ask(event())
    assert (said(decision), decision.rule) == ("offered", "e-good")
    assert [c.reason for c in decision.candidates if c.rule == "e-good"] == [None]


# Conditions in three-valued logic


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("true", "true", "offered"),
        ("true", "1 > 2", "condition_false"),
        ("1 > 2", "true", "condition_false"),
        ("event.properties.size > 1", "true", "condition_unknown"),
        ("true", "event.properties.size > 1", "condition_unknown"),
        ("1 > 2", "event.properties.size > 1", "condition_false"),
        ("event.properties.size > 1", "1 > 2", "condition_false"),
    ],
)
def test_the_conditions_of_a_trigger_and_its_rule_hold_together(
    first: str, second: str, expected: str
) -> None:
    """False is checked before unknown: what cannot become true is false whatever is not known."""
    rules = GIFT.replace("when: Wish,", f"when: {{event: Wish, if: {first}}}, if: {second},")
    assert said(Story(rule_set(rules)).ask(event())) == expected


@pytest.mark.parametrize("size", [None, "large", [], {}, True])
def test_a_condition_on_what_is_no_number_is_unknown(size: object) -> None:
    rules = GIFT.replace("when: Wish,", "when: Wish, if: event.properties.size > 1,")
    decision = Story(rule_set(rules)).ask(event(properties={"size": size}))
    assert said(decision) == "condition_unknown"


# Dates


def dated(span: str) -> tuple[RuleSet, RuleSet]:
    """The same dates on the rule, and on the offer."""
    of_rule = GIFT.replace("offer: gift}", f"offer: gift, {span}}}")
    of_offer = GIFT.replace("purpose: marketing,", f"purpose: marketing, {span},")
    return rule_set(of_rule), rule_set(of_offer)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize(
    ("span", "moments"),
    [
        # Dublin is one hour ahead of UTC in summer.
        (
            "starts: 2026-07-01",
            {"2026-06-30T22:59:59Z": "outside_dates", "2026-06-30T23:00:00Z": "offered"},
        ),
        # The day on which it ends belongs to it.
        (
            "ends: 2026-07-31",
            {"2026-07-31T22:59:59Z": "offered", "2026-07-31T23:00:00Z": "outside_dates"},
        ),
        # The day of 23 hours, and that of 25.
        (
            "starts: 2026-03-29, ends: 2026-03-29",
            {
                "2026-03-28T23:59:59Z": "outside_dates",
                "2026-03-29T00:00:00Z": "offered",
                "2026-03-29T22:59:59Z": "offered",
                "2026-03-29T23:00:00Z": "outside_dates",
            },
        ),
        (
            "starts: 2026-10-25, ends: 2026-10-25",
            {
                "2026-10-24T22:59:59Z": "outside_dates",
                "2026-10-24T23:00:00Z": "offered",
                "2026-10-25T23:59:59Z": "offered",
                "2026-10-26T00:00:00Z": "outside_dates",
            },
        ),
        (
            "starts: 2026-07-01T12:00:00+02:00, ends: 2026-07-01T11:00:00Z",
            {
                "2026-07-01T09:59:59Z": "outside_dates",
                "2026-07-01T10:00:00Z": "offered",
                "2026-07-01T10:59:59Z": "offered",
                "2026-07-01T11:00:00Z": "outside_dates",
            },
        ),
    ],
)
def test_starts_and_ends_are_days_of_the_workspace(part: int, span: str, moments: dict[str, str]) -> None:
    """Wherever the person is: an offer's dates are the shop's."""
    story = Story(dated(span)[part], someone(timezone="Pacific/Kiritimati"))
    assert story.wish(*map(datetime.fromisoformat, moments)) == list(moments.values())


# The person's clock


def clock(story: Story, zone: str, timeline: dict[str, str]) -> None:
    assert story.wish(*(local(zone, text) for text in timeline)) == list(timeline.values())


@pytest.mark.parametrize("zone", ["Europe/Dublin", "America/New_York", "Asia/Kathmandu"])
def test_quiet_hours_past_midnight_by_the_persons_clock(zone: str) -> None:
    story = Story(rule_set(workspace='quiet_hours: {from: "21:00", to: "08:00"}'), someone(timezone=zone))
    timeline = {
        "2026-01-12 20:59:59": "offered",
        "2026-01-12 21:00:00": "quiet_hours",
        "2026-01-12 21:00:01": "quiet_hours",
        "2026-01-12 23:59:59": "quiet_hours",
        "2026-01-13 00:00:00": "quiet_hours",
        "2026-01-13 07:59:59": "quiet_hours",
        "2026-01-13 08:00:00": "offered",
        "2026-01-13 08:00:01": "offered",
    }
    clock(story, zone, timeline)


def test_quiet_hours_within_a_day() -> None:
    story = Story(rule_set(workspace='quiet_hours: {from: "13:00", to: "14:30"}'))
    timeline = {
        "2026-01-12 12:59:59": "offered",
        "2026-01-12 13:00:00": "quiet_hours",
        "2026-01-12 14:29:59": "quiet_hours",
        "2026-01-12 14:30:00": "offered",
        "2026-01-13 13:00:00": "quiet_hours",
    }
    clock(story, "Europe/Dublin", timeline)


def test_quiet_hours_on_the_night_when_an_hour_is_missing() -> None:
    """At 01:00 the clock jumps to 02:00, past the end of the quiet hours."""
    story = Story(rule_set(workspace='quiet_hours: {from: "22:00", to: "01:30"}'))
    jump = local("Europe/Dublin", "2026-03-29 00:59:59")
    assert story.wish(jump, jump + seconds(1)) == ["quiet_hours", "offered"]
    clock(story, "Europe/Dublin", {"2026-03-29 22:00:00": "quiet_hours", "2026-03-30 01:30:00": "offered"})


def test_quiet_hours_on_the_night_when_an_hour_comes_twice() -> None:
    """From 02:00 the clock goes back to 01:00: what it shows is quiet is quiet again."""
    story = Story(rule_set(workspace='quiet_hours: {from: "22:00", to: "01:30"}'))
    first = local("Europe/Dublin", "2026-10-25 01:30:00")
    again = local("Europe/Dublin", "2026-10-25 01:00:00", fold=1)
    assert again - first == timedelta(minutes=30)
    moments = {
        first - seconds(1): "quiet_hours",
        first: "offered",
        again - seconds(1): "offered",
        again: "quiet_hours",
        again + timedelta(minutes=30) - seconds(1): "quiet_hours",
        again + timedelta(minutes=30): "offered",
    }
    assert story.wish(*moments) == list(moments.values())


def test_quiet_hours_begin_an_hour_earlier_for_the_world_when_summer_begins() -> None:
    story = Story(rule_set(workspace='quiet_hours: {from: "21:00", to: "08:00"}'))
    winter = datetime.fromisoformat("2026-03-28T21:00:00Z")
    summer = datetime.fromisoformat("2026-03-29T20:00:00Z")
    assert story.wish(winter - seconds(1), winter) == ["offered", "quiet_hours"]
    assert story.wish(summer - seconds(1), summer) == ["offered", "quiet_hours"]


def during(hours: str) -> RuleSet:
    return rule_set(GIFT.replace("offer: gift}", f"offer: gift, during: {{{hours}}}}}"))


def test_hours_of_certain_days() -> None:
    """The 12th of January 2026 is a Monday."""
    story = Story(during('from: "07:00", to: "10:00", days: [mon, wed]'), someone(timezone="Asia/Tokyo"))
    timeline = {
        "2026-01-12 06:59:59": "outside_hours",
        "2026-01-12 07:00:00": "offered",
        "2026-01-12 09:59:59": "offered",
        "2026-01-12 10:00:00": "outside_hours",
        "2026-01-13 08:00:00": "outside_hours",
        "2026-01-14 07:00:00": "offered",
        "2026-01-18 08:00:00": "outside_hours",
    }
    clock(story, "Asia/Tokyo", timeline)


def test_hours_past_midnight_belong_to_the_day_on_which_they_began() -> None:
    """Friday's night ends on Saturday; the small hours of Friday are Thursday's."""
    story = Story(during('from: "22:00", to: "02:00", days: [fri]'))
    timeline = {
        "2026-01-16 00:00:00": "outside_hours",
        "2026-01-16 01:59:59": "outside_hours",
        "2026-01-16 21:59:59": "outside_hours",
        "2026-01-16 22:00:00": "offered",
        "2026-01-16 23:59:59": "offered",
        "2026-01-17 00:00:00": "offered",
        "2026-01-17 01:59:59": "offered",
        "2026-01-17 02:00:00": "outside_hours",
        "2026-01-17 22:00:00": "outside_hours",
        "2026-01-23 22:00:00": "offered",
    }
    clock(story, "Europe/Dublin", timeline)


def test_hours_past_midnight_from_sunday_to_monday() -> None:
    story = Story(during('from: "22:00", to: "02:00", days: [sun]'))
    timeline = {
        "2026-01-12 00:00:00": "offered",
        "2026-01-12 02:00:00": "outside_hours",
        "2026-01-12 22:00:00": "outside_hours",
        "2026-01-18 22:00:00": "offered",
    }
    clock(story, "Europe/Dublin", timeline)


def test_hours_until_midnight() -> None:
    story = Story(during('from: "22:00", to: "00:00"'))
    timeline = {
        "2026-01-12 21:59:59": "outside_hours",
        "2026-01-12 22:00:00": "offered",
        "2026-01-12 23:59:59": "offered",
        "2026-01-13 00:00:00": "outside_hours",
    }
    clock(story, "Europe/Dublin", timeline)


def test_whole_days() -> None:
    story = Story(during("days: [sat, sun]"))
    timeline = {
        "2026-01-16 23:59:59": "outside_hours",
        "2026-01-17 00:00:00": "offered",
        "2026-01-18 23:59:59": "offered",
        "2026-01-19 00:00:00": "outside_hours",
    }
    clock(story, "Europe/Dublin", timeline)


def test_hours_when_the_clock_changes() -> None:
    story = Story(during('from: "01:30", to: "02:30", days: [sun]'))
    missing = local("Europe/Dublin", "2026-03-29 00:59:59")  # 02:00:00 follows
    assert story.wish(missing, missing + seconds(1)) == ["outside_hours", "offered"]
    assert story.wish(missing + seconds(1801)) == ["outside_hours"]
    twice = local("Europe/Dublin", "2026-10-25 01:30:00")
    again = local("Europe/Dublin", "2026-10-25 01:30:00", fold=1)
    assert story.wish(twice - seconds(1), twice) == ["outside_hours", "offered"]
    assert story.wish(again - seconds(1), again) == ["outside_hours", "offered"]
    assert story.wish(local("Europe/Dublin", "2026-10-25 02:30:00")) == ["outside_hours"]


# Freshness

PLACES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}}
  quay: {circle: {lat: 52.66, lng: -8.62, radius: 300}}
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: For you}}}
rules:
"""
AT_CAFE = PLACES + "  cafe: {when: {enter: {fence: cafe}}, offer: gift}\n"


@pytest.mark.parametrize(
    ("rules", "fresh", "location"),
    [
        (AT_CAFE, 600, CAFE),
        (AT_CAFE.replace("offer: gift}", "offer: gift, fresh: 90s}"), 90, CAFE),
        (GIFT.replace("offer: gift}", "offer: gift, fresh: 90s}"), 90, None),
    ],
)
def test_an_event_is_fresh_until_its_last_second(rules: str, fresh: int, location: Location | None) -> None:
    for age, expected in ((0, "offered"), (fresh - 1, "offered"), (fresh, "offered"), (-5, "offered")):
        story = Story(rule_set(rules))
        assert said(story.ask(event(location=location), NOON + seconds(age))) == expected
    old = Story(rule_set(rules)).ask(event(location=location), NOON + seconds(fresh + 1))
    assert said(old) == "stale_event"
    assert dict(old.candidates[0].numbers) == {"ageSeconds": fresh + 1.0, "freshSeconds": float(fresh)}


def test_an_ordinary_event_may_be_of_any_age() -> None:
    assert said(Story(rule_set()).ask(event(), NOON + timedelta(days=300))) == "offered"


@pytest.mark.parametrize(("age", "expected"), [(599, "offered"), (600, "offered"), (601, "stale_event")])
def test_entering_is_as_old_as_the_fix_that_shows_it(age: int, expected: str) -> None:
    """Phones send what they cached: an event of now, with a fix of before."""
    cached = msgspec.structs.replace(CAFE, at=NOON - seconds(age))
    story = Story(rule_set(AT_CAFE))
    assert said(story.ask(fix(cached, NOON, sent_at=NOON))) == expected


def test_leaving_has_the_same_default() -> None:
    rules = AT_CAFE.replace("enter:", "exit:")
    for age, expected in ((600, "offered"), (601, "stale_event")):
        story = Story(rule_set(rules))
        story.tell(fix(CAFE, NOON))
        gone = fix(FAR, NOON + seconds(60))
        assert said(story.ask(gone, NOON + seconds(60 + age))) == expected


def test_in_a_late_batch_a_transition_must_still_hold_at_the_newest_fix() -> None:
    both = AT_CAFE + "  left: {when: {exit: {fence: cafe}}, offer: gift}\n"
    near = Location(latitude=52.6612, longitude=-8.62, accuracy=10.0)  # outside the café, on the quay
    for newest, expected in ((None, "offered"), (CAFE, "offered"), (near, "stale_event")):
        story = Story(rule_set(both))
        entered = story.ask(fix(CAFE), newest=newest)
        assert said(entered) == expected
        if expected == "stale_event":
            assert dict(entered.candidates[0].numbers) == {"insideAtNewestFix": False}
    story = Story(rule_set(both))
    story.tell(fix(CAFE))
    left = story.ask(fix(FAR, NOON + seconds(60)), newest=CAFE)
    assert (said(left), dict(left.candidates[0].numbers)) == ("stale_event", {"insideAtNewestFix": True})
    on_quay = AT_CAFE.replace("fence: cafe", "fence: quay")
    assert said(Story(rule_set(on_quay)).ask(fix(CAFE), newest=near)) == "offered"


# Devices


def devices(**addresses: Address) -> Profile:
    return someone(devices=addresses)


def reached(story: Story) -> str:
    story.ask(event())
    assert story.verdict is not None
    return story.verdict.sends[0].device_id if story.verdict.sends else said(story.decisions[-1])


DENIED = {"push": "denied"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"token": "a"}, {"token": "b"}, "new"),
        ({"token": "a"}, {"token": None}, "old"),
        ({"token": "a"}, {"token": "b", "logged_out": True}, "old"),
        ({"token": "a"}, {"token": "b", "permissions": DENIED}, "old"),
        (
            {"token": "a", "permissions": DENIED},
            {"token": "b", "permissions": {"push": "provisional"}},
            "new",
        ),
        ({"token": "a", "permissions": DENIED}, {"token": "b", "permissions": DENIED}, "no_permission"),
        ({"token": "a", "permissions": DENIED}, {"token": None}, "no_permission"),
        ({"token": "a", "logged_out": True, "permissions": DENIED}, {"token": None}, "no_device"),
        ({"token": None}, {"token": None}, "no_device"),
    ],
)
def test_a_push_goes_to_the_device_seen_last_of_those_that_may_have_it(
    old: dict[str, Any], new: dict[str, Any], expected: str
) -> None:
    addresses = {
        "old": Address(seen_at=NOON - timedelta(days=2), **old),
        "new": Address(seen_at=NOON - timedelta(days=1), **new),
    }
    assert reached(Story(rule_set(), devices(**addresses))) == expected


def test_nobody_without_a_device_is_offered_a_push() -> None:
    assert reached(Story(rule_set(), devices())) == "no_device"


def test_a_push_goes_to_the_device_that_the_event_came_from() -> None:
    """It has just been seen."""
    story = Story(rule_set(), devices(tablet=Address(token="t", seen_at=NOON - seconds(1))))
    story.ask(event(device=phone("phone", "p")))
    assert story.verdict is not None
    (sending,) = story.verdict.sends
    assert (sending.device_id, sending.address.token) == ("phone", "p")


# Quarantine


@pytest.mark.parametrize(
    ("identities", "expected"), [(999, "offered"), (1000, "offered"), (1001, "quarantined")]
)
def test_more_than_a_thousand_identities_are_no_person(identities: int, expected: str) -> None:
    """Design 6.1: a profile with more than 1,000 is quarantined."""
    assert said(Story(rule_set(), someone(identities=many(identities))).ask(event())) == expected
