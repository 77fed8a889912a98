"""The run: each scenario drives engine and echo in turn, several rounds, with the same requests;
at the end the database is asked whether everything that was answered is in it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, Literal

import asyncpg
import httpx
import msgspec

from loadtest import client, wrk
from loadtest.results import Compared, LoadtestError, Measured, Report, Turn, compared
from loadtest.servers import RULES, Process, Servers, cpu_seconds, machine_cpu_seconds, running
from loadtest.traffic import (
    BEHIND_SECONDS,
    WRITE_KEY,
    Traffic,
    introductions,
    others,
    places,
    requests,
)

BATCH_EVENTS: Final = 20
BATCH_CONNECTIONS_SHARE: Final = 8
"""Batches go over so many times fewer connections: a request of twenty events waits as twenty."""
WARM_UP_SECONDS: Final = 1

Name = Literal["single", "paced", "batch"]
TITLES: Final[dict[Name, str]] = {
    "single": "single events",
    "paced": "single events at half of that",
    "batch": f"batches of {BATCH_EVENTS}",
}
MEASUREMENTS_PER_ROUND: Final = 2 * len(TITLES)

Advance = Callable[[str], None]
"""Told what comes next, before each measurement."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` is the length of each measurement."""

    seconds: int
    connections: int
    rounds: int

    @property
    def batch_connections(self) -> int:
        return max(1, self.connections // BATCH_CONNECTIONS_SHARE)


def run(options: Options, advance: Advance) -> Report:
    """Everything, from starting the servers to the last question to the database.

    Raises:
        LoadtestError: the engine lost events or answered anything but 200, or nothing could be
            measured.
    """
    started = time.monotonic()
    with running() as servers:
        load = _Load(servers, options, advance)
        load.warm_up()
        single = load.scenario("single", None)
        paced = load.scenario("paced", single.engine.events_per_second / 2)
        batch = load.scenario("batch", None)
        answered, stored, missing = load.account()
        return Report(
            cores=str(servers.cores),
            rounds=options.rounds,
            seconds=options.seconds,
            connections=options.connections,
            batch_connections=options.batch_connections,
            scenarios=(single, paced, batch),
            batch_of_single_echo=batch.engine.events_per_second / single.echo.events_per_second,
            answered_events=answered,
            stored_events=stored,
            missing_events=missing,
            other_cores=load.other_cores,
            took_seconds=time.monotonic() - started,
        )


class _Load:
    """The numbering of everyone's events through all measurements, and how many were answered."""

    def __init__(self, servers: Servers, options: Options, advance: Advance) -> None:
        self._servers = servers
        self._options = options
        self._advance = advance
        self._places, self._others = places(RULES), others()
        self._epoch = int(time.time()) - BEHIND_SECONDS
        self._run = 0
        self._next = 1
        self._answered: dict[int, int] = {}
        self._turns: list[Turn] = []

    @property
    def other_cores(self) -> float:
        """The median of what other programs took of the CPU, in seconds per second."""
        return median(t.other_cpu / t.measured.seconds for t in self._turns)

    def warm_up(self) -> None:
        """Lets everyone introduce themselves, and both servers run for a moment."""
        self._advance("introductions")
        traffic = self._traffic(1)
        accepted = 0
        with httpx.Client(base_url=self._servers.engine.url, auth=(WRITE_KEY, ""), timeout=30.0) as api:
            for body in introductions(traffic):
                response = api.post("/v1/batch", content=body)
                if response.status_code != 200:
                    raise LoadtestError(f"the engine answered {response.status_code} to an introduction")
                accepted += response.json()["accepted"]
        self._answered[traffic.run] = accepted
        for server in (self._servers.engine, self._servers.echo):
            self._measure("single", server, self._traffic(1), None, WARM_UP_SECONDS)

    def scenario(self, name: Name, rate: float | None) -> Compared:
        """Both servers, in turn, round by round; `rate` in requests per second."""
        engine: list[Turn] = []
        echo: list[Turn] = []
        for number in range(1, self._options.rounds + 1):
            traffic = self._traffic(BATCH_EVENTS if name == "batch" else 1)
            for server, turns in ((self._servers.engine, engine), (self._servers.echo, echo)):
                which = "engine" if turns is engine else "echo"
                self._advance(f"{TITLES[name]}, {which}, round {number} of {self._options.rounds}")
                turns.append(self._measure(name, server, traffic, rate, self._options.seconds))
        tool = "wrk" if rate is None and wrk.is_installed() else "asyncio client"
        if rate is not None:
            rate = median(t.measured.answered / t.measured.seconds for t in engine)
        return compared(TITLES[name], tool, rate, engine, echo)

    def account(self) -> tuple[int, int, int]:
        """Events answered, stored, and answered but not stored, over all measurements."""
        self._advance("counting what is stored")
        stored = asyncio.run(_stored(self._servers.dsn))
        missing = {run: n - stored.get(run, 0) for run, n in self._answered.items()}
        lost = sum(n for n in missing.values() if n > 0)
        if lost:
            raise LoadtestError(f"{lost} events that the engine answered with 200 are not in the database")
        return sum(self._answered.values()), sum(stored.values()), lost

    def _traffic(self, events: int) -> Traffic:
        self._run += 1
        return Traffic(
            run=self._run,
            first=self._next,
            epoch=self._epoch,
            events_per_request=events,
            places=self._places,
            others=self._others,
        )

    def _measure(
        self, name: Name, server: Process, traffic: Traffic, rate: float | None, seconds: int
    ) -> Turn:
        is_engine = server is self._servers.engine
        postgres = asyncio.run(_postgres_pids(self._servers.dsn)) if is_engine else []
        before = _cpu(server, postgres)
        measured = self._drive(server, traffic, rate, seconds)
        spent = [after - then for after, then in zip(_cpu(server, postgres), before, strict=True)]
        turn = Turn(
            measured=measured,
            events_per_request=traffic.events_per_request,
            server_cpu=spent[0],
            postgres_cpu=spent[1],
            other_cpu=max(0.0, spent[3] - spent[0] - spent[1] - spent[2]),
        )
        self._turns.append(turn)
        if measured.not_ok or measured.faults:
            raise LoadtestError(
                f"{TITLES[name]}, {'engine' if is_engine else 'echo'}: {measured.not_ok} requests were "
                f"answered with something else than 200, {measured.faults} met a fault of the connection"
            )
        if not measured.answered:
            raise LoadtestError(f"{TITLES[name]}: nothing was answered")
        if is_engine:
            self._answered[traffic.run] = measured.answered * traffic.events_per_request
            self._next = traffic.after(measured.requested)
        return turn

    def _drive(self, server: Process, traffic: Traffic, rate: float | None, seconds: int) -> Measured:
        is_batch = traffic.events_per_request > 1
        connections = self._options.batch_connections if is_batch else self._options.connections
        if rate is None and wrk.is_installed():
            folder = self._servers.folder
            return wrk.drive(server.url, traffic, folder, seconds=seconds, connections=connections)
        return client.drive(
            server.port, requests(traffic), seconds=seconds, connections=connections, rate=rate
        )


def _cpu(server: Process, postgres: Sequence[int]) -> tuple[float, float, float, float]:
    """CPU seconds so far of the server, of PostgreSQL, of this process with its clients, and of all."""
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    return cpu_seconds([server.pid]), cpu_seconds(postgres), ours, machine_cpu_seconds()


async def _stored(dsn: str) -> dict[int, int]:
    """How many different events of each run are in the log."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT left(message_id, 8) AS run, count(*) AS stored FROM seen"
            " WHERE sender = 'client' GROUP BY 1"
        )
    finally:
        await connection.close()
    return {int(row["run"], 16): row["stored"] for row in rows}


async def _postgres_pids(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["pid"] for row in await connection.fetch("SELECT pid FROM pg_stat_activity")]
    finally:
        await connection.close()
