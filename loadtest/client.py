"""A client of our own, over raw sockets: at a fixed rate, which wrk cannot do, or at full speed."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final, cast

import uvloop

from loadtest.results import Measured, percentile

TICK_SECONDS: Final = 0.001
"""At a rate, requests fall due in steps of this: the event loop cannot wait for less."""
DRAIN_SECONDS: Final = 10.0

_END_OF_HEADERS: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class _Run:
    """The requests still to make, the connections that are free for one, and what became of it all.

    `due` are the times at which requests that wait for a connection fell due; `until` is how long
    a free connection asks again at once, None where requests fall due at a rate.
    """

    def __init__(self, requests: Iterator[bytes], until: float | None) -> None:
        self.requests = requests
        self.until = until
        self.due = deque[float]()
        self.idle = deque[_Connection]()
        self.latencies: list[float] = []
        self.requested = 0
        self.not_ok = 0
        self.faults = 0

    @property
    def outstanding(self) -> int:
        return self.requested - len(self.latencies) - self.not_ok - self.faults

    def serve(self, connection: _Connection, now: float) -> None:
        """Gives a free connection its next request, or lets it wait for one."""
        if self.until is not None and now < self.until:
            connection.request(next(self.requests), now)
        elif self.due:
            connection.request(next(self.requests), self.due.popleft())
        else:
            self.idle.append(connection)


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._due: float | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class

    def request(self, data: bytes, due: float) -> None:
        self._due = due
        self._run.requested += 1
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(_END_OF_HEADERS)
        if end < 0 or self._due is None:
            return
        at = self._buffer.lower().find(_LENGTH, 0, end)
        length = int(self._buffer[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + len(_END_OF_HEADERS) + length:
            return
        now = time.perf_counter()
        if self._buffer.startswith(b"HTTP/1.1 200 "):
            self._run.latencies.append(now - self._due)
        else:
            self._run.not_ok += 1
        self._due, self._buffer = None, b""
        self._run.serve(self, now)

    def connection_lost(self, _: Exception | None) -> None:
        if self._due is not None:
            self._run.faults += 1
            self._due = None

    def close(self) -> None:
        self._transport.close()


def drive(
    port: int, requests: Iterator[bytes], *, seconds: float, connections: int, rate: float | None
) -> Measured:
    """Sends for `seconds`; `rate` is in requests per second, None for as fast as answers come.

    At a rate, a request that falls due while no connection is free waits for one, and its latency
    counts from when it fell due.
    """
    if rate is not None:  # made beforehand, so that making them takes nothing from the measurement
        requests = iter(list(islice(requests, int(rate * seconds))))
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_drive(port, requests, seconds, connections, rate))
    finally:
        gc.enable()


async def _drive(
    port: int, requests: Iterator[bytes], seconds: float, connections: int, rate: float | None
) -> Measured:
    loop = asyncio.get_running_loop()
    run = _Run(requests, until=None)
    opened = [
        (await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    start = time.perf_counter()  # uvloop's own clock counts milliseconds
    if rate is None:
        run.until = start + seconds
    for connection in opened:
        run.serve(connection, start)
    if rate is None:
        await asyncio.sleep(seconds)
    else:
        await _let_fall_due(run, start, int(rate * seconds), rate)
    patience = time.perf_counter() + DRAIN_SECONDS
    while (run.outstanding or run.due) and len(run.idle) + run.faults < connections:
        if time.perf_counter() > patience:
            break
        await asyncio.sleep(TICK_SECONDS)
    elapsed = time.perf_counter() - start
    unanswered = run.outstanding + len(run.due)
    for connection in opened:
        connection.close()
    latencies = sorted(run.latencies)
    return Measured(
        answered=len(latencies),
        requested=run.requested,
        not_ok=run.not_ok,
        faults=run.faults + unanswered,
        seconds=elapsed,
        p50_ms=percentile(latencies, 50) * 1e3,
        p99_ms=percentile(latencies, 99) * 1e3,
    )


async def _let_fall_due(run: _Run, start: float, total: int, rate: float) -> None:
    ticks = made = 0
    while made < total:
        ticks += 1
        tick = start + ticks * TICK_SECONDS
        if (early := tick - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        falls_due = min(total, int(ticks * TICK_SECONDS * rate)) - made
        made += falls_due
        run.due.extend([tick] * falls_due)
        while run.due and run.idle:
            run.serve(run.idle.popleft(), tick)
