"""Schedules as timelines: everybody's own clock, spread, once, through changes of all kinds."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.app.sweeps import Sweeps, name_of
from engine.app.timers import Timers
from engine.domain.offers.cron import CronError, next_after, parse
from engine.domain.people.profiles import new_profile
from engine.domain.people.timers import timer
from tests import lanes
from tests.lanes import arrival, fetch
from tests.story import NOON, SECRET, Story, event, local, rule_set, said, seconds, someone

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
OFFERS = """
audiences: {buyers: profile.orders > 0}
offers:
  gift: {purpose: marketing, message: {push: {title: A gift, body: b}}}
rules:
"""
WORKSPACE = "computed: {orders: {count: Order Completed}, returns: {count: Order Returned}}\n"
WEEKLY = '  weekly: {when: {schedule: "0 10 * * 1", audience: buyers, over: 4h}, offer: gift}\n'
MONDAY = local("Europe/Dublin", "2026-01-19 10:00:00")
"""The Monday after NOON, which is one, too."""


def story(rules: str = WEEKLY, **profile: Any) -> Story:
    return Story(rule_set(OFFERS + rules, WORKSPACE), someone(**profile))


def buys(one: Story, at: datetime = NOON) -> None:
    one.tell(event("Order Completed", at))


# the clock


@pytest.mark.parametrize(
    ("cron", "now", "then"),
    [
        ("0 10 * * 1", "2026-01-12 09:59:59", "2026-01-12 10:00:00"),
        ("0 10 * * 1", "2026-01-12 10:00:00", "2026-01-19 10:00:00"),
        ("30 1 * * *", "2026-03-28 12:00:00", "2026-03-29 02:30:00"),  # 01:30 is left out that night
        ("30 1 * * *", "2026-10-25 00:00:00", "2026-10-25 01:30:00"),  # comes twice: the first
        ("0 0 31 * *", "2026-02-01 00:00:00", "2026-03-31 00:00:00"),
        ("0 0 29 2 *", "2026-03-01 00:00:00", "2028-02-29 00:00:00"),
        ("0 8 13 * fri", "2026-02-01 00:00:00", "2026-02-06 08:00:00"),  # either day
        ("*/15 9-17 * * mon-fri", "2026-01-16 17:45:00", "2026-01-19 09:00:00"),
        ("0 9 * jan,jul 7", "2026-01-31 00:00:00", "2026-07-05 09:00:00"),
    ],
)
def test_when_a_clock_shows_a_schedules_time_next(cron: str, now: str, then: str) -> None:
    moment = local("Europe/Dublin", now).astimezone(ZoneInfo("Europe/Dublin"))
    assert next_after(parse(cron), moment) == local("Europe/Dublin", then)


def test_a_time_that_comes_twice_is_not_taken_twice() -> None:
    zone = ZoneInfo("Europe/Dublin")
    second = local("Europe/Dublin", "2026-10-25 01:10:00", fold=1).astimezone(zone)
    assert next_after(parse("30 1 * * *"), second) == local("Europe/Dublin", "2026-10-26 01:30:00")


@pytest.mark.parametrize(
    "text",
    [
        *("", "0 10 * *", "0 10 * * * *", "60 * * * *", "* 24 * * *", "0 0 30 2 *", "a * * * *"),
        *("5-1 * * * *", "*/0 * * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "0 0 * * fridays"),
        "1,,2 * * * *",
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(CronError):
        parse(text)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(
        st.sampled_from(["0", "*/20", "5,50", "59"]),
        st.sampled_from(["*", "0", "8-10", "23"]),
        st.sampled_from(["*", "1", "28-31"]),
        st.sampled_from(["*", "2", "4-6"]),
    ),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
)
def test_the_clock_agrees_with_apschedulers(fields: tuple[str, ...], now: datetime) -> None:
    """Where both kinds of day are not restricted at once, which APScheduler reads otherwise than cron."""
    text = " ".join((*fields, "*"))
    moment = now.replace(tzinfo=UTC)
    theirs = CronTrigger.from_crontab(text, timezone=UTC).get_next_fire_time(None, moment + seconds(1e-6))
    assert next_after(parse(text), moment) == theirs


# people


def test_everybody_in_the_audience_at_their_own_time_within_the_hours_it_takes() -> None:
    rules = rule_set(OFFERS + WEEKLY, WORKSPACE)
    offsets = []
    for number in range(60):
        zone = ("Europe/Dublin", "America/New_York", "Asia/Tokyo")[number % 3]
        one = Story(rules, someone(id=new_profile(("user_id", f"u{number}"), SECRET, NOON).id, timezone=zone))
        buys(one)
        (alarm,) = one.timers.values()
        assert alarm.paced
        ten = local(zone, "2026-01-19 10:00:00")
        if zone == "America/New_York":
            ten = local(zone, "2026-01-12 10:00:00")  # it is not yet ten there
        offsets.append((alarm.due_at - ten) / HOUR)
        (made,) = one.wait(ten + 4 * HOUR)
        assert (said(made), made.trigger, made.decided_at) == ("offered", "schedule", alarm.due_at)
    assert min(offsets) >= 0
    assert max(offsets) < 4
    assert all(sum(int(o) == hour for o in offsets) > 5 for hour in range(4))


def test_it_comes_every_week_once() -> None:
    one = story(WEEKLY.replace(", over: 4h", ", over: 1s"))
    buys(one)
    made = one.wait(MONDAY + 4 * WEEK + seconds(1))
    assert [d.decided_at.replace(microsecond=0) for d in made] == [MONDAY + n * WEEK for n in range(5)]
    assert len(one.timers) == 1


def test_an_hour_is_that_of_the_wall_also_when_clocks_change() -> None:
    one = story(WEEKLY.replace(", over: 4h", ", over: 1s"))
    buys(one, local("Europe/Dublin", "2026-03-23 12:00:00"))
    (made,) = one.wait(local("Europe/Dublin", "2026-03-30 10:00:01"))
    assert made.decided_at >= local("Europe/Dublin", "2026-03-30 10:00:00")


def test_who_is_in_no_audience_has_no_timer_and_who_leaves_loses_it() -> None:
    one = story()
    one.tell(event("Open"))
    assert one.timers == {}
    leaving = OFFERS.replace("profile.orders > 0", "profile.orders > profile.returns")
    one = Story(rule_set(leaving + WEEKLY, WORKSPACE))
    buys(one)
    assert len(one.timers) == 1
    one.tell(event("Order Returned", NOON + HOUR))
    assert one.timers == {}
    assert one.profile.waiting == {}
    assert one.wait(NOON + 4 * WEEK) == []


def test_a_traveller_gets_it_once() -> None:
    one = story(WEEKLY.replace(", over: 4h", ", over: 1s"))
    buys(one)
    assert len(one.wait(MONDAY + seconds(1))) == 1
    one.tell(event("Open", MONDAY + HOUR, context={"timezone": "America/New_York"}))
    (made,) = one.wait(MONDAY + 6 * DAY + 23 * HOUR) or (None,)
    assert made is None  # ten of the same Monday comes again there, and is not taken
    (made,) = one.wait(MONDAY + WEEK + 12 * HOUR)
    assert made.decided_at >= local("America/New_York", "2026-01-26 10:00:00")


def test_another_clock_before_its_time_moves_it() -> None:
    one = story(WEEKLY.replace(", over: 4h", ", over: 1s"))
    buys(one)
    one.tell(event("Open", NOON + HOUR, context={"timezone": "Asia/Tokyo"}))
    (made,) = one.wait(MONDAY + HOUR)
    assert made.decided_at < local("Asia/Tokyo", "2026-01-19 10:00:02")


def test_another_schedule_takes_the_place_of_the_one_before() -> None:
    one = story()
    buys(one)
    one.rules = rule_set(OFFERS + WEEKLY.replace("0 10 * * 1", "0 7 * * 2").replace("4h", "1s"), WORKSPACE)
    one.tell(event("Open", NOON + HOUR))
    (made,) = one.wait(NOON + 2 * DAY)
    assert made.decided_at >= local("Europe/Dublin", "2026-01-13 07:00:00")
    one.rules = rule_set(OFFERS + "  plain: {when: Wish, offer: gift}\n", WORKSPACE)
    assert one.wait(NOON + 4 * WEEK) == []


def test_another_clock_while_people_are_served_keeps_the_turns_that_are_yet_to_come() -> None:
    """Theirs is as long after ten in Paris as it was after ten at home."""
    for number in range(20):
        one = story(id=new_profile(("user_id", f"u{number}"), SECRET, NOON).id)
        buys(one)
        (alarm,) = one.timers.values()
        offset = alarm.due_at - NOON.replace(hour=10) - WEEK
        one.tell(event("Open", MONDAY + seconds(1), context={"timezone": "Europe/Paris"}))
        made = one.wait(MONDAY + DAY)
        assert len(made) == (offset > HOUR + seconds(1)), offset


def test_who_goes_west_while_people_are_served_is_served_there() -> None:
    one = story()
    buys(one)
    one.tell(event("Open", MONDAY + seconds(1), context={"timezone": "America/New_York"}))
    (made,) = one.wait(MONDAY + DAY)
    ten = local("America/New_York", "2026-01-19 10:00:00")
    assert ten <= made.decided_at < ten + 4 * HOUR


def test_a_schedule_that_was_away_when_its_time_came_comes_again() -> None:
    """As after a rollback: the timer fired while no rule had that name."""
    one = story()
    buys(one)
    weekly, one.rules = one.rules, rule_set(OFFERS + "  plain: {when: Wish, offer: gift}\n", WORKSPACE)
    assert one.wait(MONDAY + DAY) == []
    one.rules = weekly
    one.tell(event("Open", MONDAY + DAY))
    (made,) = one.wait(MONDAY + WEEK + 4 * HOUR)
    assert said(made) == "offered"


def test_a_void_timer_sets_the_one_that_is_wanted() -> None:
    """After a merge the timer may be that of the profile that ended, set by another clock."""
    one = story()
    buys(one)
    (wanted,) = one.timers.values()
    other = timer(wanted.id, NOON + HOUR, wanted.event.name, {"rule": "weekly", "occurrence": 7}, paced=True)
    one.timers = {other.id: other}
    assert one.wait(NOON + HOUR) == []
    assert list(one.timers.values()) == [wanted]
    (made,) = one.wait(MONDAY + 4 * HOUR)
    assert said(made) == "offered"


def test_an_outage_makes_up_for_nothing_that_is_long_past() -> None:
    one = story(WEEKLY.replace(", over: 4h", ", over: 1s"))
    buys(one)
    (alarm,) = one.timers.values()
    late = MONDAY + 16 * DAY
    (made,) = one.tell(
        event(
            alarm.event.name,
            alarm.due_at,
            properties=alarm.event.properties,
            sender=alarm.event.sender,
            received_at=late,
        )
    )
    assert said(made) == "stale_event"
    (after,) = one.timers.values()
    assert after.due_at > late


def test_a_person_cannot_bring_a_schedule_about() -> None:
    one = story()
    buys(one)
    (alarm,) = one.timers.values()
    assert one.tell(event(alarm.event.name, NOON, properties=alarm.event.properties)) == ()
    void = timer("x", NOON, alarm.event.name, {"rule": "weekly", "occurrence": 7})
    assert one.tell(void.event) == ()


# engines

LANES = (OFFERS + WEEKLY.replace(", over: 4h", ", over: 1s")).encode()


async def test_two_engines_carry_a_schedule_out_once(postgres_dsn: str) -> None:
    rules = lanes.rule_set(LANES, WORKSPACE.encode())
    people = [f"p{number}" for number in range(20)]
    async with lanes.engine(postgres_dsn, rules) as one, lanes.engine(postgres_dsn, rules) as two:
        for engine, half in ((one, people[:10]), (two, people[10:])):
            for person in half:
                await engine.send(arrival(person), lanes.event(name="Order Completed", user=person))
        one.now = two.now = lanes.NOW + WEEK + seconds(1)
        timers = [Timers(e.store, e.lane, lambda e=e: e.now) for e in (one, two)]
        for _ in range(3):
            await asyncio.gather(*(t.fire_due() for t in timers))
    made = await fetch(
        postgres_dsn, "SELECT profile_id, count(*) AS n FROM decisions WHERE rule = 'weekly' GROUP BY 1"
    )
    assert [row["n"] for row in made] == [1] * len(people)


async def test_people_who_were_there_before_the_rule_are_reached(postgres_dsn: str) -> None:
    """A new audience and a new schedule: everybody is looked at once, by whichever engine."""
    people = [f"p{number}" for number in range(20)]
    async with lanes.engine(postgres_dsn, lanes.rule_set(b"rules: {}", WORKSPACE.encode())) as before:
        for person in people[:15]:
            await before.send(arrival(person), lanes.event(name="Order Completed", user=person))
        await before.send(*(arrival(person) for person in people[15:]))
    rules = lanes.rule_set(LANES, WORKSPACE.encode())
    async with lanes.engine(postgres_dsn, rules) as one, lanes.engine(postgres_dsn, rules) as two:
        sweeps = [Sweeps(e.store, lambda: rules, lambda: lanes.NOW) for e in (one, two)]
        await asyncio.gather(*(s.sweep() for s in sweeps))
        timers = [Timers(e.store, e.lane, lambda e=e: e.now) for e in (one, two)]
        assert sum(await asyncio.gather(*(t.fire_due() for t in timers))) == len(people)
        await asyncio.gather(*(s.sweep() for s in sweeps))
        assert sum(await asyncio.gather(*(t.fire_due() for t in timers))) == 0
        armed = await fetch(postgres_dsn, "SELECT id, paced FROM timers WHERE id LIKE '$schedule%'")
        assert len(armed) == 15
        assert all(row["paced"] for row in armed)
        one.now = two.now = lanes.NOW + WEEK + seconds(1)
        assert sum(await asyncio.gather(*(t.fire_due() for t in timers))) == 15
    made = await fetch(postgres_dsn, "SELECT FROM decisions WHERE rule = 'weekly' AND outcome = 'offered'")
    assert len(made) == 15


async def test_rules_that_come_back_are_swept_for_again(postgres_dsn: str) -> None:
    first, plain = lanes.rule_set(LANES, WORKSPACE.encode()), lanes.rule_set(b"rules: {}", WORKSPACE.encode())
    async with lanes.engine(postgres_dsn, first) as engine:
        await engine.send(arrival("p"))
        looked_at = []
        sweeps = Sweeps(engine.store, lambda: engine.rules, lambda: engine.now)
        timers = Timers(engine.store, engine.lane, lambda: engine.now)
        for rules in (first, plain, first):
            engine.rules = rules
            engine.now += HOUR
            await sweeps.sweep()
            again = Sweeps(engine.store, lambda: engine.rules, lambda: engine.now)
            await again.sweep()  # another engine, or the same one after a restart
            looked_at.append(await timers.fire_due())
    assert looked_at == [1, 0, 1]


def test_rules_without_audiences_need_no_sweep() -> None:
    assert name_of(rule_set()) is None
    one, two = (rule_set(OFFERS + WEEKLY.replace("4h", over), WORKSPACE) for over in ("4h", "5h"))
    assert name_of(one) != name_of(two)
