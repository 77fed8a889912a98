"""The sender on a real PostgreSQL, with a server that speaks FCM v1, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from engine.adapters.postgres.outbox import Outbox
from engine.app.demo import fcm_answers
from engine.domain.offers.delivery import MAX_ATTEMPTS, Send, Verdict
from engine.domain.offers.pauses import Pause, What, paused
from tests.senders import IMPATIENT, QUICK, House, Other, Refusals, a_house, all_permitted, sample
from tests.sends import NOW, TOKEN, a_send, commit


@pytest.fixture
async def house(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(postgres_dsn, tmp_path) as opened:
        yield opened


async def test_what_was_committed_goes_out_and_its_profile_hears_of_it(house: House) -> None:
    sends = [a_send(n) for n in range(120)]
    await commit(house.pool, sends)
    async with house.sender() as sender:
        sender.take(sends)
        assert await sender.drain(30.0)
    assert sorted(m["data"]["decision"] for m in house.fcm.messages) == sorted(s.id for s in sends)
    assert set((await house.states()).values()) == {"sent"}
    assert await house.pool.fetchval("SELECT count(*) FROM timers") == 120
    # Settled together: far fewer statements than sends.
    assert 1 <= house.woken < 60


async def test_what_a_dead_engine_left_goes_out_when_its_lease_is_over(house: House) -> None:
    send = a_send()
    await commit(house.pool, [send])
    async with house.sender():
        await asyncio.sleep(0.1)
        assert not house.fcm.messages
        await house.lapse()
        await house.until_settled()
    assert len(house.fcm.messages) == 1


async def test_an_expired_send_is_dropped_and_not_sent(house: House) -> None:
    send = msgspec.structs.replace(a_send(), expires_at=NOW)
    await commit(house.pool, [send])
    async with house.sender() as sender:
        sender.take([send])
        await house.until_settled()
    assert house.fcm.asked == 0
    row = await house.row(send)
    assert (row["state"], msgspec.json.decode(row["result"])["code"]) == ("dropped", "expired")
    event = msgspec.json.decode(await house.pool.fetchval("SELECT event FROM timers"))
    assert (event["name"], event["properties"]["reason"]) == ("Offer Failed", "expired")


@pytest.mark.parametrize(
    ("what", "name"), [("rule", "near"), ("offer", "latte"), ("channel", "push"), ("all", "")]
)
async def test_what_is_paused_waits_and_goes_out_when_it_may(house: House, what: What, name: str) -> None:
    """Whether it was queued in the engine or lies in the outbox; what expires meanwhile is dropped."""
    stop = paused([Pause(id="1", what=what, name=name, since=NOW)])
    others = paused([Pause(id="2", what="rule", name="another", since=NOW)])
    standing = [stop]
    taken, lying = a_send(0), a_send(1, lease="")
    over = msgspec.structs.replace(a_send(2, lease=""), expires_at=NOW)
    await commit(house.pool, [taken, lying, over])
    async with house.sender(paused=lambda: standing[0]) as sender:
        sender.take([taken])
        await house.until("SELECT state = 'dropped' FROM outbox WHERE id = $1", over.id)
        await house.until("SELECT lease IS NULL FROM outbox WHERE id = $1", taken.id)
        assert {(await house.row(one))["state"] for one in (taken, lying)} == {"pending"}
        assert house.fcm.asked == 0
        standing[0] = others
        sender.wake()
        await house.until_settled()
    assert sorted(m["data"]["decision"] for m in house.fcm.messages) == sorted([taken.id, lying.id])


async def test_consent_withdrawn_after_queueing_stops_the_push(house: House) -> None:
    sends = [a_send(n, lease="") for n in range(3)]

    async def permits(asked: Sequence[Send]) -> Refusals:
        # The third is not in the answer at all: what nobody allowed does not go out.
        return {sends[0].id: None, sends[1].id: "no_consent"}

    await commit(house.pool, sends)
    async with house.sender(permits=permits):
        await house.until_settled()
    assert [m["data"]["decision"] for m in house.fcm.messages] == [sends[0].id]
    row = await house.row(sends[1])
    assert (row["state"], msgspec.json.decode(row["result"])["code"]) == ("dropped", "no_consent")


async def test_permissions_are_asked_in_batches_and_when_unknown_nothing_goes_out(house: House) -> None:
    asked: list[int] = []

    async def permits(sends: Sequence[Send]) -> Refusals:
        asked.append(len(sends))
        if len(asked) == 1:
            raise ConnectionError
        return await all_permitted(sends)

    sends = [a_send(n) for n in range(40)]
    await commit(house.pool, sends)
    async with house.sender(permits=permits) as sender:
        sender.take(sends)
        await sender.drain(30.0)
        assert asked == [40]
        assert house.fcm.asked == 0
        await house.until_settled()
    assert len(house.fcm.messages) == 40
    assert len(asked) < 20


async def test_a_push_without_a_provider_gives_its_cap_back(house: House) -> None:
    """Once it has expired: until then another engine may have the provider."""
    send = a_send(lease="", provider="apns")
    later = a_send(1, lease="", provider="apns")
    await commit(house.pool, [msgspec.structs.replace(send, expires_at=NOW), later])
    async with house.sender():
        await house.until("SELECT state = 'dropped' FROM outbox WHERE id = $1", send.id)
    assert (await house.row(later))["state"] == "pending"
    event = msgspec.json.decode(await house.pool.fetchval("SELECT event FROM timers"))
    assert (event["name"], event["properties"]["reason"]) == ("Offer Failed", "no_provider")


async def test_an_unwell_provider_is_retried_until_it_takes_the_push(house: House) -> None:
    house.fcm.script(fcm_answers.UNAVAILABLE, fcm_answers.HTML_502, fcm_answers.quota_exceeded(0))
    send = a_send()
    await commit(house.pool, [send])
    async with house.sender() as sender:
        sender.take([send])
        for attempt in (1, 2, 3):
            await house.until("SELECT attempts = $1 FROM outbox", attempt)
            await house.due_now()
        await house.until_settled()
    row = await house.row(send)
    assert (row["state"], row["attempts"], len(house.fcm.messages)) == ("sent", 4, 1)


async def test_retry_after_is_when_the_row_is_due_again(house: House) -> None:
    house.fcm.script(fcm_answers.quota_exceeded(120))
    send = a_send()
    await commit(house.pool, [send])
    async with house.sender() as sender:
        sender.take([send])
        await sender.drain(30.0)
    wait = await house.pool.fetchval("SELECT due_at - now() FROM outbox")
    assert timedelta(seconds=118) < wait <= timedelta(seconds=120)


async def test_poison_goes_dead_and_the_queue_moves_on(house: House) -> None:
    house.fcm.always(fcm_answers.INTERNAL, token="poison")
    poison = msgspec.structs.replace(a_send(0, token="poison"), attempts=MAX_ATTEMPTS - 1)
    healthy = [a_send(n) for n in range(1, 20)]
    await commit(house.pool, [poison, *healthy])
    async with house.sender() as sender:
        sender.take([poison, *healthy])
        await house.until_settled()
        assert len(house.fcm.messages) == 19
        (letter,) = await Outbox(house.pool).dead(5)
        assert (letter.id, letter.code, letter.attempts) == (poison.id, "INTERNAL", MAX_ATTEMPTS)
        house.fcm.always(None, token="poison")
        assert await Outbox(house.pool).requeue(poison.id)
        await house.until_settled()
    assert set((await house.states()).values()) == {"sent"}


async def test_a_refusal_of_us_stops_the_provider_with_an_alarm_and_keeps_the_token(house: House) -> None:
    house.fcm.always(fcm_answers.SENDER_ID_MISMATCH)
    first, second = a_send(0), a_send(1)
    await commit(house.pool, [first, second])
    before = sample("viewfinder_provider_alarms_total", provider="fcm", code="SENDER_ID_MISMATCH")
    with capture_logs() as logs:
        async with house.sender() as sender:
            sender.take([first])
            await sender.drain(30.0)
            sender.take([second])
            await sender.drain(30.0)
            await asyncio.sleep(0.05)
    assert house.fcm.asked == 1
    assert sample("viewfinder_provider_alarms_total", provider="fcm", code="SENDER_ID_MISMATCH") == before + 1
    assert [entry["code"] for entry in logs if entry["event"] == "provider_stopped"] == ["SENDER_ID_MISMATCH"]
    assert await house.pool.fetchval("SELECT count(*) FROM timers") == 0
    waiting = await house.pool.fetch("SELECT attempts, due_at > now() + interval '50s' AS later FROM outbox")
    assert sorted((row["attempts"], row["later"]) for row in waiting) == [(0, True), (1, True)]
    assert TOKEN not in repr(logs)


async def test_a_provider_that_hangs_leaves_the_others_working_and_is_probed(house: House) -> None:
    house.fcm.always(fcm_answers.HANG)
    stuck = [a_send(n) for n in range(150)]
    fine = [a_send(n, provider="other") for n in range(1000, 1040)]
    await commit(house.pool, [*stuck, *fine])
    other = Other()
    async with house.sender(pace=IMPATIENT, other=other) as sender:
        sender.take([*stuck, *fine])
        await house.until("SELECT count(*) = 40 FROM outbox WHERE state = 'sent'")
        # The breaker opened: of 150, only those went out that were under way at first, and probes.
        await house.until(
            "SELECT count(*) = 0 FROM outbox WHERE attempts = 0 AND lease IS NOT NULL AND state = 'pending'"
        )
        assert house.fcm.asked < 60
        house.fcm.always(None)
        await house.due_now()
        await house.until("SELECT count(*) > 50 FROM outbox WHERE state = 'sent'")
        async with asyncio.timeout(30.0):
            while any(state == "pending" for state in (await house.states()).values()):
                await house.due_now()
                await asyncio.sleep(0.05)
    assert set((await house.states()).values()) == {"sent"}
    assert other.taken[-1] == "closed"


async def test_an_adapter_that_raises_costs_one_attempt_and_shows_nothing(house: House) -> None:
    class Broken(Other):
        async def deliver(self, send: Send, ttl: timedelta, jitter: float) -> Verdict:
            raise ValueError(send.payload.token)

    send = a_send(provider="broken")
    await commit(house.pool, [send])
    with capture_logs() as logs:
        async with house.sender(broken=Broken()) as sender:
            sender.take([send])
            await sender.drain(30.0)
    row = await house.row(send)
    assert (row["state"], row["attempts"]) == ("pending", 1)
    assert [entry["fault"] for entry in logs if entry["event"] == "adapter_failed"] == ["ValueError"]
    assert TOKEN not in repr(logs)


async def test_a_full_queue_takes_no_more_and_the_rest_waits_for_its_lease(house: House) -> None:
    sends = [a_send(n) for n in range(30)]
    await commit(house.pool, sends)
    pace = msgspec.structs.replace(QUICK, queued=10)
    async with house.sender(pace=pace) as sender:
        sender.take(sends)
        await sender.drain(30.0)
        assert len(house.fcm.messages) == 10
        await house.lapse()
        await house.until_settled()
    assert len(house.fcm.messages) == 30


async def test_a_lease_about_to_end_is_given_up_instead_of_used(house: House) -> None:
    send = a_send()
    await commit(house.pool, [send])
    short = msgspec.structs.replace(QUICK, lease_seconds=11.0, claim_every_seconds=60.0)
    async with house.sender(pace=short) as sender:
        await asyncio.sleep(0.05)  # the first claim is over
        sender.take([send])
        await sender.drain(30.0)
        assert house.fcm.asked == 0
    row = await house.row(send)
    assert (row["state"], row["attempts"], row["lease"]) == ("pending", 0, None)


async def test_stopping_gives_back_what_waits_and_lets_finish_what_flies(house: House) -> None:
    house.fcm.always(fcm_answers.HANG, token="slow")
    flying = [a_send(n, token="slow") for n in range(2)]
    waiting = [a_send(n) for n in range(2, 6)]
    await commit(house.pool, [*flying, *waiting])
    pace = msgspec.structs.replace(IMPATIENT, in_flight=2)
    async with house.sender(pace=pace) as sender:
        sender.take([*flying, *waiting])
        async with asyncio.timeout(30.0):
            while house.fcm.asked < 2:
                await asyncio.sleep(0.01)
    rows = {str(r["id"]): r for r in await house.pool.fetch("SELECT * FROM outbox")}
    assert house.fcm.asked == 2
    for send in flying:  # ended by its deadline, and settled so
        assert msgspec.json.decode(rows[send.id]["result"])["code"] == "timeout"
    for send in waiting:
        assert (rows[send.id]["attempts"], rows[send.id]["lease"]) == (0, None)


SETTLING = """SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '%unnest%')"""


async def test_a_database_that_goes_away_holds_the_outcome_and_starts_nothing_new(house: House) -> None:
    sends = [a_send(n) for n in range(3)]
    await commit(house.pool, sends)
    async with house.sender() as sender:
        async with house.pool.acquire() as other, other.transaction():
            await other.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            sender.take(sends[:1])
            await house.fcm.arrived(1)
            async with asyncio.timeout(30.0):
                while not await house.pool.fetchval(SETTLING):
                    await asyncio.sleep(0.01)
            killed = await other.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )
            assert killed >= 1
        sender.take(sends[1:])
        await house.until_settled()
    assert len(house.fcm.messages) == 3
    assert await house.pool.fetchval("SELECT count(*) FROM timers") == 3
