"""After a merge: rows come over to the profile that stays, and are found meanwhile."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from engine.adapters.postgres.merges import bring_over, family
from engine.app.timers import Timers
from engine.domain.people.events import Kind, Sender
from engine.domain.people.profiles import Profile
from tests import lanes
from tests.lanes import NOW, arrival, event, fetch, minutes


async def rows_of(dsn: str, profile: Profile) -> dict[str, int]:
    tables = ("events", "seen", "decisions", "outbox", "timers")
    found = {}
    for table in tables:
        (row,) = await fetch(dsn, f"SELECT count(*) FROM {table} WHERE profile_id = $1", profile.id)
        found[table] = int(row[0])
    return found


async def test_rows_come_over_to_the_profile_that_stays(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Open", user="U"), event(name="Open", user="U"))
        await engine.send(arrival("V"), event(name="Thank Me", user="V"))
        visit = event(Kind.IDENTIFY, anonymous="A", consent={"marketing": True})
        wish = event(name="Thank Me", anonymous="A", message="wish", device=arrival("A").device)
        first = await engine.send(visit, wish)
        app = await engine.profile("anonymous_id", "A")
        assert app is not None
        await engine.send(event(Kind.IDENTIFY, anonymous="A", user="U"))
        user = await engine.profile("user_id", "U")
        assert user is not None
        assert [a.id for a in user.absorbed] == [app.id]
        assert await bring_over(engine.store.pool) == [user.id]
        assert await bring_over(engine.store.pool) == []
        again = await engine.send(wish)
        after = await engine.profile("anonymous_id", "A")
        relatives = await family(engine.store.pool, user.id)
    assert after is not None
    assert after.absorbed == ()
    assert len(after.contacts) == 1  # the offer made before counts for caps
    assert again.duplicates == 1
    assert [d.id for d in again.decisions] == [d.id for d in first.decisions]
    assert await rows_of(postgres_dsn, user) == {
        "events": 5,
        "seen": 5,
        "decisions": 1,
        "outbox": 1,
        "timers": 0,
    }
    # What was seen stays known under the old id, for identities that had moved away before.
    assert await rows_of(postgres_dsn, app) == {
        "events": 0,
        "seen": 2,
        "decisions": 0,
        "outbox": 0,
        "timers": 0,
    }
    seqs = await fetch(postgres_dsn, "SELECT seq FROM events WHERE profile_id = $1 ORDER BY 1", user.id)
    assert [row[0] for row in seqs] == [1, 2, 3, 4, 5]
    assert [(str(r[0]), str(r[1])) for r in relatives] == [(app.id, user.id)]


async def test_a_chain_of_merges_comes_over_whole(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        for app in "ABCD":
            await engine.send(event(name="Order Completed", anonymous=app, at=NOW + minutes(ord(app))))
        for one, other in ("AB", "CD", "BC"):
            await engine.send(event(Kind.MERGE, anonymous=one, previous_id=other))
        found = {app: await engine.profile("anonymous_id", app) for app in "ABCD"}
        assert len({p.id for p in found.values() if p is not None}) == 1
        (person,) = {p.id: p for p in found.values() if p is not None}.values()
        assert len(person.absorbed) == 3
        while await bring_over(engine.store.pool):
            pass
        person_after = await engine.profile("anonymous_id", "A")
        assert len(await family(engine.store.pool, person.id)) == 3
    assert person_after is not None
    assert person_after.computed["orders"] == 4
    assert person_after.absorbed == ()
    seqs = await fetch(postgres_dsn, "SELECT seq FROM events WHERE profile_id = $1 ORDER BY 1", person.id)
    assert [row[0] for row in seqs] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_message_of_both_counts_once_and_stands_once_in_the_log(postgres_dsn: str) -> None:
    order = {"name": "Order Completed", "message": "m", "properties": {"revenue": 10.25}}
    async with lanes.engine(postgres_dsn) as engine:
        replies = await engine.send(event(**order, user="U"), event(**order, anonymous="A"))
        await engine.send(event(name="Order Completed", anonymous="A", properties={"revenue": 5}))
        await engine.send(event(Kind.ALIAS, user="U", previous_id="A"))
        while await bring_over(engine.store.pool):
            pass
        user = await engine.profile("user_id", "U")
    assert replies.accepted == 2  # of two people as yet
    assert user is not None
    assert (user.computed["orders"], user.computed["spend"]) == (2, 15.25)
    log = await fetch(postgres_dsn, "SELECT message_id FROM events WHERE profile_id = $1", user.id)
    assert [row[0] for row in log].count("m") == 1
    assert len(log) == 3


async def test_what_is_due_for_the_profile_that_ended_reaches_the_other(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Open", user="U"), event(name="Open", anonymous="A"))
        app = await engine.profile("anonymous_id", "A")
        assert app is not None
        for number in range(2):
            due = event(name="Order Completed", message=f"due{number}", sender=Sender.ENGINE)
            await fetch(
                postgres_dsn,
                "INSERT INTO timers (bucket, profile_id, id, due_at, event) VALUES ($1, $2, $3, $4, $5)",
                int(app.id[:2], 16),
                app.id,
                f"x{number}",
                NOW + minutes(number),
                lanes.event_text(due),
            )
        await engine.send(event(Kind.IDENTIFY, anonymous="A", user="U"))
        timers = Timers(engine.store, engine.lane, lambda: engine.now)
        before = await timers.fire_due()
        while await bring_over(engine.store.pool):
            pass
        engine.now = NOW + minutes(1)
        after = await timers.fire_due()
        user = await engine.profile("user_id", "U")
    assert (before, after) == (1, 1)
    assert user is not None
    assert user.computed["orders"] == 2
    assert await fetch(postgres_dsn, "SELECT FROM timers") == []


WAITING = b"""
offers: {cart: {purpose: marketing, message: {push: {title: Your cart, body: waits}}}}
rules:
  cart: {when: {event: Cart Updated, for: 1h}, unless: {event: Order Completed}, offer: cart}
"""


@pytest.mark.parametrize(("known", "unknown"), [(0, 20), (20, 0)])
async def test_what_both_waited_for_comes_after_the_newer_of_their_events(
    known: int, unknown: int, postgres_dsn: str
) -> None:
    """Somebody fills a cart on two devices, and only then says who they are."""
    async with lanes.engine(postgres_dsn, lanes.rule_set(WAITING)) as engine:
        await engine.send(arrival("U"), event(name="Cart Updated", user="U", at=NOW + minutes(known)))
        await engine.send(event(name="Cart Updated", anonymous="A", at=NOW + minutes(unknown)))
        await engine.send(event(Kind.IDENTIFY, anonymous="A", user="U", at=NOW + minutes(25)))
        while await bring_over(engine.store.pool):
            pass
        timers = Timers(engine.store, engine.lane, lambda: engine.now)
        engine.now = NOW + minutes(79)
        await timers.fire_due()
        early = await fetch(postgres_dsn, "SELECT FROM decisions")
        engine.now = NOW + minutes(80)
        await timers.fire_due()
    assert early == []
    made = await fetch(postgres_dsn, "SELECT outcome FROM decisions WHERE rule = 'cart'")
    assert [row["outcome"] for row in made] == ["offered"]


async def test_two_engines_that_join_the_same_people_make_one(postgres_dsn: str) -> None:
    """Each round two engines are told at once, in different words, that five ids are one person."""
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:
        for n in range(15):
            ids = [f"{n}-{i}" for i in range(5)]
            await one.send(*(event(name="Order Completed", anonymous=i) for i in ids))
            pairs = list(pairwise(ids))
            told = [event(Kind.MERGE, anonymous=a, previous_id=b) for a, b in pairs]
            replies = [(one if i % 2 else two).submit(e) for i, e in enumerate(told)]
            await asyncio.gather(*(asyncio.wait_for(r.done, 30) for r in replies))
            found = [await one.profile("anonymous_id", i) for i in ids]
            assert len({p.id for p in found if p is not None}) == 1
            assert found[0] is not None
            assert found[0].computed["orders"] == 5
            assert len(found[0].identities) == 5
            await bring_over(one.store.pool)
    (row,) = await fetch(
        postgres_dsn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert row[0] == 0
