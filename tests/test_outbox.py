"""The outbox on a real PostgreSQL: who holds a row, and who may settle it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from engine.adapters.postgres.faults import Unavailable
from engine.adapters.postgres.outbox import Outbox
from engine.domain.offers.delivery import (
    Delivered,
    Failed,
    Retry,
    Send,
    Stop,
    Verdict,
    dropped,
    released,
    settlement,
)
from engine.domain.people.events import Event, Sender
from tests.sends import NOW, TOKEN, a_send, commit

LATER = timedelta(minutes=5)


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as opened:
        yield opened


@pytest.fixture
def outbox(pool: asyncpg.Pool) -> Outbox:
    return Outbox(pool)


async def rows(pool: asyncpg.Pool) -> dict[str, Any]:
    return {str(row["id"]): row for row in await pool.fetch("SELECT * FROM outbox")}


async def events(pool: asyncpg.Pool) -> list[Event]:
    found = await pool.fetch("SELECT event FROM timers ORDER BY id")
    return [msgspec.json.decode(row["event"], type=Event) for row in found]


async def one(outbox: Outbox, pool: asyncpg.Pool) -> Send:
    await commit(pool, [a_send(lease="")])
    (send,) = await outbox.claim(10)
    return send


async def expire_leases(pool: asyncpg.Pool) -> None:
    await pool.execute("UPDATE outbox SET leased_until = now() - interval '1 second' WHERE lease IS NOT NULL")


async def test_a_claimed_send_is_what_was_committed(outbox: Outbox, pool: asyncpg.Pool) -> None:
    committed = a_send(lease="")
    await commit(pool, [committed])
    (send,) = await outbox.claim(10)
    assert send.lease
    assert msgspec.structs.replace(send, lease="") == committed
    assert await outbox.claim(10) == []


async def test_a_row_leased_by_its_commit_is_nobody_elses_until_then(
    outbox: Outbox, pool: asyncpg.Pool
) -> None:
    await commit(pool, [a_send()])
    assert await outbox.claim(10) == []
    await expire_leases(pool)
    (send,) = await outbox.claim(10)
    assert send.possible_duplicate
    assert send.attempts == 0


async def test_two_senders_never_hold_the_same_row(outbox: Outbox, pool: asyncpg.Pool) -> None:
    await commit(pool, [a_send(n, lease="") for n in range(200)])
    claims = await asyncio.gather(*(outbox.claim(30) for _ in range(12)))
    held = [send.id for claim in claims for send in claim]
    rest = [send.id for send in await outbox.claim(200)]
    assert len(held) + len(rest) == 200
    assert len({*held, *rest}) == 200


async def test_a_claim_does_not_wait_for_a_row_that_somebody_else_has_locked(
    outbox: Outbox, pool: asyncpg.Pool
) -> None:
    await commit(pool, [a_send(n, lease="") for n in range(3)])
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM outbox WHERE id = $1 FOR UPDATE", a_send(1).id)
        async with asyncio.timeout(2.0):
            assert {send.id for send in await outbox.claim(10)} == {a_send(0).id, a_send(2).id}


async def test_other_providers_are_left_to_others_until_they_expire(
    outbox: Outbox, pool: asyncpg.Pool
) -> None:
    await commit(pool, [a_send(0, lease=""), a_send(1, lease="", provider="apns")])
    (send,) = await outbox.claim(10, ["apns"], NOW)
    assert send.provider == "apns"
    assert await outbox.claim(10, ["apns"], send.expires_at - timedelta(seconds=1)) == []
    (expired,) = await outbox.claim(10, ["apns"], send.expires_at)
    assert expired.provider == "fcm"


@pytest.mark.parametrize(
    ("verdict", "state", "attempts", "result", "name"),
    [
        (Delivered(), "sent", 1, {}, "Offer Delivered"),
        (
            Failed(code="UNREGISTERED", forget_token=True),
            "dropped",
            1,
            {"code": "UNREGISTERED"},
            "Offer Failed",
        ),
        (Failed(code="INVALID_ARGUMENT"), "dead", 1, {"code": "INVALID_ARGUMENT"}, "Offer Failed"),
        (Retry(code="UNAVAILABLE", after=LATER), "pending", 1, {"code": "UNAVAILABLE"}, None),
        (Stop(code="SENDER_ID_MISMATCH"), "pending", 1, {"code": "SENDER_ID_MISMATCH"}, None),
    ],
    ids=["delivered", "unregistered", "invalid", "unavailable", "mismatch"],
)
async def test_a_verdict_becomes_a_row_and_an_event(
    outbox: Outbox,
    pool: asyncpg.Pool,
    verdict: Verdict,
    state: str,
    attempts: int,
    result: dict[str, str],
    name: str | None,
) -> None:
    send = await one(outbox, pool)
    assert await outbox.settle([settlement(send, verdict, NOW)], NOW) == []
    row = (await rows(pool))[send.id]
    assert (row["state"], row["attempts"], row["lease"]) == (state, attempts, None)
    assert msgspec.json.decode(row["result"]) == result
    assert (row["settled_at"] is not None) == (state != "pending")
    assert [event.name for event in await events(pool)] == ([name] if name else [])
    assert await outbox.claim(10) == []  # final, or not due yet


async def test_the_outcome_is_an_event_of_the_engine_due_at_once(outbox: Outbox, pool: asyncpg.Pool) -> None:
    send = await one(outbox, pool)
    await outbox.settle([settlement(send, Failed(code="UNREGISTERED", forget_token=True), NOW)], NOW)
    (timer,) = await pool.fetch("SELECT * FROM timers")
    assert (timer["bucket"], str(timer["profile_id"])) == (send.bucket, send.profile_id)
    assert (timer["id"], timer["due_at"]) == (f"delivery:{send.id}", NOW)
    (event,) = await events(pool)
    assert (event.sender, event.message_id) == (Sender.ENGINE, f"delivery:{send.id}")
    assert TOKEN not in timer["event"]


async def test_a_settlement_under_a_stale_lease_is_refused_and_the_others_stand(
    outbox: Outbox, pool: asyncpg.Pool
) -> None:
    await commit(pool, [a_send(n, lease="") for n in range(2)])
    stale, good = await outbox.claim(10)
    await pool.execute("UPDATE outbox SET leased_until = now() - interval '1s' WHERE id = $1", stale.id)
    (newer,) = await outbox.claim(10)
    late = settlement(stale, Delivered(), NOW)
    assert await outbox.settle([late, settlement(good, Delivered(), NOW)], NOW) == [late]
    assert (await rows(pool))[stale.id]["state"] == "pending"
    assert len(await events(pool)) == 1
    # Both of them in one statement: the holder's counts.
    assert await outbox.settle([late, settlement(newer, Delivered(), NOW)], NOW) == [late]
    assert (await rows(pool))[stale.id]["state"] == "sent"
    assert len(await events(pool)) == 2


async def test_settling_again_changes_nothing(outbox: Outbox, pool: asyncpg.Pool) -> None:
    send = await one(outbox, pool)
    first = settlement(send, Delivered(), NOW)
    assert await outbox.settle([first], NOW) == []
    assert await outbox.settle([first], NOW) == [first]
    assert len(await events(pool)) == 1


async def test_what_may_have_arrived_stays_marked_to_the_end(outbox: Outbox, pool: asyncpg.Pool) -> None:
    send = await one(outbox, pool)
    lost = Retry(code="timeout", after=timedelta(), ambiguous=True)
    await outbox.settle([settlement(send, lost, NOW)], NOW)
    (again,) = await outbox.claim(10)
    assert (again.attempts, again.possible_duplicate) == (1, True)
    await outbox.settle([settlement(again, Delivered(), NOW)], NOW)
    result = (await rows(pool))[send.id]["result"]
    assert msgspec.json.decode(result) == {"code": "timeout", "possible_duplicate": True}


async def test_a_released_send_is_free_at_once_and_no_duplicate(outbox: Outbox, pool: asyncpg.Pool) -> None:
    send = await one(outbox, pool)
    await outbox.settle([released(send)], NOW)
    (again,) = await outbox.claim(10)
    assert (again.attempts, again.possible_duplicate) == (0, False)
    assert await outbox.settle([dropped(again, "no_consent", NOW)], NOW) == []
    assert (await rows(pool))[send.id]["state"] == "dropped"


async def test_an_operator_sees_the_dead_and_revives_them(outbox: Outbox, pool: asyncpg.Pool) -> None:
    send = await one(outbox, pool)
    assert not await outbox.requeue(send.id)  # not dead
    await outbox.settle([settlement(send, Failed(code="INVALID_ARGUMENT"), NOW)], NOW)
    (letter,) = await outbox.dead(10)
    assert (letter.id, letter.code, letter.attempts) == (send.id, "INVALID_ARGUMENT", 1)
    assert await outbox.dead(10, before=letter.settled_at) == []
    assert await outbox.counts() == {("dead", "fcm"): 1}
    assert await outbox.requeue(send.id, NOW + timedelta(hours=9))
    assert await outbox.dead(10) == []
    (revived,) = await outbox.claim(10)
    assert (revived.attempts, revived.requeues) == (0, 1)
    assert revived.expires_at == NOW + timedelta(hours=9)
    await outbox.settle([settlement(revived, Delivered(), NOW)], NOW)
    assert [event.name for event in await events(pool)] == ["Offer Failed", "Offer Delivered"]


async def test_a_row_that_cannot_be_read_is_dead_and_holds_nobody_up(
    outbox: Outbox, pool: asyncpg.Pool
) -> None:
    await commit(pool, [a_send(n, lease="") for n in range(2)])
    await pool.execute("""UPDATE outbox SET payload = '{"token": 5}' WHERE id = $1""", a_send(0).id)
    assert [send.id for send in await outbox.claim(10)] == [a_send(1).id]
    (letter,) = await outbox.dead(10)
    assert letter.code == "unreadable"


async def test_a_database_that_is_away_is_said_so(outbox: Outbox, pool: asyncpg.Pool) -> None:
    await pool.close()
    with pytest.raises(Unavailable):
        await outbox.claim(10)
