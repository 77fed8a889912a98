"""Two ticks under way: nobody waits for somebody else's commit, and everybody's events keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from engine.app import lane
from engine.app.lane import BESIDE_EVENTS, BULK_EVENTS, TICK_EVENTS
from engine.app.replies import Reply
from tests import lanes
from tests.lanes import arrival, event, fetch


@asynccontextmanager
async def held_up(dsn: str, user: str) -> AsyncIterator[None]:
    """While somebody else has the person's row locked, no commit for them can end."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT FROM profiles JOIN identities i ON i.profile_id = id WHERE i.value = $1 "
                "FOR UPDATE OF profiles",
                user,
            )
            yield
    finally:
        await connection.close()


async def waits_for_the_lock(dsn: str) -> None:
    async with asyncio.timeout(30):
        while not (
            await fetch(
                dsn,
                "SELECT FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock'",
            )
        ):
            await asyncio.sleep(0.01)


def is_answered(reply: Reply) -> bool:
    return reply.done.done()


@asynccontextmanager
async def stuck_beside(dsn: str) -> AsyncIterator[tuple[lanes.Engine, Reply]]:
    """An engine, and an event that has been submitted and cannot be committed in here."""
    async with lanes.engine(dsn) as engine:
        await engine.send(arrival("ada"))
        async with held_up(dsn, "ada"):
            stuck = engine.submit(event(name="First", user="ada"))
            yield engine, stuck
        await asyncio.wait_for(stuck.done, 30)


async def log_of(dsn: str) -> list[tuple[str, str]]:
    rows = await fetch(dsn, "SELECT profile_id, name FROM events WHERE name <> '' ORDER BY profile_id, seq")
    return [(str(r["profile_id"]), r["name"]) for r in rows]


async def test_others_do_not_wait_for_a_commit_that_hangs(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("ada"), arrival("bob"))
        async with held_up(postgres_dsn, "ada"):
            stuck = engine.submit(event(name="First", user="ada"))
            await waits_for_the_lock(postgres_dsn)
            for _ in range(3):
                await engine.send(event(name="Seen", user="bob"))
            assert not is_answered(stuck)
        await asyncio.wait_for(stuck.done, 30)


async def test_few_wait_for_the_tick_under_way_and_many_do_not(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "PATIENCE_SECONDS", 3600)
    async with stuck_beside(postgres_dsn) as (engine, stuck):
        await waits_for_the_lock(postgres_dsn)
        few = [engine.submit(event(name="Seen", user=f"u{n}")) for n in range(TICK_EVENTS - 1)]
        await asyncio.sleep(0.05)
        assert not any(is_answered(reply) for reply in few)
        few.append(engine.submit(event(name="Seen", user="bob")))
        async with asyncio.timeout(30):
            await asyncio.gather(*(reply.done for reply in few))
        assert not is_answered(stuck)
        last = engine.submit(event(name="Seen", user="bob"))
    await asyncio.wait_for(last.done, 30)


@pytest.mark.parametrize("enough", [False, True])
async def test_what_came_while_a_tick_was_decided_goes_beside_its_commit(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    monkeypatch.setattr(lane, "PATIENCE_SECONDS", 3600)
    async with stuck_beside(postgres_dsn) as (engine, stuck):
        await asyncio.sleep(0)  # it is taken
        several = range(BESIDE_EVENTS if enough else BESIDE_EVENTS - 1)
        others = [engine.submit(event(name="Seen", user=f"u{n}")) for n in several]
        await waits_for_the_lock(postgres_dsn)
        if enough:
            async with asyncio.timeout(30):
                await asyncio.gather(*(reply.done for reply in others))
        await asyncio.sleep(0.05)
        assert not is_answered(stuck)
        assert all(is_answered(reply) for reply in others) is enough
    async with asyncio.timeout(30):
        await asyncio.gather(*(reply.done for reply in others))


async def test_what_a_tick_that_hangs_had_no_room_for_goes_by_itself(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("ada"))
        async with held_up(postgres_dsn, "ada"):
            stuck = [engine.submit(event(name="First", user="ada"))]
            stuck += [engine.submit(event(name="Seen", user=f"u{n}")) for n in range(TICK_EVENTS - 1)]
            left = engine.submit(event(name="Seen", user="bob"))
            await asyncio.wait_for(left.done, 30)
            assert not any(is_answered(reply) for reply in stuck)
        async with asyncio.timeout(30):
            await asyncio.gather(*(reply.done for reply in stuck))


async def test_one_persons_events_keep_their_order_whatever_they_are_named_by(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(lanes.Kind.IDENTIFY, user="ada", anonymous="phone"))
        await engine.send(arrival("bob"))
        async with held_up(postgres_dsn, "ada"):
            replies = [engine.submit(event(name="1", user="ada"))]
            await waits_for_the_lock(postgres_dsn)
            replies.append(engine.submit(event(name="2", anonymous="phone")))
            # New here; only this event says whose it is, and what follows it must follow it.
            replies.append(engine.submit(event(name="3", user="ada", anonymous="tablet")))
            replies.append(engine.submit(event(name="4", anonymous="tablet")))
            await engine.send(event(name="Seen", user="bob"))
            assert not any(is_answered(reply) for reply in replies)
            assert len(engine.lane) == 4
        async with asyncio.timeout(30):
            await asyncio.gather(*(reply.done for reply in replies))
    names = [name for _, name in await log_of(postgres_dsn) if name != "Seen"]
    assert names == ["1", "2", "3", "4"]
    assert len({profile for profile, _ in await log_of(postgres_dsn)}) == 2


async def test_the_events_of_one_request_keep_their_order(postgres_dsn: str) -> None:
    """Even where nothing tells yet that two of its names are one person's."""
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(event(lanes.Kind.IDENTIFY, user="ada", anonymous="phone"))
    async with lanes.engine(postgres_dsn) as restarted:
        async with held_up(postgres_dsn, "ada"):
            numbered = [event(name=f"{n:03}", user="ada") for n in range(BULK_EVENTS + 40)]
            reply = restarted.submit(*numbered, event(name="last", anonymous="phone"))
            await waits_for_the_lock(postgres_dsn)
            await asyncio.sleep(0.05)
            assert not is_answered(reply)
        await asyncio.wait_for(reply.done, 30)
    names = [name for _, name in await log_of(postgres_dsn)]
    assert names == sorted(names)


async def test_a_tick_takes_so_many_new_events_and_its_last_request_whole(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        single = [engine.submit(event(name="Open", user=f"u{n}")) for n in range(TICK_EVENTS - 1)]
        whole = engine.submit(*(event(name=f"{n:03}", user="ada") for n in range(40)))
        last = engine.submit(event(name="Open", user="bob"))
        first = engine.lane._next()  # before the lane's own tasks had a turn
        assert [pending.reply for pending in first.events] == [*single, *[whole] * 40]
        engine.lane._carried.extend(first.events)
        async with asyncio.timeout(30):
            await asyncio.gather(*(reply.done for reply in (*single, whole, last)))


async def test_a_closed_lane_ends_what_it_has(postgres_dsn: str) -> None:
    async with lanes.engine(postgres_dsn) as engine:
        await engine.send(arrival("ada"))
        async with held_up(postgres_dsn, "ada"):
            replies = [engine.submit(event(name="First", user="ada"))]
            await waits_for_the_lock(postgres_dsn)
            replies += [engine.submit(event(name="Second", user="ada")), engine.submit(arrival("bob"))]
            engine.lane.close()
        async with asyncio.timeout(30):
            await asyncio.gather(*(reply.done for reply in replies))
