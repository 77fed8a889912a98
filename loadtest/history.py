"""Backtest against a recorded past: is every decision made again, and how fast?

A past is lived through first: people of the sample workspace walk, buy and come back, through a real lane
into a real database. Then other rules are tried on it beside the active ones, and the active ones beside
themselves.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from engine.adapters.postgres import embedded
from engine.adapters.postgres.migrations import migrate
from engine.adapters.postgres.store import connect
from engine.app import rulesets
from engine.app.backtest import Trial
from engine.app.backtest_workers import Result, Work, run, workers_for
from engine.app.cache import ProfileCache
from engine.app.lane import Lane
from engine.app.replies import Pending, Reply
from engine.app.ruling import Ruling
from engine.app.tick import Pipeline
from engine.app.timers import Timers
from engine.domain.people import identity
from engine.domain.people.events import Device, Event, Kind, Location

PROJECT = Path(__file__).parent.parent
PEOPLE = 2_000
AT_ONCE = 500
BEGAN = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Other rules beside the active ones, whose decisions are on record; then the active rules beside
    themselves, where every decision is made again. Seconds are of the whole, and of all processors."""

    events: int
    workers: int
    recorded: int
    reproduced: int
    differing: int
    seconds: float
    processor_seconds: float
    events_per_second: float
    events_per_processor_second: float
    verify_seconds: float
    verify_events_per_second: float


def measure(events: int, progress: Callable[[str], None]) -> Report:
    """Lives through `events`, and tries the active rules on them."""
    ruling = rulesets.check(PROJECT / "rules", PROJECT / "models").ruling
    assert ruling is not None
    with tempfile.TemporaryDirectory(prefix="viewfinder-history-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = embedded.start(folder, durable=False)
        try:
            secret = asyncio.run(_lived(server.dsn, ruling, events, progress))
            progress("trying other rules")
            workers = workers_for(events)
            result, seconds, busy = _try(server.dsn, ruling, secret, workers, other=True)
            progress("trying the active rules")
            again, verifying, _ = _try(server.dsn, ruling, secret, workers, other=False)
        finally:
            server.stop()
    told, found = result.count.events, again.count.agreement
    return Report(
        events=told,
        workers=workers,
        recorded=found.recorded,
        reproduced=found.reproduced,
        differing=found.differing + found.missing + found.unknown + sum(again.count.left_out.values()),
        seconds=seconds,
        processor_seconds=busy,
        events_per_second=told / seconds,
        events_per_processor_second=told / busy,
        verify_seconds=verifying,
        verify_events_per_second=told / verifying,
    )


async def _lived(dsn: str, ruling: Ruling, events: int, progress: Callable[[str], None]) -> bytes:
    await migrate(dsn)
    progress("living")
    secret = await _live(dsn, ruling, events)
    return secret


def _try(
    dsn: str, ruling: Ruling, secret: bytes, workers: int, *, other: bool
) -> tuple[Result, float, float]:
    """The result, the seconds, and the processors' seconds but the database's."""
    tried = Ruling(msgspec.structs.replace(ruling.rules, revision="other"), ruling.models)
    trial = Trial(
        active=ruling,
        tried=tried if other else ruling,
        ruling_of=lambda revision: ruling if revision == ruling.rules.revision else None,
        since=BEGAN,
        until=BEGAN,
        suppressed_since=BEGAN,
        secret=secret,
    )
    work = Work(dsn=dsn, trial=trial, namespaces=(ruling.rules.workspace.namespaces,))
    started, busy = time.perf_counter(), _processor_seconds()
    result = run(work, workers, lambda _: None)
    return result, time.perf_counter() - started, _processor_seconds() - busy


def _processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


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
    found.add_row("processes", f"{report.workers}")
    found.add_row("events/s, other rules beside the record", f"{report.events_per_second:,.0f}")
    found.add_row("events per second of a processor", f"{report.events_per_processor_second:,.0f}")
    found.add_row("events/s, every decision made again", f"{report.verify_events_per_second:,.0f}")
    return found
