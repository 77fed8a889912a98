"""Frequency caps as timelines: each boundary with one second on either side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.offers.caps import zone
from engine.domain.offers.decisions import Outcome
from engine.domain.people.events import Event, Sender
from engine.domain.people.profiles import encode_profile
from tests.story import GIFT, NOON, Story, candidates, event, local, rule_set, said, seconds, someone


def capped_by(cap: str) -> str:
    return GIFT.replace("offer: gift}", f"offer: gift, cap: {cap}}}")


def test_a_rolling_window_slides_to_the_second() -> None:
    story = Story(rule_set(capped_by("{times: 2, per: 1h}")))
    timeline = {
        0: "offered",
        10: "offered",
        11: "capped",
        3599: "capped",
        3600: "offered",  # what is an hour old has left
        3609: "capped",
        3610: "offered",
        3611: "capped",
    }
    assert story.wish(*(NOON + seconds(s) for s in timeline)) == list(timeline.values())


def test_what_was_suppressed_does_not_count() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 1h}")))
    often = [NOON + seconds(s) for s in range(0, 3600, 600)]
    assert story.wish(*often) == ["offered"] + ["capped"] * 5
    assert story.wish(NOON + seconds(3600)) == ["offered"]


@pytest.mark.parametrize("night", ["2026-03-28", "2026-10-24"])
def test_a_rolling_day_is_24_hours_when_clocks_change(night: str) -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 1d}")))
    first = local("Europe/Dublin", f"{night} 12:00:00")
    day = timedelta(hours=24)
    assert story.wish(first, first + day - seconds(1), first + day) == ["offered", "capped", "offered"]


MIDNIGHTS = [
    # zone, unit, the first moment of the new day, week or month (UTC)
    ("Europe/Dublin", "day", "2026-01-12T00:00:00"),
    ("Europe/Dublin", "day", "2026-03-30T23:00:00"),  # summer time has begun
    ("Europe/Dublin", "day", "2026-03-29T23:00:00"),  # after the day of 23 hours
    ("Europe/Dublin", "day", "2026-10-26T00:00:00"),  # after the day of 25 hours
    ("America/New_York", "day", "2026-03-08T05:00:00"),
    ("America/New_York", "day", "2026-03-09T04:00:00"),
    ("Asia/Kolkata", "day", "2026-05-04T18:30:00"),
    ("Asia/Kathmandu", "day", "2026-05-04T18:15:00"),
    ("Pacific/Kiritimati", "day", "2026-05-04T10:00:00"),
    ("Pacific/Pago_Pago", "day", "2026-05-04T11:00:00"),
    ("America/Santiago", "day", "2026-09-06T04:00:00"),  # 00:00 does not exist, 01:00 does
    ("America/Havana", "day", "2026-11-01T04:00:00"),  # 00:00 comes twice: the first begins the day
    ("Africa/Cairo", "day", "2026-10-29T22:00:00"),  # 24:00 becomes 23:00 once
    ("Europe/Dublin", "week", "2026-01-12T00:00:00"),
    ("Europe/Dublin", "week", "2026-03-29T23:00:00"),  # Monday, in summer time since Sunday
    ("Europe/Dublin", "week", "2026-10-26T00:00:00"),
    ("Australia/Sydney", "week", "2026-05-03T14:00:00"),
    ("Europe/Dublin", "month", "2026-03-31T23:00:00"),
    ("Europe/Dublin", "month", "2026-11-01T00:00:00"),
    ("America/Los_Angeles", "month", "2028-03-01T08:00:00"),  # after the 29th of February
    ("Asia/Tokyo", "month", "2026-12-31T15:00:00"),
]


@pytest.mark.parametrize(("where", "unit", "midnight"), MIDNIGHTS)
def test_a_calendar_window_begins_at_the_persons_own_midnight(where: str, unit: str, midnight: str) -> None:
    story = Story(rule_set(capped_by(f"{{times: 1, per: {unit}}}")), someone(timezone=where))
    turn = datetime.fromisoformat(midnight).replace(tzinfo=UTC)
    before = [turn - timedelta(hours=2), turn - timedelta(hours=1), turn - seconds(1)]
    assert story.wish(*before) == ["offered", "capped", "capped"]
    assert story.wish(turn, turn + seconds(1), turn + timedelta(hours=20)) == ["offered", "capped", "capped"]


@pytest.mark.parametrize(
    ("unit", "first", "last"),
    [
        ("day", "2026-10-25 00:00:00", "2026-10-25 23:59:59"),
        ("week", "2026-10-19 00:00:00", "2026-10-25 23:59:59"),
        ("month", "2026-10-01 00:00:00", "2026-10-31 23:59:59"),
        ("month", "2028-02-01 00:00:00", "2028-02-29 23:59:59"),
    ],
)
def test_a_calendar_window_reaches_from_its_first_second_to_its_last(
    unit: str, first: str, last: str
) -> None:
    story = Story(rule_set(capped_by(f"{{times: 1, per: {unit}}}")))
    begin, end = local("Europe/Dublin", first), local("Europe/Dublin", last)
    assert story.wish(begin - seconds(1), begin, end, end + seconds(1)) == [
        "offered",
        "offered",
        "capped",
        "offered",
    ]


@pytest.mark.parametrize(
    ("unit", "first", "second", "last"),
    [
        ("day", "2026-10-25 00:00:00", "2026-10-25 12:00:00", "2026-10-25 23:59:59"),
        ("week", "2026-10-19 00:00:00", "2026-10-24 12:00:00", "2026-10-25 23:59:59"),
        ("month", "2026-10-01 00:00:00", "2026-10-20 12:00:00", "2026-10-31 23:59:59"),
        ("30d", "2026-10-01 00:00:00", "2026-10-29 12:00:00", "2026-10-30 22:59:59"),
    ],
)
def test_an_offer_at_the_beginning_is_not_forgotten_for_a_later_one(
    unit: str, first: str, second: str, last: str
) -> None:
    story = Story(rule_set(capped_by(f"{{times: 2, per: {unit}}}")))
    moments = [local("Europe/Dublin", text) for text in (first, second, last)]
    assert story.wish(*moments) == ["offered", "offered", "capped"]


def test_the_newest_zone_of_the_phone_counts() -> None:
    """22:30 in Dublin is 07:30 of the next day in Tokyo."""
    story = Story(rule_set(capped_by("{times: 1, per: day}")))
    evening = local("Europe/Dublin", "2026-01-12 22:30:00")
    tokyo = {"timezone": "Asia/Tokyo"}
    assert said(story.ask(event(at=evening))) == "offered"
    assert said(story.ask(event(at=evening + seconds(60)))) == "capped"
    # In Tokyo that same offer was made at 07:30 of today.
    assert said(story.ask(event(at=evening + seconds(120), context=tokyo))) == "capped"
    assert story.wish(local("Asia/Tokyo", "2026-01-13 23:59:59")) == ["capped"]
    assert story.wish(local("Asia/Tokyo", "2026-01-14 00:00:00")) == ["offered"]


@pytest.mark.parametrize("named", ["Mars/Olympus_Mons", "../../etc/passwd", "", "a\0b", 7, None, "Europe"])
def test_a_zone_that_nobody_knows_is_the_workspaces(named: object) -> None:
    story = Story(rule_set(capped_by("{times: 1, per: day}"), "currency: EUR"))
    said_by_phone = {"timezone": named}
    summer = local("Europe/Dublin", "2026-07-01 00:00:00")
    before = story.ask(event(at=summer - seconds(1), context=said_by_phone))
    after = story.ask(event(at=summer, context=said_by_phone))
    assert (said(before), said(after)) == ("offered", "offered")


def test_an_event_that_comes_late_does_not_move_the_person_back() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: day}")))
    story.tell(event("Open", NOON, context={"timezone": "Asia/Tokyo", "locale": "ja"}))
    story.tell(
        event(
            "Open", NOON - timedelta(hours=9), received_at=NOON, context={"timezone": "UTC", "locale": "en"}
        )
    )
    assert (story.profile.timezone, story.profile.locale) == ("Asia/Tokyo", "ja")


def test_offers_on_late_events_count_when_they_were_made() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 1h}")))
    late = event(at=NOON - timedelta(days=2), received_at=NOON)
    assert said(story.ask(late)) == "offered"
    assert story.wish(NOON + seconds(3599), NOON + seconds(3600)) == ["capped", "offered"]


TWO_PURPOSES = """
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: For you}}}
  deal: {purpose: partners, message: {push: {title: A deal, body: For you}}}
  ready: {purpose: service, message: {push: {title: Ready, body: Come in}}}
rules:
  wish: {when: Wish, offer: gift, cap: {times: 2, per: 1h}}
  again: {when: Again, offer: gift}
  trade: {when: Trade, offer: deal}
  order: {when: Order, offer: ready}
"""
PURPOSES = """
consent:
  purposes: {marketing: {}, partners: {unknown: allow}, service: {basis: contract}}
"""


def asked(story: Story, *names: str, at: datetime = NOON) -> list[str]:
    return [said(story.ask(event(name, at))) for name in names]


def test_a_cap_of_a_purpose_counts_that_purpose_only() -> None:
    story = Story(rule_set(TWO_PURPOSES, PURPOSES + "caps: [{purpose: marketing, times: 2, per: 1h}]"))
    assert asked(story, "Trade", "Again", "Trade", "Again", "Again", "Wish", "Trade") == [
        *["offered"] * 4,
        "capped",
        "capped",
        "offered",
    ]


def test_a_cap_of_a_channel_counts_every_purpose() -> None:
    story = Story(rule_set(TWO_PURPOSES, PURPOSES + "caps: [{channel: push, times: 2, per: 1h}]"))
    assert asked(story, "Trade", "Again", "Trade", "Wish") == ["offered", "offered", "capped", "capped"]


def test_a_cap_of_nothing_in_particular_counts_all() -> None:
    story = Story(rule_set(TWO_PURPOSES, PURPOSES + "caps: [{times: 2, per: 1h}]"))
    assert asked(story, "Trade", "Again", "Trade", "Wish") == ["offered", "offered", "capped", "capped"]


def test_a_cap_of_a_rule_counts_that_rule_only_even_where_two_share_an_offer() -> None:
    story = Story(rule_set(TWO_PURPOSES, PURPOSES))
    assert asked(story, "Again", "Again", "Again", "Wish", "Wish", "Wish", "Again") == [
        *["offered"] * 5,
        "capped",
        "offered",
    ]


def test_every_cap_must_hold_and_the_decision_says_which_did_not() -> None:
    caps = "caps: [{channel: push, times: 4, per: day}, {purpose: marketing, times: 3, per: 2h}]"
    story = Story(rule_set(TWO_PURPOSES, PURPOSES + caps))

    def numbers(name: str, at: datetime) -> dict[str, object]:
        decision = story.ask(event(name, at))
        (judged,) = decision.candidates
        return dict(judged.numbers)

    assert asked(story, "Wish", "Wish") == ["offered", "offered"]
    assert numbers("Wish", NOON) == {"times": 2, "per": "1h", "count": 2, "of": "wish"}
    assert asked(story, "Again") == ["offered"]
    of_purpose = {"times": 3, "per": "2h", "count": 3, "of": "workspace"}
    assert numbers("Wish", NOON) == of_purpose  # the workspace's are looked at first
    assert numbers("Again", NOON + seconds(7199)) == of_purpose
    assert asked(story, "Again", at=NOON + seconds(7200)) == ["offered"]
    of_channel = {"times": 4, "per": "day", "count": 4, "of": "workspace"}
    assert numbers("Trade", NOON + seconds(7200)) == of_channel
    assert asked(story, "Trade", at=local("Europe/Dublin", "2026-01-13 00:00:00")) == ["offered"]


def test_a_rule_may_have_several_caps() -> None:
    story = Story(rule_set(capped_by("[{times: 1, per: 1m}, {times: 2, per: 1h}]")))
    timeline = {0: "offered", 59: "capped", 60: "offered", 120: "capped", 3599: "capped", 3600: "offered"}
    assert story.wish(*(NOON + seconds(s) for s in timeline)) == list(timeline.values())


def test_a_contract_is_neither_capped_nor_counted() -> None:
    caps = "caps: [{channel: push, times: 1, per: day}, {times: 1, per: 1h}]"
    story = Story(rule_set(TWO_PURPOSES, PURPOSES + caps))
    assert asked(story, "Order", "Order", "Order", "Again", "Again", "Order") == [
        *["offered"] * 4,
        "capped",
        "offered",
    ]


def outcome(name: str, decision: str, sender: Sender = Sender.ENGINE) -> Event:
    return event(name, NOON + seconds(1), sender=sender, properties={"decision": decision})


def test_a_push_that_no_provider_accepted_gives_its_cap_back() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 7d}")))
    first = story.ask(event())
    assert story.wish(NOON + seconds(1)) == ["capped"]
    story.tell(outcome("Offer Failed", first.id))
    assert story.wish(NOON + seconds(2), NOON + seconds(3)) == ["offered", "capped"]


def test_a_delivered_push_keeps_its_cap() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 7d}")))
    first = story.ask(event())
    story.tell(outcome("Offer Delivered", first.id))
    assert story.wish(NOON + seconds(2)) == ["capped"]


def test_no_app_gives_its_cap_back_by_itself() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 7d}")))
    first = story.ask(event())
    story.tell(outcome("Offer Failed", first.id, Sender.CLIENT))
    story.tell(outcome("Offer Failed", "another", Sender.ENGINE))
    assert story.wish(NOON + seconds(2)) == ["capped"]


def test_two_machines_whose_clocks_differ_by_seconds_keep_the_cap() -> None:
    story = Story(rule_set(capped_by("{times: 2, per: 7d}")))
    week = timedelta(days=7)
    assert story.wish(NOON, NOON + seconds(1), NOON + week + seconds(2)) == ["offered"] * 3
    # By the slower clock the first two are not yet a week old.
    assert story.wish(NOON + week - seconds(1)) == ["capped"]


def test_offers_that_no_cap_looks_back_to_are_forgotten() -> None:
    story = Story(rule_set(capped_by("{times: 1, per: 1d}")))
    sizes = []
    for day in range(60):
        assert story.wish(NOON + timedelta(days=day)) == ["offered"]
        sizes.append(len(encode_profile(story.profile)))
    assert len(story.profile.contacts) < 10
    assert max(sizes[30:]) <= sizes[29] + 10


def test_competitors_of_one_event_cost_one_offer() -> None:
    rules = TWO_PURPOSES.replace("when: Again", "when: Wish").replace("when: Trade", "when: Wish")
    story = Story(rule_set(rules, PURPOSES + "caps: [{channel: push, times: 2, per: 1h}]"))
    first, second, third = (story.ask(event()) for _ in range(3))
    assert (said(first), said(second), said(third)) == ("offered", "offered", "capped")
    assert {c.reason for c in candidates(third).values()} == {third.reason}
    assert len(story.profile.contacts) == 2


ZONES = (
    "Europe/Dublin",
    "America/Santiago",
    "Africa/Cairo",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "America/Havana",
    "Australia/Lord_Howe",
)
STEPS = st.one_of(
    st.integers(0, 5),
    st.integers(0, 4000),
    st.sampled_from([3599, 3600, 3601, 86399, 86400, 82800, 90000, 604800]),
)


@settings(max_examples=60, deadline=None)
@given(
    where=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 1)),
    steps=st.lists(st.tuples(STEPS, st.integers(-86400, 5), st.sampled_from(["Wish", "Again"])), max_size=60),
    hour_times=st.integers(1, 3),
    day_times=st.integers(1, 4),
)
def test_no_cap_is_exceeded_in_any_window(
    where: str, start: datetime, steps: list[tuple[int, int, str]], hour_times: int, day_times: int
) -> None:
    """Whatever the order of the events, and whatever their own times say."""
    workspace = f"{PURPOSES}caps:\n  - {{times: {hour_times}, per: 1h}}\n"
    for factor, unit in enumerate(("day", "week", "month"), 1):
        workspace += f"  - {{channel: push, times: {day_times * factor}, per: {unit}}}\n"
    rules = rule_set(TWO_PURPOSES.replace("times: 2, per: 1h", "times: 1, per: 2h"), workspace)
    story = Story(rules, someone(timezone=where))
    now = start.replace(tzinfo=UTC)
    for step, offset, name in steps:
        now += seconds(step)
        story.tell(event(name, now + seconds(offset), received_at=now))

    offered = [d for d in story.decisions if d.outcome is Outcome.OFFERED]
    moments = [d.decided_at for d in offered]
    assert_rolling(moments, hour_times, timedelta(hours=1))
    assert_rolling([d.decided_at for d in offered if d.rule == "wish"], 1, timedelta(hours=2))
    clocks = [moment.astimezone(zone(where, "UTC")) for moment in moments]
    for times, key in (
        (day_times, [c.date() for c in clocks]),
        (2 * day_times, [c.isocalendar()[:2] for c in clocks]),
        (3 * day_times, [(c.year, c.month) for c in clocks]),
    ):
        assert max((key.count(k) for k in key), default=0) <= times


def assert_rolling(moments: list[datetime], times: int, span: timedelta) -> None:
    ordered = sorted(moments)
    for first, last in zip(ordered, ordered[times:], strict=False):
        assert last - first >= span
