"""Two engines on one database: caps, counts and identities are exact whoever is faster."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from engine.app.timers import LEASE, Timers
from engine.domain.people.events import Device, Kind, Sender
from engine.domain.people.profiles import identity_bucket
from tests import lanes
from tests.lanes import NOW, arrival, event, fetch


async def deadlocks(dsn: str) -> int:
    (row,) = await fetch(dsn, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(row[0])


async def test_shared_people_with_retries_are_counted_once_and_capped_exactly(postgres_dsn: str) -> None:
    chance = random.Random(7)
    people = [f"p{i}" for i in range(40)]
    orders = [event(name="Order Completed", user=p, message=f"{p}-{n}") for p in people for n in range(10)]
    wishes = [event(name="Thank Me", user=p, message=f"{p}-w{n}") for p in people for n in range(6)]
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:
        await one.send(*(arrival(p) for p in people))
        work = [(engine, e) for e in orders + wishes for engine in (one, two)]  # each to both: a retry
        chance.shuffle(work)
        replies = []
        for start in range(0, len(work), 16):
            requests = [engine.submit(e) for engine, e in work[start : start + 16]]
            await asyncio.gather(*(asyncio.wait_for(r.done, 30) for r in requests))
            replies += requests
        profiles = [await one.profile("user_id", p) for p in people]
    assert sum(r.accepted for r in replies) == len(orders) + len(wishes)
    assert sum(r.duplicates for r in replies) == len(orders) + len(wishes)
    for profile in profiles:
        assert profile is not None
        assert profile.computed["orders"] == 10
        assert profile.seq == 1 + 10 + 6
        assert len(profile.contacts) == 3
    sent = await fetch(postgres_dsn, "SELECT profile_id, count(*) FROM outbox GROUP BY 1")
    assert [row["count"] for row in sent] == [3] * len(people)
    assert await deadlocks(postgres_dsn) == 0


async def test_overlapping_ticks_lock_in_one_order(postgres_dsn: str) -> None:
    """200 people in every tick of both, each time in another order."""
    people = [f"p{i}" for i in range(200)]
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:
        await one.send(*(arrival(p) for p in people))

        async def load(engine: lanes.Engine, seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(8):
                chance.shuffle(people)
                await engine.send(*(event(name="Order Completed", user=p) for p in people))

        await asyncio.gather(load(one, 1), load(two, 2))
        profiles = [await one.profile("user_id", p) for p in people]
    assert {p.computed["orders"] for p in profiles if p is not None} == {16}
    assert await deadlocks(postgres_dsn) == 0


async def test_neither_engine_starves_on_a_person_whom_both_serve(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:

        async def load(engine: lanes.Engine) -> float:
            await asyncio.gather(*(engine.send(event(name="Order Completed", user="hot")) for _ in range(5)))
            for _ in range(150):
                await engine.send(event(name="Order Completed", user="hot"))
            return asyncio.get_running_loop().time()

        started = asyncio.get_running_loop().time()
        ends = await asyncio.gather(load(one), load(two))
        hot = await one.profile("user_id", "hot")
    assert hot is not None
    assert hot.computed["orders"] == 310
    first, last = sorted(end - started for end in ends)
    assert first > 0.25 * last  # both went along: neither had to wait for the other's end


async def test_two_engines_that_meet_a_new_person_make_one_profile(postgres_dsn: str) -> None:
    people = [f"new{i}" for i in range(100)]
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:
        for start in range(0, len(people), 10):
            some = people[start : start + 10]
            await asyncio.gather(
                one.send(*(event(name="Order Completed", user=p, anonymous=f"{p}-a") for p in some)),
                two.send(*(event(name="Order Completed", anonymous=f"{p}-a") for p in some)),
                two.send(*(event(name="Order Completed", user=p) for p in reversed(some))),
            )
        users = [await one.profile("user_id", p) for p in people]
        apps = [await one.profile("anonymous_id", f"{p}-a") for p in people]
        # Wherever the app's own profile came first, it has the app's past count; nothing is lost.
        stored = await fetch(postgres_dsn, "SELECT count(*) FROM events")
    assert all(u is not None for u in users)
    assert [a.id for a in apps if a] == [u.id for u in users if u]
    assert stored[0][0] == 300
    listed = await fetch(postgres_dsn, "SELECT namespace, value FROM identities")
    assert len(listed) == 200


async def test_an_engine_with_a_stale_link_finds_the_person_again(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:
        await one.send(event(name="Open", anonymous="A"))
        await two.send(event(name="Open", anonymous="A"), event(name="Open", user="U"))
        await one.send(event(Kind.IDENTIFY, anonymous="A", user="U"))  # A moves to U
        await two.send(event(name="Order Completed", anonymous="A"))  # two still thinks A alone
        user = await one.profile("user_id", "U")
    assert user is not None
    assert user.computed["orders"] == 1
    assert user.lists(("anonymous_id", "A"))


async def test_a_move_writes_both_documents_or_none(postgres_dsn: str) -> None:
    """Two users fight for one tablet from two engines: at every end it belongs to exactly one."""
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:

        async def swap(engine: lanes.Engine, user: str) -> None:
            for _ in range(40):
                await engine.send(event(name="Open", user=user, anonymous="A", device=Device(id="tablet")))

        await asyncio.gather(swap(one, "mum"), swap(two, "kid"))
        mum, kid = await one.profile("user_id", "mum"), await one.profile("user_id", "kid")
        owner = await one.profile("anonymous_id", "A")
    assert mum is not None
    assert kid is not None
    assert mum.seq + kid.seq == 80
    assert [("anonymous_id", "A") in p.keys for p in (mum, kid)].count(True) == 1
    assert ["tablet" in p.devices for p in (mum, kid)].count(True) == 1
    assert owner in (mum, kid)
    assert await deadlocks(postgres_dsn) == 0


async def test_a_stale_row_of_the_index_may_be_taken_over(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(name="Open", user="U"))
        user = await engine.profile("user_id", "U")
        assert user is not None
        key = ("anonymous_id", "gone")
        await fetch(
            postgres_dsn,
            "INSERT INTO identities (bucket, namespace, value, profile_id) VALUES ($1, $2, $3, $4)",
            identity_bucket(key),
            *key,
            user.id,
        )
        await engine.send(event(name="Open", anonymous="gone"))
        taken = await engine.profile(*key)
        after = await engine.profile("user_id", "U")
    assert taken is not None
    assert taken.id != user.id
    assert after is not None
    assert after.version == user.version + 1  # guards the take-over
    assert after.seq == user.seq


async def test_a_timer_fires_once_whoever_claims_it_and_again_after_a_crash(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as one, lanes.engine(postgres_dsn) as two:
        await one.send(*(arrival(f"p{i}") for i in range(50)))
        people = [await one.profile("user_id", f"p{i}") for i in range(50)]
        for person in people:
            assert person is not None
            due = event(name="Order Completed", message=f"due:{person.id}", sender=Sender.ENGINE)
            await fetch(
                postgres_dsn,
                "INSERT INTO timers (bucket, profile_id, id, due_at, event) VALUES ($1, $2, 'x', $3, $4)",
                int(person.id[:2], 16),
                person.id,
                NOW,
                lanes.event_text(due),
            )
        crashed = await one.store.claim_timers(NOW, 10, LEASE)  # and then its engine is gone
        assert len(crashed) == 10
        fired = await asyncio.gather(*(Timers(e.store, e.lane, lambda: NOW).fire_due() for e in (one, two)))
        await fetch(postgres_dsn, "UPDATE timers SET leased_until = now() - interval '1 second'")
        again = await Timers(two.store, two.lane, lambda: NOW).fire_due()
        after = [await one.profile("user_id", f"p{i}") for i in range(50)]
    assert sum(fired) == 40
    assert again == 10
    assert {p.computed["orders"] for p in after if p is not None} == {1}
    assert await fetch(postgres_dsn, "SELECT FROM timers") == []


async def test_a_cart_left_alone_survives_a_crash_and_a_change_of_identity(postgres_dsn: str) -> None:
    """An anonymous person fills a cart, the engine goes, they log in elsewhere: told of it once."""
    rules = lanes.rule_set(
        lanes.RULES
        + b"""
  cart:
    when: {event: Cart Updated, for: 1h, by: event.properties.cart}
    unless: {event: Order Completed, by: event.properties.cart}
    offer: thanks
"""
    )
    cart = {"properties": {"cart": "c1"}}
    async with lanes.engine(postgres_dsn, rules) as engine:
        await engine.send(event(name="Cart Updated", anonymous="phone", **cart))
        await engine.send(event(name="Cart Updated", anonymous="phone", properties={"cart": "c2"}))
    async with lanes.engine(postgres_dsn, rules) as one, lanes.engine(postgres_dsn, rules) as two:
        await two.send(arrival("ada"))
        await two.send(event(lanes.Kind.IDENTIFY, user="ada", anonymous="phone"))
        await two.send(event(name="Order Completed", user="ada", properties={"cart": "c2"}))
        one.now = two.now = NOW + timedelta(minutes=59, seconds=59)
        timers = [Timers(e.store, e.lane, lambda e=e: e.now) for e in (one, two)]
        assert sum(await asyncio.gather(*(t.fire_due() for t in timers))) == 0
        one.now = two.now = NOW + timedelta(hours=1)
        assert sum(await asyncio.gather(*(t.fire_due() for t in timers))) >= 1
        assert len(one.sends + two.sends) == 1
    made = await fetch(postgres_dsn, "SELECT rule, outcome FROM decisions WHERE outcome = 'offered'")
    assert lanes.plain(made) == [("cart", "offered")]
    assert await fetch(postgres_dsn, "SELECT FROM timers") == []
