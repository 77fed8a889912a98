"""Who is in which audience: with every event, and as time passes without one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain import decide
from engine.domain.offers.rules import TriggerKind
from engine.domain.offers.scope import Scope
from engine.domain.people.audiences import TIMER
from engine.domain.people.computed import profile_view
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import Membership, Profile
from engine.formats.workspace import load
from tests.story import GIFT, NOON, Story, event, rule_set, seconds, someone, stored

WORKSPACE = """
traits:
  age: {type: number}
  departs_at: {type: timestamp}
computed:
  orders: {count: Order Completed}
  days_since_order: {days_since: Order Completed}
  days_since_visit: {days_since: {page: Home}}
  recent_orders: {count: Order Completed, within: 2d}
  last_day: {last: event.name, of: Order Completed, within: 1h}
  orders_each: {ratio: recent_orders, of: orders}
  activity: {steps: days_since_order, from: {active: 0, asleep: 7, gone: 30.5}}
  rush: {steps: recent_orders, from: {calm: 0, busy: 2}}
"""
AUDIENCES = """
audiences:
  dormant: profile.days_since_order >= 30
  buyers: profile.orders > 0
  lost: '"dormant" in profile.audiences && profile.days_since_visit > 60'
"""
DAY = timedelta(days=1)
TIME = "time is only followed where it is added to, scaled and compared with <, <=, > or >="


def story(audiences: str = AUDIENCES, profile: Profile | None = None, **scores: float | None) -> Story:
    rules = rule_set(GIFT + audiences, WORKSPACE, models=tuple(scores))
    return Story(rules, profile, scores)


def order(at: datetime = NOON) -> Event:
    return event("Order Completed", at)


def visit(at: datetime = NOON) -> Event:
    return event("Home", at, kind=Kind.PAGE)


def changes(story: Story) -> list[tuple[str, datetime]]:
    """What the last event changed: `entered dormant`, and when."""
    assert story.seen is not None
    return [(t.name, t.at) for t in story.seen.triggers if t.kind is TriggerKind.AUDIENCE]


def members(story: Story) -> dict[str, datetime]:
    return story.profile.audiences.since


def alarm(story: Story) -> datetime | None:
    """When the timer will fire, where the last event left one."""
    assert story.seen is not None
    kept = story.profile.audiences.armed
    assert [t.due_at for t in story.seen.alarms.set if t.id == TIMER] in ([], [kept])
    return kept


def ring(story: Story, at: datetime | None = None) -> None:
    """The timer fires, at `at` if it is late."""
    due = alarm(story)
    assert due is not None
    story.tell(event(TIMER, due, sender=Sender.ENGINE, received_at=at or due), at or due)


def test_an_event_makes_a_member_and_tells_it_once() -> None:
    told = story()
    told.tell(order())
    assert changes(told) == [("entered buyers", NOON)]
    told.tell(order(NOON + seconds(1)))
    assert changes(told) == []
    assert members(told) == {"buyers": NOON}


def test_time_alone_makes_a_member_to_the_second() -> None:
    told = story()
    told.tell(order())
    assert alarm(told) == NOON + 30 * DAY
    ring(told)
    assert changes(told) == [("entered dormant", NOON + 30 * DAY)]
    told.tell(order(NOON + 31 * DAY))
    assert changes(told) == [("left dormant", NOON + 31 * DAY)]


@pytest.mark.parametrize(
    ("condition", "turns"),
    [
        ("profile.days_since_order >= 30", [30 * DAY]),
        ("profile.days_since_order > 30", [30 * DAY + timedelta(microseconds=1)]),
        ("30 < profile.days_since_order", [30 * DAY + timedelta(microseconds=1)]),
        ("profile.days_since_order <= 30", [timedelta(0), 30 * DAY + timedelta(microseconds=1)]),
        ("profile.days_since_order < 0.1", [timedelta(0), timedelta(hours=2.4)]),
        ("profile.days_since_order * 24 >= 36.0", [1.5 * DAY]),
        ("profile.days_since_order / 7 >= 1.5", [10.5 * DAY]),
        ("-profile.days_since_order <= -2", [2 * DAY]),
        ("profile.days_since_order >= 7 && profile.days_since_order < 14", [7 * DAY, 14 * DAY]),
        ("profile.days_since_order < 7 || profile.days_since_order >= 14", [timedelta(0), 7 * DAY, 14 * DAY]),
        ("!(profile.days_since_order >= 3)", [timedelta(0), 3 * DAY]),
        ("profile.departs_at - now < duration('2h')", [22 * timedelta(hours=1)
                                                       + timedelta(microseconds=1)]),
        ("now > profile.departs_at", [DAY + timedelta(microseconds=1)]),
        ("now + duration('1h') >= profile.departs_at && now < profile.departs_at",
         [DAY - seconds(3600), DAY]),
        ("profile.days_since_order >= profile.age", [40 * DAY]),
        ("profile.days_since_order - profile.days_since_visit > 1.0", []),
        ("profile.activity == 'asleep'", [7 * DAY, 30.5 * DAY]),
        ("profile.recent_orders > 0", [timedelta(0), 2 * DAY + timedelta(minutes=15)]),
        ("profile.orders_each < 1.0", [2 * DAY + timedelta(minutes=15)]),
        ("has(profile.last_day)", [timedelta(0), timedelta(hours=1, minutes=1)]),
        ("profile.recent_orders > 0 || profile.activity == 'gone'",
         [timedelta(0), 2 * DAY + timedelta(minutes=15), 30.5 * DAY]),
        ("profile.age > 30 ? profile.days_since_order >= 5 : profile.days_since_order >= 3", [5 * DAY]),
    ],
)  # fmt: skip
def test_conditions_turn_at_the_very_microsecond(condition: str, turns: list[timedelta]) -> None:
    told = story(f"audiences: {{them: {condition!r}}}" if "'" not in condition else
                 f'audiences: {{them: "{condition}"}}')  # fmt: skip
    departs = (NOON + DAY).isoformat()
    told.tell(event("", NOON - seconds(1), kind=Kind.IDENTIFY, traits={"age": 40, "departs_at": departs}))
    told.tell(visit())
    told.tell(order())
    found = [at for _, at in changes(told)]
    while alarm(told) is not None:
        ring(told)
        found += [at for _, at in changes(told)]
    assert [at - NOON for at in found] == turns


def test_whoever_was_away_has_entered_and_left_in_between() -> None:
    told = story("audiences: {week: profile.days_since_order >= 7 && profile.days_since_order < 14}")
    told.tell(order())
    ring(told, NOON + 100 * DAY)
    assert changes(told) == [("entered week", NOON + 7 * DAY), ("left week", NOON + 14 * DAY)]
    assert members(told) == {}


def test_an_event_that_comes_before_the_timer_finds_the_member() -> None:
    told = story()
    told.tell(order())
    told.tell(event("Wish", NOON + 30 * DAY + seconds(0.2)))
    assert changes(told) == [("entered dormant", NOON + 30 * DAY)]


def test_a_timer_is_not_moved_with_each_event() -> None:
    told = story()
    told.tell(order())
    told.tell(order(NOON + DAY))
    assert told.seen is not None
    assert not told.seen.alarms
    assert told.profile.audiences.due == NOON + 31 * DAY
    ring(told)
    assert changes(told) == []
    assert alarm(told) == NOON + 31 * DAY


def test_audiences_that_rest_on_others_turn_with_them() -> None:
    told = story()
    told.tell(visit())
    told.tell(order())
    ring(told)
    ring(told)
    late = NOON + 60 * DAY + timedelta(microseconds=1)
    assert changes(told) == [("entered lost", late)]
    told.tell(order(NOON + 70 * DAY))
    assert changes(told) == [("left dormant", NOON + 70 * DAY), ("left lost", NOON + 70 * DAY)]


def test_an_unknown_answer_is_outside() -> None:
    told = story("audiences: {adults: profile.age >= 18, minors: '!(profile.age >= 18)'}")
    told.tell(visit())
    assert members(told) == {}
    told.tell(event("", NOON, kind=Kind.IDENTIFY, traits={"age": 30}))
    assert set(members(told)) == {"adults"}
    told.tell(event("", NOON + seconds(1), kind=Kind.IDENTIFY, traits={"age": None}))
    assert changes(told) == [("left adults", NOON + seconds(1))]


def test_whoever_comes_back_was_seen() -> None:
    told = story("""audiences: {away: 'now - profile.last_seen >= duration("30d")'}""")
    told.tell(order())
    told.tell(event("Wish", NOON + DAY))
    ring(told)
    assert changes(told) == []
    ring(told)
    assert changes(told) == [("entered away", NOON + 31 * DAY)]
    told.tell(event("Wish", NOON + 32 * DAY))
    assert changes(told) == [("left away", NOON + 32 * DAY)]


def test_nobody_enters_by_an_audience_being_declared() -> None:
    before = story("audiences: {buyers: profile.orders > 0}")
    before.tell(order())
    entered = before.profile
    after = story("audiences: {buyers: profile.orders > 0, active: profile.days_since_order < 9}", entered)
    after.tell(event("Wish", NOON + DAY))
    assert changes(after) == []
    assert members(after) == {"buyers": NOON, "active": NOON + DAY}
    ring(after)
    assert changes(after) == [("left active", NOON + 9 * DAY)]


def test_what_happens_with_the_first_event_after_a_declaration_is_told() -> None:
    told = story("audiences: {buyers: profile.orders > 0}")
    told.profile = someone(seq=4, counted=told.rules.workspace.counted_stamp)
    told.tell(order())
    assert changes(told) == [("entered buyers", NOON)]


def test_an_audience_that_is_gone_has_no_members() -> None:
    before = story()
    before.tell(order())
    after = Story(rule_set(GIFT, WORKSPACE), before.profile)
    after.tell(event("Wish", NOON + DAY))
    assert changes(after) == []
    assert after.profile.audiences.since == {}


def test_conditions_of_rules_read_the_membership_of_the_moment() -> None:
    wish = "when: Wish, if: '\"dormant\" in profile.audiences',"
    rules = rule_set(GIFT.replace("when: Wish,", wish) + AUDIENCES, WORKSPACE)
    told = Story(rules)
    told.tell(order())
    thirty = NOON + 30 * DAY
    assert told.wish(thirty - seconds(1), thirty, thirty + seconds(1)) == [
        "condition_false",
        "offered",
        "offered",
    ]


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(["order", "visit", "age", "nothing"]),
        st.timedeltas(timedelta(0), 20 * DAY),
        st.integers(0, 60),
    ),
    max_size=8,
)
ALL = """
audiences:
  fresh: profile.days_since_order < 3
  week: profile.days_since_order >= 7 && profile.days_since_order < 14.25
  asleep: profile.activity == "asleep" || profile.rush == "busy"
  old: profile.days_since_visit * 2 > profile.age
  both: '"fresh" in profile.audiences || !("week" in profile.audiences)'
  recent: profile.recent_orders > 0 && profile.orders_each > 0.4
"""


@settings(max_examples=80, deadline=None)
@given(HISTORIES)
def test_timers_and_their_absence_tell_the_same(history: list[tuple[str, timedelta, int]]) -> None:
    """Whether every timer fires in time or none ever does: the same people enter and leave at the same
    moments, and at each event are in what their conditions say then."""
    rules = rule_set(GIFT + ALL, WORKSPACE)
    prompt, late = Story(rules), Story(rules)
    told: tuple[list[Any], list[Any]] = ([], [])
    at = NOON
    for what, after, age in history:
        at += after
        while (due := prompt.profile.audiences.armed) is not None and due < at:
            ring(prompt)
            told[0].extend(changes(prompt))
        happened = {
            "order": order(at),
            "visit": visit(at),
            "age": event("", at, kind=Kind.IDENTIFY, traits={"age": age}),
            "nothing": event("Wish", at),
        }[what]
        for one, log in zip((prompt, late), told, strict=True):
            one.tell(happened)
            log.extend(changes(one))
            view = profile_view(one.profile, rules.workspace, at)
            for audience in rules.audiences:
                answer = audience.condition.evaluate(Scope(profile=view, now=at))
                assert (answer is True) is (audience.name in members(one)), audience.name
    assert told[0] == told[1]
    assert members(prompt) == members(late)


# Propensities


def test_a_score_makes_a_member() -> None:
    told = story("audiences: {likely: propensity.buy > 0.6 && profile.orders == 0}", buy=0.7)
    told.tell(event("", kind=Kind.IDENTIFY, traits={"age": 1}))
    assert changes(told) == [("entered likely", NOON)]
    told.scores = {"buy": 0.2}
    told.tell(event("", NOON + seconds(1), kind=Kind.IDENTIFY, traits={"age": 2}))
    assert changes(told) == [("left likely", NOON + seconds(1))]


def test_a_score_that_moves_with_time_alone_is_asked_for_again_every_day() -> None:
    told = story("audiences: {likely: propensity.buy > 0.6 && profile.orders == 0}", buy=0.2)
    told.tell(event("", kind=Kind.IDENTIFY, traits={"age": 1}))
    assert changes(told) == []
    told.scores = {"buy": 0.7}
    told.wait(NOON + timedelta(hours=23))
    assert members(told) == {}
    told.wait(NOON + timedelta(hours=25))
    assert set(members(told)) == {"likely"}
    told.scores = {"buy": 0.1}
    told.wait(NOON + timedelta(days=2))
    assert members(told) == {}
    told.tell(order(NOON + timedelta(days=2, hours=1)))  # no score can change that any more
    told.wait(NOON + timedelta(days=9))
    assert told.timers == {}


def test_a_score_is_asked_for_only_where_it_can_change_the_answer() -> None:
    told = story("audiences: {likely: propensity.buy > 0.6 && profile.orders == 0}", buy=0.7)
    seen = decide.observe(told.rules, told.profile, order(), NOON)
    assert not seen.needed
    seen = decide.observe(told.rules, told.profile, event("", kind=Kind.IDENTIFY, traits={"age": 1}), NOON)
    assert seen.needed == {"buy"}
    assert seen.scope is not None


def test_a_model_that_fails_moves_nobody() -> None:
    told = story("audiences: {likely: propensity.buy > 0.6}", buy=0.7)
    told.tell(event("", kind=Kind.IDENTIFY, traits={"age": 1}))
    told.scores = {"buy": None}
    told.tell(event("", NOON + seconds(1), kind=Kind.IDENTIFY, traits={"age": 2}))
    assert set(members(told)) == {"likely"}


def test_what_the_profile_keeps_is_small_and_old_documents_are_read() -> None:
    told = story()
    told.tell(order())
    assert stored(someone()).audiences == Membership()
    assert stored(told.profile) == told.profile


# Files


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("them: profile.odrers > 0", (2, 17, "`profile` has no `odrers`", 'did you mean "orders"?')),
        ("them: profile.orders", (2, 9, "expected a condition, this is a number", None)),
        ("them: event.properties.x == 1",
         (2, 9, "there is no `event` in an audience: it is of a person at any time", None)),
        ("them: profile.days_since_order == 30",
         (2, 9, TIME, None)),
        ("them: 'now.getHours() > 3'",
         (2, 10, TIME, None)),
        ("them: '\"us\" in profile.audiences'",
         (2, 10, "`profile.audiences` never has `us`", None)),
        ("them: '\"theem\" in profile.audiences'",
         (2, 10, "`profile.audiences` never has `theem`", 'did you mean "them"?')),
        ("them: '\"them\" in profile.audiences'",
         (2, 3, "the audience rests on itself: them → them", None)),
        ("them: '\"b\" in profile.audiences'\n  b: '\"them\" in profile.audiences'",
         (2, 3, "the audience rests on itself: them → b → them", None)),
        ("them: size(profile.audiences) > 2",
         (2, 9, "an audience asks for another one by its name", 'write "NAME" in profile.audiences')),
        (
            "them: {of: account, if: profile.orders > 0}",
            (2, 27, "there is no `profile` in an audience: it is of an account at any time", None),
        ),
        ("them: {of: firm, if: profile.orders > 0}",
         (2, 14, 'expected one of person, account, found "firm"', None)),
        ("them: {of: person}", (2, 9, '"if" is missing', None)),
        ("them: [a]",
         (2, 9, "expected an expression, found a list",
          "an expression that begins with { or [ or contains a colon needs quotes")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place(text: str, problem: tuple[int, int, str, str | None]) -> None:
    files = {"workspace.yaml": WORKSPACE.encode(), "people.yaml": f"audiences:\n  {text}\n".encode()}
    loaded = load(files)
    found = [(p.line, p.column, p.message, p.suggestion) for p in loaded.problems]
    assert found == [problem]
    assert loaded.rule_set is None


def test_a_rule_that_asks_for_an_audience_that_is_none_is_told() -> None:
    wish = GIFT.replace("when: Wish,", "when: Wish, if: '\"dormand\" in profile.audiences',")
    loaded = load({"workspace.yaml": WORKSPACE.encode(), "rules.yaml": (wish + AUDIENCES).encode()})
    assert [(p.message, p.suggestion) for p in loaded.problems] == [
        ("`profile.audiences` never has `dormand`", 'did you mean "dormant"?')
    ]


def test_a_model_that_reads_audiences_cannot_make_one() -> None:
    card = b"name: m\nversion: '1'\nmodel: m.onnx\ninputs: [{name: a, from: '\"x\" in profile.audiences'}]"
    files: dict[str, Any] = {"people.yaml": b"audiences: {x: propensity.m > 0.5}"}
    loaded = load(files, {"m.yaml": card, "m.onnx": b""})
    assert [p.message for p in loaded.problems] == [
        'the model "m" reads profile.audiences: no audience can rest on its score'
    ]
