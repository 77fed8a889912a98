"""A sender whose process is killed, or stopped past its lease, in the middle of a send."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from engine.app.demo import fcm_answers
from tests.senders import House, a_house, sample
from tests.sends import TOKEN, a_send, commit


@pytest.fixture
async def house(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(postgres_dsn, tmp_path) as opened:
        yield opened


CHILD = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path

import asyncpg

from engine.adapters.fcm import Fcm, read_credentials
from engine.adapters.postgres.outbox import Outbox
from engine.app.sender import Pace, Sender
from tests.sends import NOW


async def permits(sends):
    return {send.id: None for send in sends}


async def main(dsn, url, credentials):
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=2)
    sender = Sender(
        outbox=Outbox(pool),
        providers={"fcm": Fcm(read_credentials(Path(credentials)), url=url)},
        permits=permits,
        now=lambda: NOW,
        pace=Pace(claim_every_seconds=0.02),
    )
    await sender.start()
    print("ready", flush=True)
    await asyncio.sleep(60)


asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def another_engine(house: House, dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A sender in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        dsn,
        house.fcm.url,
        str(house.credentials),
        cwd=Path(__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert (await asyncio.wait_for(process.stdout.readline(), 15)).strip() == b"ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_killed_between_acceptance_and_settlement(house: House, postgres_dsn: str) -> None:
    house.fcm.script(fcm_answers.TAKE_AND_HANG)
    send = a_send(lease="")
    async with another_engine(house, postgres_dsn) as process:
        await commit(house.pool, [send])
        await house.fcm.arrived(1)
        process.kill()
        await process.wait()
    before = sample("viewfinder_sends_possible_duplicate_total", provider="fcm")
    async with house.sender():
        await asyncio.sleep(0.05)
        assert len(house.fcm.messages) == 1  # the lease still stands
        await house.lapse()
        await house.until_settled()
    first, second = house.fcm.messages
    assert first["android"]["collapse_key"] == second["android"]["collapse_key"]
    assert first["apns"]["headers"]["apns-collapse-id"] == second["apns"]["headers"]["apns-collapse-id"]
    assert sample("viewfinder_sends_possible_duplicate_total", provider="fcm") == before + 1
    assert msgspec.json.decode((await house.row(send))["result"])["possible_duplicate"] is True
    assert await house.pool.fetchval("SELECT count(*) FROM timers") == 1


async def test_stopped_past_its_lease_and_resumed(house: House, postgres_dsn: str) -> None:
    house.fcm.script(fcm_answers.TAKE_AND_HANG)
    send = a_send(lease="")
    async with another_engine(house, postgres_dsn) as process:
        await commit(house.pool, [send])
        await house.fcm.arrived(1)
        os.kill(process.pid, signal.SIGSTOP)
        await house.lapse()
        # Now another engine takes the row over and is told to wait long.
        house.fcm.script(fcm_answers.quota_exceeded(600))
        async with house.sender():
            await house.until("SELECT attempts = 1 AND lease IS NULL FROM outbox")
        before = await house.row(send)
        assert process.stdout is not None
        house.fcm.let_go()  # the answer to the first attempt: delivered
        os.kill(process.pid, signal.SIGCONT)
        refused = await asyncio.wait_for(process.stdout.readline(), 5)
    assert b"settlement_refused" in refused
    assert TOKEN.encode() not in refused
    assert await house.row(send) == before
    assert await house.pool.fetchval("SELECT count(*) FROM timers") == 0
