"""What engines on one database tell each other: PostgreSQL's LISTEN and NOTIFY, on one channel.

A notice only says that there is something to look at. Those sent while the connection is down are
lost, so that whoever listens looks by itself now and then too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog

CHANNEL = "viewfinder"
AGAIN_SECONDS = 1.0

log = structlog.get_logger()


async def listen(dsn: str, told: Callable[[str], None]) -> None:
    """Calls `told` with each notice's payload, and with "" whenever the connection is made anew.
    Runs until it is cancelled."""
    while True:
        try:
            connection = await asyncpg.connect(dsn, timeout=10.0)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as fault:
            log.warning("notices_unavailable", fault=type(fault).__name__)
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        ended = asyncio.Event()

        def heard(_: Any, __: int, ___: str, payload: object) -> None:
            told(str(payload))

        try:
            connection.add_termination_listener(lambda _, ended=ended: ended.set())
            await connection.add_listener(CHANNEL, heard)
            told("")
            await ended.wait()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as fault:
            log.warning("notices_unavailable", fault=type(fault).__name__)
        finally:
            connection.terminate()
        await asyncio.sleep(AGAIN_SECONDS)
