"""Traits and audiences that are declared later come to what they had been from the start."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from engine.app import metrics
from engine.app.backfill import EVENT, Backfill
from engine.app.merges import Merges
from engine.app.rehearsal import Rehearsal
from engine.app.ruling import Ruling
from engine.domain.offers.rules import RuleSet
from engine.domain.people.audiences import follow
from engine.domain.people.computed import profile_view
from engine.domain.people.events import Event, Kind
from engine.domain.people.profiles import Profile, encode_profile, new_profile
from engine.formats.workspace import load
from tests.lanes import CAFE, FAR, NOW, Engine, engine, event, fetch

BEFORE = """
timezone: Europe/Dublin
rates: {USD: 0.5}
traits: {age: {type: number}}
computed:
  orders: {count: Order Completed}
  spend: {sum: event.properties.x, of: Order Completed}
"""
AFTER = """
timezone: Europe/Dublin
rates: {USD: 0.5}
traits: {age: {type: number}}
computed:
  orders: {count: Order Completed}
  spend: {sum: event.properties.x, of: Order Completed, within: 30d}
  average: {average: event.properties.x, of: Order Completed}
  largest: {max: event.properties.x, of: Order Completed, within: 7d}
  skus: {distinct: event.properties.sku, of: Order Completed}
  hours: {most_often: local.hour, of: Order Completed, within: 90d}
  visits: {count: {enter: {tag: cafe}}, within: 30d}
  left_at: {last: geofence.name, of: {exit: {tag: cafe}}}
  days: {days_since: Order Completed}
  tier: {steps: spend, from: {low: 0, high: 20}}
  share: {ratio: spend, of: orders}
"""
PLACES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {name: The Mill}}
"""
PEOPLE = """
audiences:
  high: profile.tier == "high"
  away: profile.days >= 2
  high_and_away: '"high" in profile.audiences && "away" in profile.audiences'
"""


def rule_set(workspace: str, people: str = "") -> RuleSet:
    loaded = load({"workspace.yaml": workspace.encode(), "all.yaml": (PLACES + people).encode()})
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set


def history(seed: int, users: int = 6, events: int = 60) -> list[Event]:
    """What some people do over two months: orders, walks, traits; late and doubled ones among them."""
    chance = random.Random(seed)
    told: list[Event] = []
    at = NOW
    for number in range(events):
        at += timedelta(hours=chance.choice([0.05, 1, 7, 40]))
        user = f"u{chance.randrange(users)}"
        occurred = at - timedelta(hours=chance.choice([0, 0, 0, 5, 30]))
        kind = chance.choice(["order", "order", "walk", "walk", "trait"])
        fields: dict[str, Any] = {"message": f"m{number}", "user": user}
        if kind == "order":
            properties = {"x": chance.choice([1, 2.5, 19.99]), "sku": chance.choice("abc")}
            properties |= {"currency": "USD"} if chance.random() < 0.3 else {}
            zone = {"timezone": "America/New_York"} if chance.random() < 0.2 else {}
            made = event(name="Order Completed", properties=properties, context=zone, at=occurred, **fields)
        elif kind == "walk":
            where = chance.choice([CAFE, FAR])
            made = event(name="Location Updated", location=where, at=occurred, **fields)
        else:
            made = event(Kind.IDENTIFY, traits={"age": number}, at=occurred, **fields)
        told.append(stamped(made, at))
        if chance.random() < 0.1:
            told.append(stamped(made, at))
    return told


def stamped(one: Event, at: datetime) -> Event:
    return msgspec.structs.replace(one, received_at=at)


async def tell(one: Engine, events: list[Event]) -> None:
    for each in events:
        one.now = each.received_at
        await one.send(each)


def oracle(rules: RuleSet, events: list[Event]) -> dict[str, Profile]:
    """Everybody as they would be if the rules had been these from the start."""
    rehearsal = Rehearsal(Ruling(rules, {}))
    for each in events:
        rehearsal.tell([each], each.received_at)
    return {
        each.user_id: person
        for each in events
        if each.user_id is not None and (person := rehearsal.owner(("user_id", each.user_id))) is not None
    }


async def people(one: Engine, *users: str) -> dict[str, Profile]:
    found = {user: await one.profile("user_id", user) for user in users}
    return {user: person for user, person in found.items() if person is not None}


def backfill(one: Engine) -> Backfill:
    return Backfill(one.store, one.lane, lambda: Ruling(one.rules, {}), lambda: one.now)


def same_counts(found: dict[str, Profile], wanted: dict[str, Profile], rules: RuleSet, now: datetime) -> None:
    assert found.keys() == wanted.keys()
    for user, person in found.items():
        assert person.computed == wanted[user].computed
        assert person.counted == wanted[user].counted
        one, other = (profile_view(p, rules.workspace, now) for p in (person, wanted[user]))
        one["audiences"], other["audiences"] = (
            set(follow(rules, p, p, now).membership.since)  # as their timers would leave it
            for p in (person, wanted[user])
        )
        del one["last_seen"], other["last_seen"]
        assert one == other


@pytest.mark.parametrize("seed", range(4))
async def test_all_is_as_if_it_had_been_declared_from_the_start(postgres_dsn: str, seed: int) -> None:
    before, after = rule_set(BEFORE), rule_set(AFTER, PEOPLE)
    events = history(seed)
    async with engine(postgres_dsn, before) as one:
        await tell(one, events)
        one.rules = after
        await backfill(one).catch_up()
        wanted = oracle(after, events)
        same_counts(await people(one, *wanted), wanted, after, one.now)
        more = [stamped(e, e.received_at + (one.now - NOW)) for e in history(seed + 100)]
        later = [replaced(e, f"more {number}") for number, e in enumerate(more)]
        await tell(one, later)
        wanted = oracle(after, [*events, *later])
        same_counts(await people(one, *wanted), wanted, after, one.now)


def replaced(one: Event, message: str) -> Event:
    return msgspec.structs.replace(one, message_id=message)


async def test_what_is_not_counted_yet_is_unknown_and_not_zero(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rule_set(BEFORE)) as one:
        await one.send(event(name="Order Completed", user="ada", properties={"x": 30}))
        one.rules = rule_set(AFTER, PEOPLE)
        await one.send(event(name="Order Completed", user="ada", properties={"x": 5}))
        ada = (await people(one, "ada"))["ada"]
        view = profile_view(ada, one.rules.workspace, one.now)
        assert view["orders"] == 2
        assert not {"spend", "tier", "share", "visits", "days"} & view.keys()
        await one.send(event(name="Order Completed", user="new", properties={"x": 5}))
        new = (await people(one, "new"))["new"]
        assert profile_view(new, one.rules.workspace, one.now)["spend"] == 5.0
        await backfill(one).catch_up()
        ada = (await people(one, "ada"))["ada"]
        view = profile_view(ada, one.rules.workspace, one.now)
        assert (view["spend"], view["tier"], view["visits"]) == (35.0, "high", 0)
        assert set(ada.audiences.since) == {"high"}
        rows = await fetch(postgres_dsn, "SELECT audience FROM audience_members")
        assert [row[0] for row in rows] == ["high"]


async def test_events_go_on_meanwhile(postgres_dsn: str) -> None:
    """People who do something while their log is counted are counted again, exactly."""
    before, after = rule_set(BEFORE), rule_set(AFTER, PEOPLE)
    first, second = history(1, users=3, events=40), history(2, users=3, events=60)
    second = [replaced(e, f"second {number}") for number, e in enumerate(second)]
    async with engine(postgres_dsn, before) as one:
        await tell(one, first)
        at = max(e.received_at for e in first)
        second = [stamped(e, at + (e.received_at - NOW) / 1000) for e in second]
        one.rules = after
        work = asyncio.create_task(backfill(one).catch_up())
        for each in second:
            one.now = each.received_at
            await one.send(each)
        await work
        wanted = oracle(after, [*first, *second])
        same_counts(await people(one, *wanted), wanted, after, one.now)


@pytest.mark.parametrize("seed", range(3))
async def test_people_become_one_meanwhile(postgres_dsn: str, seed: int) -> None:
    """An app's profile and a user's, of which one may be counted already and the other not yet."""
    before, after = rule_set(BEFORE), rule_set(AFTER, PEOPLE)
    events = history(seed, users=8, events=80)
    events = [
        msgspec.structs.replace(e, user_id=None, anonymous_id=f"app-{e.user_id}")
        if int(e.message_id[1:]) % 2
        else e
        for e in events
    ]
    at = max(e.received_at for e in events)
    joins = [
        event(
            Kind.IDENTIFY,
            user=f"u{n}",
            anonymous=f"app-u{n}",
            message=f"join {n}",
            at=at + timedelta(hours=n),
        )
        for n in range(8)
    ]
    async with engine(postgres_dsn, before) as one:
        await tell(one, events)
        one.rules = after
        work, moving = backfill(one), Merges(one.store, one.cache.evict)
        filling = asyncio.create_task(work.catch_up())
        bringing = asyncio.create_task(moving.run())
        try:
            for join in joins:
                one.now = join.received_at
                await one.send(join)
                moving.wake()
            await filling
            await moving.bring_over()
            await fetch(postgres_dsn, "UPDATE backfill SET rests_until = now()")
            await work.catch_up()
        finally:
            bringing.cancel()
            await asyncio.gather(bringing, return_exceptions=True)
        wanted = oracle(after, [*events, *joins])
        found = await people(one, *wanted)
        assert found.keys() == wanted.keys()
        for user, person in found.items():
            assert not person.absorbed
            assert person.counted == wanted[user].counted
            # What has left a window may still stand in the document, and is not read.
            read, expected = (
                {
                    **profile_view(p, after.workspace, one.now),
                    "audiences": set(follow(after, p, p, one.now).membership.since),
                }
                for p in (person, wanted[user])
            )
            assert read == expected


async def test_it_goes_on_where_another_engine_stopped(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.app.backfill.VISITED_AT_ONCE", 3)
    async with engine(postgres_dsn, rule_set(BEFORE)) as one:
        await one.send(*(event(name="Order Completed", user=f"u{n}", properties={"x": 1}) for n in range(10)))
        one.rules = rule_set(AFTER, PEOPLE)
        stopped = backfill(one)
        real = one.lane.submit
        seen = 0

        def failing(events: Any, **how: Any) -> None:
            nonlocal seen
            seen += 1
            if seen > 5:
                raise RuntimeError
            real(events, **how)

        monkeypatch.setattr(one.lane, "submit", failing)
        with pytest.raises(RuntimeError):
            await stopped.catch_up()
        monkeypatch.setattr(one.lane, "submit", real)
        async with asyncio.timeout(30):
            while len(await fetch(postgres_dsn, "SELECT FROM events WHERE name = $1", EVENT)) < 5:
                await asyncio.sleep(0.01)
        another = backfill(one)
        await another.catch_up()  # the lease of the first one holds still
        (row,) = await fetch(postgres_dsn, "SELECT * FROM backfill")
        assert (row["visited"], row["finished_at"]) == (3, None)
        await fetch(postgres_dsn, "UPDATE backfill SET leased_until = now() - interval '1 second'")
        before = metrics.BACKFILLED._value.get()
        await another.catch_up()
        assert metrics.BACKFILLED._value.get() - before == 5
        assert metrics.BACKFILL_SHARE._value.get() == 1.0
        (row,) = await fetch(postgres_dsn, "SELECT * FROM backfill")
        assert (row["visited"], row["round"], row["finished_at"]) == (10, 2, None)
        found = await people(one, *(f"u{n}" for n in range(10)))
        assert all(profile_view(p, one.rules.workspace, one.now)["spend"] == 1.0 for p in found.values())
        events = await fetch(postgres_dsn, "SELECT FROM events WHERE name = $1", EVENT)
        assert len(events) == 10


async def test_what_was_done_is_not_done_again_and_going_back_is_a_change(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rule_set(AFTER)) as one:
        await one.send(event(name="Order Completed", user="ada", properties={"x": 1}))
        await backfill(one).catch_up()
        before, after = one.rules, rule_set(BEFORE)
        for rules in (after, before, after):
            one.rules = rules
            await backfill(one).catch_up()
            await one.send(event(name="Order Completed", user="ada", properties={"x": 1}))
        ada = (await people(one, "ada"))["ada"]
        assert profile_view(ada, one.rules.workspace, one.now)["spend"] == 4.0


async def test_a_second_round_finds_whom_an_engine_touched_by_other_rules(postgres_dsn: str) -> None:
    before, after = rule_set(BEFORE), rule_set(AFTER, PEOPLE)
    order = [event(name="Order Completed", user="ada", properties={"x": 2}) for _ in range(3)]
    async with engine(postgres_dsn, before) as one:
        await one.send(order[0])
        one.rules = after
        work = backfill(one)
        await work.catch_up()
        one.rules = before  # an engine that has not heard yet
        await one.send(order[1])
        one.rules = after
        await one.send(order[2])
        assert "spend" not in profile_view((await people(one, "ada"))["ada"], after.workspace, one.now)
        await work.catch_up()  # rests yet
        await fetch(postgres_dsn, "UPDATE backfill SET rests_until = now()")
        await work.catch_up()
        same_counts(await people(one, "ada"), oracle(after, order), after, one.now)
        (row,) = await fetch(postgres_dsn, "SELECT * FROM backfill")
        assert row["finished_at"] is not None


async def test_whom_nobody_is_known_by_any_more_is_left_alone(postgres_dsn: str) -> None:
    async with engine(postgres_dsn, rule_set(BEFORE)) as one:
        await one.send(event(name="Order Completed", user="ada", properties={"x": 1}))
        ada = (await people(one, "ada"))["ada"]
        blank = encode_profile(new_profile(("user_id", "ada"), b"secret", one.now))
        await fetch(postgres_dsn, "UPDATE profiles SET version = version + 1, document = $1", blank)
        one.cache.evict(ada.id)
        one.rules = rule_set(AFTER, PEOPLE)
        await backfill(one).catch_up()
        assert len(await fetch(postgres_dsn, "SELECT FROM events")) == 1
        assert (await fetch(postgres_dsn, "SELECT document FROM profiles"))[0][0] == blank
