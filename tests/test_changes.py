"""Queues of what receivers are told, on a real PostgreSQL: nothing is lost, and nobody's order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from engine.adapters.postgres.changes import Changes, Settled
from engine.adapters.postgres.rows import ChangeRow
from engine.adapters.postgres.store import Store, connect, put_changes
from engine.app.sharing import Pace, Sharing
from engine.domain.offers.delivery import Delivered, Retry, Verdict
from engine.domain.sharing.receivers import Letter

QUICK = Pace(claim_every_seconds=0.05, messages=3, in_flight=5, open_seconds=0.2, database_pause_seconds=0.05)
SOON = timedelta(milliseconds=20)
HERE = "crm"


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[Store]:
    opened = await connect(postgres_dsn)
    yield opened
    await opened.close()


def row(person: int, position: int, receiver: str = HERE, kind: str = "decision.made") -> ChangeRow:
    return ChangeRow(
        unit=0,
        bucket=person,
        profile_id=str(UUID(int=person + (person << 120))),
        receiver=receiver,
        position=position,
        id=str(UUID(int=person * 1000 + position)),
        topic="profiles" if kind.startswith("profile") else "decisions",
        body=msgspec.Raw(msgspec.json.encode({"type": kind, "n": [person, position]})),
    )


async def commit(store: Store, *rows: ChangeRow) -> None:
    async with store.pool.acquire() as connection, connection.transaction():
        await put_changes(connection, rows)


async def everybody(_: str, ids: Sequence[str]) -> Mapping[str, str | None]:
    return dict.fromkeys(ids)


class Listener:
    """A receiver in memory, which fails as often as it is told to."""

    def __init__(self, failing: float = 0.0, hangs: bool = False) -> None:
        self.told: list[tuple[int, int]] = []
        self.failing = failing
        self.hangs = hangs
        self.random = random.Random(7)

    async def tell(self, letter: Letter, jitter: float) -> Verdict:
        await asyncio.sleep(3600 if self.hangs else self.random.random() / 200)
        if self.random.random() < self.failing:
            return Retry(code="http_500", after=SOON * jitter)
        person, position = msgspec.json.decode(letter.body)["n"]
        self.told.append((person, position))
        return Delivered()

    async def aclose(self) -> None:
        self.told.append((-1, -1))


async def all_told(store: Store) -> None:
    async with asyncio.timeout(120):
        while await store.pool.fetch("SELECT 1 FROM change_queues UNION ALL SELECT 1 FROM changes"):
            await asyncio.sleep(0.02)


async def test_engines_that_interfere_lose_nothing_and_nobodys_order(store: Store) -> None:
    """Two engines tell one receiver while commits go on, in every order that time gives."""
    listener = Listener(failing=0.3)
    engines = [Sharing(Changes(store.pool), everybody, pace=QUICK) for _ in range(2)]
    for engine in engines:
        engine.open(HERE, listener)

    async def lives(person: int) -> None:
        shuffled = random.Random(person)
        position = 0
        while position < 20:
            several = shuffled.randint(1, 3)
            await commit(store, *(row(person, position + n) for n in range(several)))
            position += several
            engines[person % 2].wake([HERE])
            await asyncio.sleep(shuffled.random() / 50)

    await asyncio.gather(*(lives(person) for person in range(25)))
    await all_told(store)
    for engine in engines:
        await engine.stop()
    for person in range(25):
        positions = [p for who, p in listener.told if who == person]
        assert list(dict.fromkeys(positions)) == sorted(set(positions))
        assert len(set(positions)) >= 20
    assert listener.told.count((-1, -1)) == 2


async def test_one_that_hangs_holds_up_nobody_else(store: Store) -> None:
    engine = Sharing(Changes(store.pool), everybody, pace=QUICK)
    hanging, quick = Listener(hangs=True), Listener()
    engine.open("slow", hanging)
    engine.open(HERE, quick)
    people = range(60)
    await commit(store, *(row(person, 0, receiver) for person in people for receiver in ("slow", HERE)))
    async with asyncio.timeout(60):
        while len(quick.told) < len(people):
            await asyncio.sleep(0.02)
    await engine.stop(0.1)


async def test_what_comes_while_a_queue_ends_is_not_forgotten(store: Store) -> None:
    changes = Changes(store.pool)
    await commit(store, row(1, 1))
    (queue,) = await changes.claim(HERE, 10, 10, timedelta(seconds=30))
    assert await changes.claim(HERE, 10, 10, timedelta(seconds=30)) == []
    await commit(store, row(1, 2))
    settled = Settled(queue=queue, told=(1,))
    assert settled.drained
    await changes.settle(HERE, [settled])
    (queue,) = await changes.claim(HERE, 10, 10, timedelta(seconds=30))
    assert [one.position for one in queue.messages] == [2]
    # At the very same moment: the commit is there, and not yet visible, when the queue is to end.
    async with store.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await put_changes(connection, [row(1, 3)])
        ending = asyncio.create_task(changes.settle(HERE, [Settled(queue=queue, told=(2,))]))
        await asyncio.sleep(0.2)
        assert not ending.done()
        await transaction.commit()
        await ending
    (queue,) = await changes.claim(HERE, 10, 10, timedelta(seconds=30))
    assert [one.position for one in queue.messages] == [3]
    await changes.settle(HERE, [Settled(queue=queue, told=(3,))])
    assert await store.pool.fetch("SELECT 1 FROM change_queues") == []


async def test_a_lease_that_is_over_settles_nothing(store: Store) -> None:
    changes = Changes(store.pool)
    await commit(store, row(1, 1))
    (old,) = await changes.claim(HERE, 1, 1, timedelta())
    (new,) = await changes.claim(HERE, 1, 1, timedelta(seconds=30))
    await changes.settle(HERE, [Settled(queue=old, told=(), attempts=9, delay=timedelta(days=1))])
    (kept,) = await store.pool.fetch("SELECT attempts, lease FROM change_queues")
    assert (kept["attempts"], str(kept["lease"])) == (0, new.lease)


async def test_one_that_dies_lets_the_next_one_go_and_comes_back(store: Store) -> None:
    changes = Changes(store.pool)
    await commit(store, row(1, 1), row(1, 2))
    (queue,) = await changes.claim(HERE, 1, 10, timedelta(seconds=30))
    await changes.settle(HERE, [Settled(queue=queue, told=(), died=(1, "http_400"), code="http_400")])
    (dead,) = await changes.dead(HERE, 10)
    assert (dead.id, dead.code, dead.type) == (str(UUID(int=1001)), "http_400", "decision.made")
    assert await changes.counts() == {(HERE, "waiting"): 1, (HERE, "dead"): 1}
    (queue,) = await changes.claim(HERE, 1, 10, timedelta(seconds=30))
    assert [one.position for one in queue.messages] == [2]
    assert await changes.requeue("another") == 0
    assert await changes.requeue(HERE, UUID(dead.id)) == 1
    await changes.settle(HERE, [Settled(queue=queue, told=(2,))])  # whatever was revived meanwhile stays
    (queue,) = await changes.claim(HERE, 1, 10, timedelta(seconds=30))
    assert [one.position for one in queue.messages] == [1]
    await changes.forget(HERE)
    assert await store.pool.fetch("SELECT 1 FROM changes UNION ALL SELECT 1 FROM change_queues") == []


async def test_who_said_no_meanwhile_is_not_told_of(store: Store) -> None:
    refused = False

    async def refusals(_: str, ids: Sequence[str]) -> Mapping[str, str | None]:
        return dict.fromkeys(ids, "no_consent" if refused else None)

    listener = Listener(failing=1.0)
    pace = msgspec.structs.replace(QUICK, permitted_seconds=0.0)
    engine = Sharing(Changes(store.pool), refusals, pace=pace)
    engine.open(HERE, listener)
    await commit(store, *(row(person, n) for person in range(5) for n in range(10)))
    await asyncio.sleep(0.2)
    refused, listener.failing = True, 0.0
    await all_told(store)
    await engine.stop()
    # Those that were on their way at that moment, one of each person.
    assert all(position == 0 for who, position in listener.told if who >= 0)


async def test_only_the_last_of_several_states_is_told(store: Store) -> None:
    kinds = ["profile.changed"] * 3 + [
        "decision.made",
        "profile.changed",
        "profile.changed",
        "profile.merged",
    ]
    await commit(store, *(row(1, n, kind=kind) for n, kind in enumerate(kinds)))
    listener = Listener()
    engine = Sharing(Changes(store.pool), everybody, pace=msgspec.structs.replace(QUICK, messages=20))
    engine.open(HERE, listener)
    await all_told(store)
    await engine.stop()
    assert [n for who, n in listener.told if who == 1] == [2, 3, 5, 6]


async def test_what_nobody_revives_goes_in_the_end(store: Store) -> None:
    changes = Changes(store.pool)
    await commit(store, row(1, 1), row(2, 1))
    (queue, _) = await changes.claim(HERE, 2, 10, timedelta(seconds=30))
    await changes.settle(HERE, [Settled(queue=queue, told=(), died=(1, "x"))])
    (now,) = await store.pool.fetch("SELECT now() + interval '1 minute' AS at")
    await changes.expire(now["at"])  # the receiver of the other one is none
    assert await store.pool.fetch("SELECT 1 FROM changes") == []
