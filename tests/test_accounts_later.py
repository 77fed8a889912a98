"""Accounts afterwards: roll-ups declared later, merges, splits, erasure, the past tried again."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import datetime, timedelta

from engine.adapters.postgres.merges import bring_over
from engine.app import rights
from engine.app.backfill import Backfill
from engine.app.ruling import Ruling
from engine.app.splitting import split
from engine.app.timers import Timers
from engine.domain.people.events import Device, Event, Kind, Sender
from tests import lanes, served
from tests.lanes import NOW, arrival, event, fetch
from tests.test_accounts import RULES, WORKSPACE, account, buys, joins, rule_set, settled
from tests.test_backtest import played

BARE = b"rules: {}"
SKUS = b"""
accounts:
  computed:
    skus: {distinct: "event.properties.products.map(p, p.sku)", of: Order Completed}
"""


async def caught_up(one: lanes.Engine) -> None:
    """Both rounds of a backfill, the second one of which comes a minute after the first."""
    backfill = Backfill(one.store, one.lane, lambda: Ruling(one.rules, {}), lambda: one.now)
    await backfill.catch_up()
    await settled((one,))
    await fetch_all(one, "UPDATE backfill SET rests_until = now()")
    await backfill.catch_up()
    await settled((one,))


async def fetch_all(one: lanes.Engine, sql: str) -> None:
    await one.store.pool.fetch(sql)


async def test_a_rollup_declared_later_is_counted_from_the_past(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rule_set(BARE, b"events: {}")) as one:
        await one.send(joins("ada"), joins("bob"), joins("bob", "apex"))
        await one.send(buys("ada", "A", "m1"), buys("bob", "B", "m2"), buys("eve", "C", "m3"))
        await settled((one,))
        one.rules = rule_set()
        await one.send(buys("ada", "D", "m4"))  # in between: ada's past is not counted yet
        await settled((one,))
        unfinished = await account(one)
        await caught_up(one)
        acme, apex = await account(one), await account(one, "apex")
        await caught_up(one)
        again = await account(one)
        assert one.rules.of_accounts is not None
        stamp = one.rules.of_accounts.workspace.counted_stamp
    assert unfinished.counted != stamp
    assert (acme.counted, apex.counted) == (stamp, stamp)
    assert (acme.computed["orders"], acme.computed["skus"]) == (2, ["A", "D"])
    assert (apex.computed["orders"], apex.computed["skus"]) == (1, ["B"])
    assert again.computed == acme.computed


async def test_a_rollup_that_goes_and_comes_back_is_counted_once(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rule_set()) as one:
        await one.send(joins("ada"), buys("ada", "A", "m1"))
        await settled((one,))
        one.rules = rule_set(BARE, SKUS)
        await one.send(buys("ada", "B", "m2"))
        await caught_up(one)
        without = await account(one)
        one.rules = rule_set()
        await one.send(buys("ada", "C", "m3"))
        await caught_up(one)
        acme = await account(one)
    assert set(without.computed) == {"skus"}
    assert (acme.computed["orders"], acme.computed["spend"]) == (3, 30)
    assert acme.computed["skus"] == ["A", "B", "C"]


async def test_an_engine_with_older_rules_keeps_what_it_does_not_know(postgres_dsn: str) -> None:
    async with (
        lanes.engine(postgres_dsn, rule_set()) as new,
        lanes.engine(postgres_dsn, rule_set(BARE, SKUS)) as old,
    ):
        await new.send(joins("ada"), buys("ada", "A", "m1"), buys("ada", "B", "m2"))
        await settled((old,))
        between = await account(new)
        await new.send(buys("ada", "C", "m3"))
        await settled((new,))
        acme = await account(new)
    assert set(between.computed) == {"skus", "$waiting"}
    assert (acme.computed["orders"], acme.computed["skus"]) == (3, ["A", "B", "C"])
    assert "$waiting" not in acme.computed


async def test_two_profiles_of_one_person_count_a_message_once(postgres_dsn: str) -> None:
    order = {"name": "Order Completed", "message": "m1", "properties": {"revenue": 7}}
    async with lanes.engine(postgres_dsn, rule_set()) as one:
        await one.send(
            event(Kind.GROUP, user="ada", message="g1", group_id="acme", properties={"role": "buyer"}),
            event(Kind.GROUP, anonymous="app", message="g2", group_id="acme", at=NOW - timedelta(hours=1)),
            event(user="ada", **order),  # type: ignore[arg-type]
            event(anonymous="app", **order),  # type: ignore[arg-type]
        )
        await settled((one,))
        twice = await account(one)
        await one.send(event(Kind.IDENTIFY, user="ada", anonymous="app", message="i1"))
        await settled((one,))
        once, ada = await account(one), await one.profile("user_id", "ada")
        members = await fetch(postgres_dsn, "SELECT profile_id FROM audience_members")
        assert ada is not None
        await bring_over(one.store.pool)
        await split(one.store.pool, ("anonymous_id", "app"), one.rules, one.now)
        apart = await fetch(postgres_dsn, "SELECT profile_id FROM audience_members")
    assert (twice.computed["orders"], once.computed["orders"], once.computed["spend"]) == (2, 1, 7)
    assert ada.accounts["acme"].message_id == "g2"
    assert [str(row[0]) for row in members] == [ada.id]
    assert len(apart) == 2


async def test_who_is_erased_is_no_member_and_left_nothing_but_sums(postgres_dsn: str) -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    async with lanes.engine(postgres_dsn, rule_set()) as one:
        await one.send(joins("ada", role="buyer", member={"desk": "desk-of-ada"}), joins("bob"))
        await one.send(buys("ada", "A", "m1"), buys("bob", "B", "m2"))
        await one.send(buys("ada", "C", "m3"))  # erased before the account hears of it
        erased = await rights.erase(one.store.pool, ("user_id", "ada"), secret, one.now)
        assert erased is not None
        for profile_id in erased[1].ids:
            one.cache.evict(profile_id)
        await settled((one,))
        acme = await account(one)
        members = await fetch(postgres_dsn, "SELECT FROM audience_members WHERE audience = '$account:acme'")
        async with one.store.pool.acquire() as connection:
            left = await rights.stored.scan(connection, ["desk-of-ada", "ada joins", "buyer"])
        as_person = await rights.export(one.store.pool, ("$account", "acme"), one.now)
    assert erased[0].left_over == {}
    assert len(members) == 1
    assert (acme.computed["orders"], acme.computed["skus"]) == (3, ["A", "B", "C"])
    assert left == {}
    assert as_person is None


async def test_a_push_that_never_went_gives_the_accounts_cap_back(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn, rule_set()) as one:
        await one.send(*(arrival(p) for p in "abcd"), *(joins(p) for p in "abcd"))
        await settled((one,))
        made = await one.send(*(event(name="Wish", user=p) for p in "abc"))
        capped = await one.send(event(name="Wish", user="d"))
        failed = made.decisions[0].id
        told = {"decision": failed, "offer": "one-each", "rule": "capped"}
        await one.send(event(name="Offer Failed", user="a", sender=Sender.ENGINE, properties=told))
        await settled((one,))
        acme = await account(one)
        again = await one.send(event(name="Wish", user="d"))
    assert [d.outcome.value for d in capped.decisions] == ["suppressed"]
    assert failed not in [c.decision for c in acme.contacts]
    assert [d.outcome.value for d in again.decisions] == ["offered"]


# The past tried again

PEOPLE = [f"p{n}" for n in range(12)]
TRIED = (
    RULES.replace(b"times: 3, per: 7d", b"times: 3, per: 6h")
    + b"""
  spenders: {when: Ask, if: account.spend > 50 && member.role == "buyer", offer: one-each}
"""
)
OF_TODAY = WORKSPACE.replace(b"of: Order Completed}", b"of: Order Completed, within: 1h}", 1)
OTHER = TRIED.replace(b"account.spend > 50", b"account.spend > 200").replace(b"times: 3", b"times: 1")


def life(chance: random.Random, now: datetime) -> Event:
    user = chance.choice(PEOPLE)
    app = f"{user if chance.random() < 0.9 else chance.choice(PEOPLE)}-{chance.randrange(2)}"
    at = now - timedelta(seconds=chance.choice((0, 0, 5)))
    match chance.randrange(8):
        case 0:
            told = {"name": "Acme", "role": chance.choice(("buyer", "cook"))}
            joined = chance.choice(("acme", "apex"))
            return event(Kind.GROUP, user=user, anonymous=app, group_id=joined, properties=told, at=at)
        case 1 | 2 | 3:
            bought = {"revenue": chance.randrange(1, 9), "products": [{"sku": chance.choice("ABCDE")}]}
            context = {"groupId": "acme"} if app.endswith("0") and chance.random() < 0.5 else {}
            return event(
                name="Order Completed", user=user, anonymous=app, properties=bought, at=at, context=context
            )
        case 4:
            device = Device(id=f"{user}-phone", type="android", token=f"t-{user}")
            return event(Kind.IDENTIFY, user=user, anonymous=app, device=device, at=at)
        case _:
            return event(name=chance.choice(("Wish", "Ask")), user=user, anonymous=app, at=at)


async def lived(dsn: str, events: int, ruling: Ruling) -> tuple[datetime, datetime]:
    chance = random.Random(5)
    async with lanes.engine(dsn, ruling.rules) as one:
        reading = itertools.count()
        one.clock = lambda: one.now + timedelta(microseconds=next(reading))
        timers = Timers(one.store, one.lane, one.clock)
        await one.send(*(arrival(user) for user in PEOPLE))
        done = 0
        while done < events:
            one.now += timedelta(seconds=chance.randrange(1, 6000))
            batch = [life(chance, one.now) for _ in range(chance.randrange(1, 20))]
            replies = [one.submit(told) for told in batch]
            await asyncio.gather(*(asyncio.wait_for(reply.done, 60) for reply in replies))
            await timers.fire_due()
            done += len(batch)
        return NOW, one.now


def test_a_backtest_makes_every_decision_about_accounts_again(postgres: str) -> None:
    active, other = (Ruling(rule_set(rules, OF_TODAY), {}) for rules in (TRIED, OTHER))
    with served.database(postgres, "lived_with_accounts") as dsn:
        began, ended = asyncio.run(lived(dsn, 1200, active))
        result = played(dsn, active, other, began + (ended - began) / 2)
    agreement, made = result.count.agreement, result.count.active
    assert not result.count.left_out
    assert agreement.recorded > 200
    assert (agreement.differing, agreement.missing, agreement.unknown) == (0, 0, 0)
    assert {rule for rule, _ in made.offered} >= {"capped", "spenders", "cross-sell"}
    assert result.count.changes()
