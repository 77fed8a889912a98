"""The way of an event through the engine, from a request's body to its answer, without sockets and
database: what the engine's own work costs in processor time, by the number of events in a tick.

The lane, the tick and what decides are the engine's; only the store is one that keeps nothing. Each
figure is the least of many short turns, so that what else the machine does counts little.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from rich.table import Table

from engine.adapters.postgres.rows import Commit
from engine.adapters.postgres.store import Kept, Lost, Session, Store
from engine.app import rulesets
from engine.app.cache import ProfileCache
from engine.app.clock import system_clock
from engine.app.ingest import Ingest
from engine.app.keys import Keys
from engine.app.lane import Lane
from engine.app.requests import RETENTION
from engine.app.responses import Response
from engine.app.tick import Pipeline
from engine.formats.segment import read
from loadtest.results import LoadtestError
from loadtest.servers import MODELS, ROOT, RULES
from loadtest.traffic import BEHIND_SECONDS, WRITE_KEY, Traffic, bodies, introductions, others, places

SIZES: Final = (1, 8, 32, 128)
TURN_EVENTS: Final = 384
TURNS: Final = 60
_SECRET: Final = bytes(range(32))


class WayReport(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of processor time an event: to read it, and all of it by the events in a tick."""

    read_microseconds: float
    microseconds: dict[int, float]


class _Nowhere(Session):
    """Knows nobody, and takes everything."""

    def __init__(self) -> None:
        pass

    async def owners(self, keys: Sequence[Any]) -> dict[Any, str]:
        return {}

    async def profiles(self, ids: Sequence[str]) -> list[Any]:
        return []

    async def commit(self, commit: Commit) -> Lost:
        return Lost(frozenset(), ())


class _KeptNowhere(Kept):
    def __init__(self) -> None:
        pass

    async def __aenter__(self) -> Session:
        return _Nowhere()

    async def __aexit__(self, *_: object) -> None:
        return None

    async def close(self) -> None:
        return None


class _StoreNowhere(Store):
    def __init__(self) -> None:
        pass

    def kept(self) -> Kept:
        return _KeptNowhere()


def measure() -> WayReport:
    """Takes some twenty seconds.

    Raises:
        LoadtestError: an event was answered with anything but 200.
    """
    return asyncio.run(_measure())


async def _measure() -> WayReport:
    checked = rulesets.check(RULES, MODELS)
    ruling = checked.ruling
    if ruling is None:
        raise LoadtestError(f"the workspace in {ROOT} has problems")
    store = _StoreNowhere()
    pipeline = Pipeline(
        store=store,
        cache=ProfileCache(256 * 1024 * 1024),
        ruling=lambda: ruling,
        clock=system_clock,
        secret=_SECRET,
        providers=frozenset(),
        take_sends=lambda sends, at: None,
    )
    lane = Lane(pipeline)
    keys = Keys(frozenset({WRITE_KEY}), frozenset())
    ingest = Ingest(lane=lane, ruling=lambda: ruling, clock=system_clock, keys=keys, store=store)
    traffic = Traffic(
        run=1,
        first=1,
        epoch=int(time.time()) - BEHIND_SECONDS,
        events_per_request=1,
        places=places(RULES),
        others=others(),
    )
    waiting = bodies(traffic)
    running = asyncio.create_task(lane.run())
    await _send(ingest, "batch", list(introductions(traffic)))
    await _send(ingest, "track", list(itertools.islice(waiting, 4_000)))
    gc.collect()
    gc.freeze()  # as the engine does after it has started
    found = {size: await _least(ingest, waiting, size) for size in SIZES}
    lane.close()
    await running
    workspace = ruling.rules.workspace
    texts = list(itertools.islice(waiting, TURN_EVENTS))
    reading = min(_reading(texts, workspace.namespaces) for _ in range(TURNS))
    return WayReport(read_microseconds=reading, microseconds=found)


async def _least(ingest: Ingest, waiting: Iterator[bytes], size: int) -> float:
    least = float("inf")
    for _ in range(TURNS):
        texts = list(itertools.islice(waiting, TURN_EVENTS))
        started = time.thread_time()
        for at in range(0, len(texts), size):
            await _send(ingest, "track", texts[at : at + size])
        least = min(least, (time.thread_time() - started) / len(texts) * 1e6)
    return least


async def _send(ingest: Ingest, call: str, texts: Sequence[bytes]) -> None:
    """All at once, as they come in while a tick commits; until each is answered."""
    ended = asyncio.get_running_loop().create_future()
    credentials = base64.b64encode(f"{WRITE_KEY}:".encode())
    outstanding = len(texts)

    def answer(response: Response) -> None:
        nonlocal outstanding
        outstanding -= 1
        if response.status != 200 and not ended.done():
            ended.set_exception(LoadtestError(f"an event was answered with {response.status}"))
        elif not outstanding and not ended.done():
            ended.set_result(None)

    for text in texts:
        headers = {b"content-type": b"application/json", b"authorization": b"Basic " + credentials}
        ingest.begin(call, headers, text, answer)
    await ended


def _reading(texts: Sequence[bytes], namespaces: Any) -> float:
    started = time.thread_time()
    for text in texts:
        read(
            text,
            call="track",
            received_at=system_clock(),
            trusted=False,
            server_only=(),
            retention=RETENTION,
            new_message_id=str,
            namespaces=namespaces,
        )
    return (time.thread_time() - started) / len(texts) * 1e6


def table(report: WayReport) -> Table:
    found = Table("processor time an event, no sockets, no database", "µs", title_justify="left")
    found.columns[1].justify = "right"
    for size, microseconds in report.microseconds.items():
        found.add_row(f"from body to answer, {size} in a tick", f"{microseconds:.1f}")
    found.add_row("of it: to read it", f"{report.read_microseconds:.1f}")
    return found
