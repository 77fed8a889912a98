"""Backtest against a recorded past: is every decision made again, and how fast?

A past is lived through first: people of the sample workspace walk, buy and come back, through a real lane
into a real database. Then the active rules are tried on it, beside themselves.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from rich.table import Table

from engine.adapters.postgres import embedded
from engine.adapters.postgres.history import History
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.store import connect
from engine.app import rulesets
from engine.app.backtest import Agreement, Backtest, play
from engine.app.cache import ProfileCache
from engine.app.lane import Lane
from engine.app.replies import Pending, Reply
from engine.app.ruling import Ruling
from engine.app.tick import Pipeline, is_kept
from engine.app.timers import Timers
from engine.domain.people import identity
from engine.domain.people.events import Device, Event, Kind, Location

PROJECT = Path(__file__).parent.parent
PEOPLE = 2_000
AT_ONCE = 500
BEGAN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`events_per_second` is of one side; a backtest plays two, and the time before it once."""

    events: int
    recorded: int
    reproduced: int
    differing: int
    seconds: float
    events_per_second: float
    side_events_per_second: float


def measure(events: int, progress: Callable[[str], None]) -> Report:
    """Lives through `events`, and tries the active rules on them."""
    ruling = rulesets.check(PROJECT / "rules", PROJECT / "models").ruling
    assert ruling is not None
    with tempfile.TemporaryDirectory(prefix="viewfinder-history-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = embedded.start(folder, durable=False)
        try:
            return asyncio.run(_measure(server.dsn, ruling, events, progress))
        finally:
            server.stop()


async def _measure(dsn: str, ruling: Ruling, events: int, progress: Callable[[str], None]) -> Report:
    await migrate(dsn)
    progress("living")
    secret = await _live(dsn, ruling, events)
    progress("trying")
    connection = await asyncpg.connect(dsn)
    try:
        history = History(connection)
        await history.choose(None)
        total, _ = await history.count(BEGAN)
        backtest = Backtest(
            active=ruling,
            tried=ruling,
            ruling_of=lambda _: ruling,
            since=BEGAN,
            told=await history.told(BEGAN),
            agreement=Agreement(await history.decided(BEGAN, ruling.rules.revision), is_kept),
            secret=secret,
        )
        started = time.perf_counter()
        await play(backtest, history.log(), lambda _: None)
        seconds = time.perf_counter() - started
    finally:
        await connection.close()
    found = backtest.report(("active", "active"))["history"]
    return Report(
        events=total,
        recorded=found["recorded"],
        reproduced=found["reproduced"],
        differing=found["differing"] + found["missing"] + found["unknown"],
        seconds=seconds,
        events_per_second=total / seconds,
        side_events_per_second=2 * total / seconds,
    )


async def _live(dsn: str, ruling: Ruling, events: int) -> bytes:
    store = await connect(dsn)
    secret = await store.secret(bytes(range(32)))
    reading = itertools.count()
    now = [BEGAN]

    def clock() -> datetime:
        return now[0] + timedelta(microseconds=next(reading))

    lane = Lane(
        Pipeline(
            store=store,
            cache=ProfileCache(256 * 1024 * 1024),
            ruling=lambda: ruling,
            clock=clock,
            secret=secret,
            providers=frozenset(),
            take_sends=lambda sends, at: None,
        )
    )
    task = asyncio.create_task(lane.run())
    timers = Timers(store, lane, clock)
    chance = random.Random(7)
    fences = [fence for fence in ruling.rules.fences.values() if hasattr(fence.shape, "latitude")]
    numbers = itertools.count()
    done = 0
    while done < events:
        now[0] += timedelta(seconds=20)
        batch = [_event(chance, fences, now[0], next(numbers)) for _ in range(AT_ONCE)]
        reply = Reply(len(batch))
        namespaces = ruling.rules.workspace.namespaces
        lane.submit(
            [
                Pending(event=e, reply=reply, keys=identity.keys_of(e, namespaces), position=i)
                for i, e in enumerate(batch)
            ]
        )
        await reply.done
        await timers.fire_due()
        done += len(batch)
    lane.close()
    await task
    await store.close()
    return secret


def _event(chance: random.Random, fences: list[Any], at: datetime, number: int) -> Event:
    user = f"u{chance.randrange(PEOPLE)}"
    about: dict[str, Any] = {
        "message_id": f"m{number}",
        "received_at": at,
        "timestamp": at,
        "user_id": user,
    }
    turn = chance.random()
    if turn < 0.1:
        device = Device(id=f"{user}-phone", type="android", token=f"t-{user}")
        consent = {"marketing": True, "location": True}
        return Event(kind=Kind.IDENTIFY, device=device, consent=consent, **about)
    if turn < 0.2:
        properties = {"revenue": round(chance.uniform(1, 60), 2), "currency": "EUR"}
        return Event(kind=Kind.TRACK, name="Order Completed", trusted=True, properties=properties, **about)
    if turn < 0.3:
        return Event(kind=Kind.TRACK, name="Menu Viewed", **about)
    shape = chance.choice(fences).shape
    away = chance.choice((0.0, 0.0, 0.01))
    fix = Location(latitude=shape.latitude + away, longitude=shape.longitude, accuracy=8.0)
    return Event(kind=Kind.TRACK, name="Location Updated", location=fix, **about)


def table(report: Report) -> Table:
    found = Table("backtest", "")
    found.columns[1].justify = "right"
    found.add_row("events recorded", f"{report.events:,}")
    found.add_row("decisions recorded", f"{report.recorded:,}")
    found.add_row("made again, to the byte", f"{report.reproduced:,}")
    found.add_row("otherwise, not, or not on record", f"{report.differing:,}")
    found.add_row("events/s, both sides", f"{report.events_per_second:,.0f}")
    found.add_row("events/s of one side", f"{report.side_events_per_second:,.0f}")
    return found
