"""One event's whole way through the core, and what holds for every history of events.

Long because the properties share one town, one person and one kind of history.
"""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import decide
from engine.domain.offers.decisions import (
    Decision,
    Outcome,
    bucket_of_decision,
    full_form,
    is_worth_telling,
    public_form,
)
from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Event, Kind, Location, Sender
from engine.domain.people.profiles import Profile, bucket_of, encode_profile, token_digest
from tests.story import (
    CAFE,
    FAR,
    GIFT,
    NOON,
    Story,
    candidates,
    event,
    fix,
    judge,
    phone,
    rule_set,
    said,
    seconds,
    someone,
    stored,
)

WORKSPACE = """
currency: EUR
rates: {USD: 0.92}
quiet_hours: {from: "21:00", to: "08:00"}
caps: [{channel: push, times: 3, per: day}, {purpose: marketing, times: 2, per: 2h}]
consent:
  purposes:
    marketing: {from: [C0004]}
    location: {}
    service: {basis: contract}
traits: {first_name: {type: string}, departs_at: {type: timestamp}}
computed:
  orders: {count: Order Completed}
  spend: {sum: event.properties.revenue, of: Order Completed}
  last_store: {last: event.properties.store, of: Order Completed}
  days: {days_since: Order Completed}
  visits: {count: {enter: {tag: cafe}}}
  tier: {steps: spend, from: {bronze: 0, silver: 20}}
"""
TOWN = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {name: The Mill}}
  quay: {circle: {lat: 52.66, lng: -8.62, radius: 300}, tags: [cafe]}
offers:
  latte: {purpose: marketing, value: 3, cost: 1, propensity: {model: redeem, at_least: 0.2}, MESSAGE}
  cookie: {purpose: marketing, value: 0.1 * profile.spend, propensity: 0.5, MESSAGE}
  hello: {purpose: marketing, MESSAGE}
  ready: {purpose: service, MESSAGE}
rules:
  cafe: {when: {enter: {tag: cafe}}, offers: [latte, hello], cap: {times: 1, per: 1h}}
  leave: {when: {exit: {fence: quay}}, offer: cookie}
  likely: {when: Wish, if: propensity.redeem > 0.5, offer: hello, priority: 1}
  silver: {when: Wish, if: profile.tier == "silver", offer: cookie}
  wish: {when: Wish, offer: hello, cap: [{times: 2, per: 10m}, {times: 4, per: week}]}
  flight: {when: Wish, if: "profile.departs_at - now > duration('40m')", offer: latte, during: DAY}
  order: {when: Order Completed, offer: ready}
""".replace("MESSAGE", "message: {push: {title: t, body: b}}").replace("DAY", '{from: "07:00", to: "20:00"}')
RULES = rule_set(TOWN, WORKSPACE, ["redeem"])


# What a decision says


def test_one_decision_an_event_with_all_that_competed() -> None:
    story = Story(RULES, someone(consent={}), {"redeem": 0.4})
    story.tell(event("Open", NOON, consent={"marketing": True, "location": True}))
    (decision,) = story.tell(fix(CAFE, NOON + seconds(1)))
    assert decision == msgspec.structs.replace(
        decision,
        message_id=story.seen.event.message_id if story.seen else "",
        profile_id=story.profile.id,
        decided_at=NOON + seconds(1),
        trigger="enter",
        geofence="cafe",
        rule="cafe",
        offer="latte",
        outcome=Outcome.OFFERED,
        reason=None,
        channel="push",
        placement=None,
        propensity=0.4,
        expected_value=pytest.approx(0.8),
        revision=RULES.revision,
        expires_at=NOON + seconds(1) + timedelta(hours=4),
    )
    assert [(c.offer, c.geofence, c.reason) for c in decision.candidates] == [
        ("latte", "cafe", None),
        ("hello", "cafe", "outranked"),
        ("latte", "quay", "outranked"),
        ("hello", "quay", "outranked"),
    ]


def test_an_event_that_no_rule_waits_for_decides_nothing() -> None:
    story = Story(RULES)
    assert story.tell(event("Open")) == ()
    assert story.tell(event("Wish", kind=Kind.PAGE)) == ()
    assert story.tell(event("Wish", kind=Kind.IDENTIFY)) == ()
    assert story.profile.seq == 3


def test_pages_and_screens_set_rules_off() -> None:
    rules = (
        GIFT + "  page: {when: {page: Prices}, offer: gift}\n  home: {when: {screen: Home}, offer: gift}\n"
    )
    story = Story(rule_set(rules))
    assert story.ask(event("Prices", kind=Kind.PAGE)).trigger == "page"
    assert story.ask(event("Home", kind=Kind.SCREEN)).trigger == "screen"
    assert story.ask(event("Wish")).trigger == "event"


def test_the_trigger_is_the_winners() -> None:
    rules = TOWN + "  moved: {when: Location Updated, offer: hello, priority: 9}\n"
    story = Story(rule_set(rules, WORKSPACE, ["redeem"]), scores={"redeem": 0.4})
    assert story.ask(fix(CAFE, consent={"location": True})).trigger == "enter"
    moved = story.ask(fix(CAFE, NOON + seconds(30)))
    assert (moved.trigger, moved.geofence, moved.rule) == ("event", None, "moved")


def test_a_decisions_id_says_when_and_where_and_is_derived_again() -> None:
    ids = set()
    for seq in range(3):
        story = Story(rule_set(), someone(seq=seq))
        decision, again = story.ask(event()), Story(rule_set(), someone(seq=seq)).ask(event())
        assert decision.id == again.id
        ids.add(decision.id)
        identifier = UUID(decision.id)
        assert (identifier.version, identifier.variant) == (8, "specified in RFC 4122")
        assert int.from_bytes(identifier.bytes[:6], "big") == NOON.timestamp() * 1000
        assert bucket_of_decision(decision.id) == bucket_of(story.profile.id)
    assert len(ids) == 3


# What is told of it


@pytest.mark.parametrize(
    ("rules", "reason", "told"),
    [
        (GIFT, "offered", True),
        (GIFT.replace("offer: gift", "if: 1 > 2, offer: gift"), "condition_false", False),
        (GIFT.replace("offer: gift", "ends: 2025-01-01, offer: gift"), "outside_dates", True),
        (GIFT.replace("offer: gift", "if: event.properties.x, offer: gift"), "condition_unknown", True),
        (
            GIFT.replace("offer: gift", "days, offer: gift").replace("days", "during: {days: [sun]}"),
            "outside_hours",
            True,
        ),
    ],
)
def test_only_a_false_condition_is_not_told(rules: str, reason: str, told: bool) -> None:
    decision = Story(rule_set(rules)).ask(event())
    assert said(decision) == reason
    assert is_worth_telling(decision) is told
    assert (full_form(decision) is not None) is told
    assert (public_form(decision) is not None) is (reason == "offered")


def test_a_decision_is_hidden_only_if_all_its_candidates_fell_at_the_condition() -> None:
    """Design 6.4. That there was no consent is worth telling, though another rule came further."""
    rules = GIFT.replace("offer: gift", "if: 1 > 2, offer: gift") + "  other: {when: Wish, offer: deal}\n"
    rules = rules.replace(
        "offers:\n", "offers:\n  deal: {purpose: partners, message: {push: {title: t, body: b}}}\n"
    )
    decision = Story(rule_set(rules, "consent: {purposes: {marketing: {}, partners: {}}}")).ask(event())
    assert {name: c.reason for name, c in candidates(decision).items()} == {
        "wish/gift": "condition_false",
        "other/deal": "no_consent",
    }
    assert said(decision) == "condition_false"
    assert is_worth_telling(decision)


def test_an_app_sees_no_more_than_its_contract_says() -> None:
    shown = public_form(Story(rule_set()).ask(event()))
    assert msgspec.to_builtins(shown).keys() == {
        "id",
        "messageId",
        "offer",
        "outcome",
        "placement",
        "message",
        "expiresAt",
    }


# Models


def needed(name: str, profile: Profile | None = None, rules: RuleSet = RULES, **fields: Any) -> set[str]:
    told = event(name, **fields) if name != "fix" else fix(CAFE)
    seen = decide.observe(rules, profile or someone(), told, told.timestamp)
    return set(decide.judge(rules, seen, told.timestamp).needed)


def test_models_are_asked_only_where_they_could_change_something() -> None:
    assert needed("Wish") == {"redeem"}  # a condition reads it
    assert needed("Order Completed") == set()
    assert needed("Open") == set()
    assert needed("Wish", someone(consent={})) == set()  # everyone fell before it
    assert needed("Wish", someone(devices={})) == {"redeem"}  # unknown comes before no_device


def test_a_first_look_that_needs_scores_decides_nothing() -> None:
    seen = decide.observe(RULES, someone(), event(), NOON)
    verdict = decide.judge(RULES, seen, NOON)
    assert (verdict.decisions, verdict.sends) == ((), ())
    assert verdict.profile == seen.profile
    assert verdict.scope is not None


@pytest.mark.parametrize(
    ("score", "reason"), [(0.51, "outranked"), (0.5, "condition_false"), (None, "condition_unknown")]
)
def test_a_condition_may_read_a_score(score: float | None, reason: str) -> None:
    rules = TOWN.replace("  wish: {when: Wish,", "  wish: {when: Wish, priority: 5,")
    decision = Story(rule_set(rules, WORKSPACE, ["redeem"]), scores={"redeem": score}).ask(event())
    assert candidates(decision)["likely/hello"].reason == reason
    assert (said(decision), decision.rule) == ("offered", "wish")


def test_a_condition_on_all_scores_asks_all_models() -> None:
    text = GIFT.replace("when: Wish,", 'when: Wish, if: "propensity[event.properties.model] > 0.5",')
    rules = rule_set(text, models=["redeem", "churn"])
    assert needed("Wish", rules=rules, properties={"model": "churn"}) == {"redeem", "churn"}
    story = Story(rules, scores={"redeem": 0.1, "churn": 0.9})
    assert said(story.ask(event(properties={"model": "churn"}))) == "offered"
    assert said(story.ask(event(properties={"model": "redeem"}))) == "condition_false"


def test_a_value_may_read_a_score() -> None:
    text = GIFT.replace(
        "purpose: marketing,", "purpose: marketing, value: 10 * propensity.churn, propensity: 0.5,"
    )
    decision = Story(rule_set(text, models=["churn"]), scores={"churn": 0.5}).ask(event())
    assert (said(decision), decision.expected_value) == ("offered", 2.5)
    failed = Story(rule_set(text, models=["churn"]), scores={"churn": None}).ask(event())
    assert said(failed) == "condition_unknown"


# Sends


def test_a_winner_is_sent_and_a_loser_is_not() -> None:
    story = Story(RULES, someone(), {"redeem": 0.9})
    story.ask(event(device=phone("phone", "t1")))
    assert story.verdict is not None
    (sending,) = story.verdict.sends
    assert (sending.device_id, sending.address.token, sending.candidate.rule.id) == ("phone", "t1", "likely")
    assert sending.decision == story.decisions[-1]
    assert [(c.offer, c.rule, c.channel, c.purpose, c.decision) for c in story.profile.contacts] == [
        ("hello", "likely", "push", "marketing", sending.decision.id)
    ]
    night = Story(RULES, someone(), {"redeem": 0.9})
    assert said(night.ask(event(at=NOON + timedelta(hours=10)))) == "quiet_hours"
    assert night.verdict is not None
    assert night.verdict.sends == ()
    assert night.profile.contacts == ()


def test_a_token_the_provider_no_longer_knows_is_forgotten_unless_it_is_new() -> None:
    story = Story(rule_set())
    decision = story.ask(event(device=phone("phone", "old")))

    def fails(sender: Sender = Sender.ENGINE) -> None:
        gone = {"device": "phone", "token_digest": token_digest("old"), "token_forgotten": True}
        story.tell(
            event(
                "Offer Failed", NOON + seconds(9), sender=sender, properties={"decision": decision.id, **gone}
            )
        )

    fails(Sender.CLIENT)
    assert story.profile.devices["phone"].token == "old"
    story.tell(event("Open", NOON + seconds(5), device=phone("phone", "new")))
    fails()
    assert story.profile.devices["phone"].token == "new"
    story.tell(event("Open", NOON + seconds(12), device=phone("phone", "old")))
    fails()
    assert story.profile.devices["phone"].token is None
    assert said(story.ask(event(at=NOON + seconds(20)))) == "no_device"


def test_a_fix_that_is_not_believed_is_noted_and_sets_nothing_off() -> None:
    story = Story(RULES, someone(), {"redeem": 0.9})
    story.tell(event("Open", NOON, consent={"location": True}))
    assert story.tell(fix(msgspec.structs.replace(CAFE, is_mock=True), NOON + seconds(1))) == ()
    assert story.seen is not None
    assert story.seen.notes == ("fix: mock",)
    assert story.profile.presence.inside == {}


# What holds for every history

PLACES = [
    CAFE,
    FAR,
    Location(latitude=52.6615, longitude=-8.62, accuracy=15.0),
    Location(latitude=52.66, longitude=-8.62, accuracy=900.0),
    Location(latitude=-90.0, longitude=180.0, accuracy=0.0),
    Location(latitude=52.66, longitude=-8.62, is_mock=True),
]
SCORES = [0.1, 0.4, 0.9, None]


@st.composite
def occurrences(draw: st.DrawFn) -> tuple[Event, datetime, float | None]:
    """An event, when it is decided, and what the model then says. Times leap both ways."""
    now = NOON + timedelta(minutes=draw(st.integers(0, 3000)))
    happened = now + timedelta(seconds=draw(st.sampled_from([0, 0, 0, -1, 30, -600, -601, -90_000])))
    name = draw(
        st.sampled_from(["Wish", "Wish", "Order Completed", "Location Updated", "Open", "Logged Out"])
    )
    fields: dict[str, Any] = {"user_id": draw(st.sampled_from(["ada", None])), "anonymous_id": "app"}
    if name == "Location Updated" or draw(st.booleans()):
        fields["location"] = draw(st.sampled_from(PLACES))
    if name == "Order Completed":
        fields["properties"] = {
            "revenue": draw(st.sampled_from([0.1, 19.99, -5, "7", None])),
            "store": draw(st.sampled_from(["s1", None, 7])),
            "currency": draw(st.sampled_from(["EUR", "USD", "JPY"])),
        }
    if draw(st.integers(0, 2)) == 0:
        purpose = draw(st.sampled_from(["marketing", "C0004", "location"]))
        fields["consent"] = {purpose: draw(st.booleans())}
    if draw(st.integers(0, 2)) == 0:
        token = draw(st.sampled_from(["t1", "t2", None, msgspec.UNSET]))
        allowed = draw(st.sampled_from([{}, {"push": "denied"}, {"push": "granted"}]))
        fields["device"] = phone(draw(st.sampled_from(["phone", "tablet"])), token, permissions=allowed)
    if draw(st.integers(0, 3)) == 0:
        fields["traits"] = {
            "departs_at": draw(st.sampled_from(["2026-01-13T12:00:00Z", "soon", 7, None])),
            "first_name": draw(st.sampled_from(["Ada", 1, None])),
        }
    if draw(st.integers(0, 3)) == 0:
        zones = ["Asia/Tokyo", "America/Havana", "Nowhere", 7, None]
        fields["context"] = {"timezone": draw(st.sampled_from(zones)), "locale": "fr-CA"}
    number = draw(st.integers(0, 10**9))
    told = event(name, happened, received_at=now, message_id=f"m{number}", **fields)
    return told, now, draw(st.sampled_from(SCORES))


histories = st.lists(occurrences(), max_size=25)
History = list[tuple[Event, datetime, float | None]]


def lived(rules: RuleSet, history: History) -> tuple[Profile, list[Decision]]:
    """The profile and all decisions, everything stored and read again on the way."""
    profile, decisions = newcomer(), []
    decode = msgspec.json.Decoder(Event).decode
    for told, now, score in history:
        seen = decide.observe(rules, profile, told, now)
        logged = decode(msgspec.json.encode(seen.event))
        assert logged == seen.event  # the log keeps what was decided on
        verdict = judge(rules, seen, now, {"redeem": score})
        profile = stored(verdict.profile)
        assert profile == verdict.profile  # nothing changes by being stored
        decisions += verdict.decisions
    return profile, decisions


def newcomer() -> Profile:
    return someone(consent={}, devices={})


@settings(max_examples=80, deadline=None)
@given(histories)
def test_a_log_replays_to_the_same_decisions_and_the_same_document(history: History) -> None:
    """Events as they were kept, that is with coarse positions, decide again as they did."""
    profile, decisions = newcomer(), []
    log: list[tuple[bytes, datetime, float | None]] = []
    for told, now, score in history:
        seen = decide.observe(RULES, profile, told, now)
        verdict = judge(RULES, seen, now, {"redeem": score})
        profile = stored(verdict.profile)
        decisions += verdict.decisions
        log.append((msgspec.json.encode(seen.event), now, score))
    replayed = [(msgspec.json.decode(body, type=Event), now, score) for body, now, score in log]
    again, decided = lived(RULES, replayed)
    assert encode_profile(again) == encode_profile(profile)
    assert [msgspec.json.encode(d) for d in decided] == [msgspec.json.encode(d) for d in decisions]


@settings(max_examples=80, deadline=None)
@given(histories)
def test_observing_and_judging_change_nothing_that_they_were_given(history: History) -> None:
    profile = newcomer()
    for told, now, score in history:
        before, twin = encode_profile(profile), copy.deepcopy(profile)
        event_before, event_twin = msgspec.json.encode(told), copy.deepcopy(told)
        seen = decide.observe(RULES, profile, told, now)
        seen_before = encode_profile(seen.profile)
        verdict = judge(RULES, seen, now, {"redeem": score})
        assert encode_profile(profile) == before
        assert profile == twin
        assert (msgspec.json.encode(told), told) == (event_before, event_twin)
        assert encode_profile(seen.profile) == seen_before
        profile = verdict.profile


@settings(max_examples=80, deadline=None)
@given(histories)
def test_what_is_offered_was_allowed(history: History) -> None:
    """No consent, no device, a night or a denied permission: no offer, whatever came before."""
    profile = newcomer()
    for told, now, score in history:
        seen = decide.observe(RULES, profile, told, now)
        verdict = judge(RULES, seen, now, {"redeem": score})
        after = seen.profile
        for sending in verdict.sends:
            assert sending.address == after.devices[sending.device_id]
            assert sending.address.token is not None
            assert not sending.address.logged_out
            assert sending.address.permissions.get("push") != "denied"
            if sending.candidate.purpose.name != "service":
                assert after.consent["marketing"].granted
        assert [s.decision for s in verdict.sends] == [
            d for d in verdict.decisions if d.outcome is Outcome.OFFERED
        ]
        for decision in verdict.decisions:
            assert (decision.reason is None) is (decision.outcome is Outcome.OFFERED)
            assert [c.reason for c in decision.candidates].count(None) == (decision.reason is None)
        profile = verdict.profile


def reversed_lines(section: str) -> str:
    """The entries of every section of a file the other way round."""
    parts: list[list[str]] = []
    for line in section.strip().splitlines():
        if not line.startswith(" "):
            parts.append([line])
        else:
            parts[-1].append(line)
    return "\n".join("\n".join([part[0], *reversed(part[1:])]) for part in parts) + "\n"


@settings(max_examples=60, deadline=None)
@given(histories)
def test_the_order_in_a_file_changes_nothing(history: History) -> None:
    profile, decisions = lived(RULES, history)
    other, again = lived(TURNED, history)
    assert encode_profile(other) == encode_profile(profile)
    assert [msgspec.structs.replace(d, revision="") for d in again] == [
        msgspec.structs.replace(d, revision="") for d in decisions
    ]


TURNED = rule_set(reversed_lines(TOWN), WORKSPACE, ["redeem"])


def test_the_turned_file_is_another_one() -> None:
    assert TURNED.revision != RULES.revision
    assert list(TURNED.offers) == list(reversed(RULES.offers))
    assert list(TURNED.fences) == list(reversed(RULES.fences))


# Whatever devices send

HOSTILE = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "", 2**64 - 1, -(2**63), 1.7e308, [], {}]
junk = st.sampled_from(HOSTILE) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
"""What the wire lets through."""
KEYS = st.sampled_from(
    ["departs_at", "revenue", "currency", "store", "timezone", "locale", "weather", "first_name", "decision"]
)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["Wish", "Order Completed", "Offer Failed", "Offer Delivered", "Logged Out"]),
    sender=st.sampled_from(list(Sender)),
    properties=st.dictionaries(KEYS, junk, max_size=4),
    traits=st.dictionaries(KEYS, junk, max_size=4),
    context=st.dictionaries(KEYS, junk, max_size=4),
)
def test_no_event_brings_the_core_down(name: str, sender: Sender, **parts: dict[str, Any]) -> None:
    """`decide` is total: one that raises would take a whole tick of other people's events along."""
    story = Story(RULES, scores={"redeem": 0.4})
    told = event(name, sender=sender, **parts)
    decisions = story.tell(told)
    assert {d.rule for d in decisions} <= {"wish", "likely", "silver", "flight", "order"}
    assert story.profile.seq == 1
    follow_up = story.tell(event("Wish", NOON + seconds(1)))
    assert len(follow_up) == 1
