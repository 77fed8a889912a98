"""`viewfinder serve` as its own process, the way it runs in earnest: started, asked over HTTP,
stopped or killed by its own process id, and always cleaned up."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asyncpg
import httpx

from engine.app.demo.fcm_stand_in import StandIn, stand_in
from tests import lanes
from tests.conftest import TEMPLATE, drop, execute, named

WRITE_KEY, SERVER_KEY, ADMIN_TOKEN = "WK123", "server-key-456", "admin-token-789"
READY_SECONDS = 60.0
STOP_SECONDS = 30.0

WORKSPACE = lanes.WORKSPACE + b"events:\n  Order Paid: {from: server}\n"

_T = TypeVar("_T")


class NotReadyError(AssertionError):
    """The process ended, or took too long, before it said that it is ready."""


class Served:
    """A running engine. What it prints goes to files, so that nothing it says is lost or blocks it."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self.url = ""
        self._out = out
        self._err = err

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def stdout(self) -> str:
        return self._out.read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        return self._err.read_text("utf-8", "replace")

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        def announced() -> str | None:
            if self.process.poll() is not None:
                raise NotReadyError(f"serve ended with {self.process.returncode}:\n{self.stderr}")
            lines = (line for line in self.stdout.splitlines(keepends=True) if line.startswith("ready "))
            line = next(lines, "")
            return line.split()[1] if line.endswith("\n") else None

        self.url = until(announced, seconds, "ready")

    def client(self, key: str | None = WRITE_KEY, **options: Any) -> httpx.Client:
        """Over HTTP with a key by Basic auth, as SDKs send it."""
        auth = (key, "") if key is not None else None
        return httpx.Client(base_url=self.url, auth=auth, timeout=30.0, **options)

    def admin(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30.0)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, and nothing else."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.terminate()
        return self.process.wait(STOP_SECONDS)


def write_workspace(folder: Path, workspace: bytes = WORKSPACE, rules: bytes = lanes.RULES) -> Path:
    """The folder as VIEWFINDER_RULES takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "workspace.yaml").write_bytes(workspace)
    (folder / "rules.yaml").write_bytes(rules)
    return folder


def environment(folder: Path, dsn: str | None, settings: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the surroundings but what programs need. A setting of "" is left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VIEWFINDER_")}
    ours = {
        "VIEWFINDER_DATA": str(folder / "data"),
        "VIEWFINDER_RULES": str(folder / "rules"),
        "VIEWFINDER_MODELS": str(folder / "models"),
        "VIEWFINDER_PORT": "0",
        "VIEWFINDER_WRITE_KEYS": WRITE_KEY,
        "VIEWFINDER_SERVER_KEYS": SERVER_KEY,
        "VIEWFINDER_ADMIN_TOKEN": ADMIN_TOKEN,
    }
    if dsn is not None:
        ours["VIEWFINDER_DATABASE_URL"] = dsn
    return kept | {name: value for name, value in (ours | dict(settings)).items() if value}


def start(folder: Path, dsn: str | None, **settings: str) -> Served:
    """Starts `serve` without waiting. `settings` are VIEWFINDER_… variables, without the prefix."""
    if not (folder / "rules").exists():
        write_workspace(folder / "rules")
    number = len(list(folder.glob("serve-*.out")))
    out, err = folder / f"serve-{number}.out", folder / f"serve-{number}.err"
    variables = environment(folder, dsn, {f"VIEWFINDER_{name}": value for name, value in settings.items()})
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "serve"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    return Served(process, out, err)


@contextmanager
def serve(folder: Path, dsn: str | None, **settings: str) -> Iterator[Served]:
    """A ready engine, gone at the end whatever happened."""
    served = start(folder, dsn, **settings)
    try:
        served.wait_until_ready()
        yield served
    finally:
        end(served)


def end(served: Served) -> None:
    """An orderly end where one is to be had."""
    if served.process.poll() is None:
        served.terminate()
        with suppress(subprocess.TimeoutExpired):
            served.process.wait(10.0)
    if served.process.poll() is None:
        served.kill()


def command(
    folder: Path, *arguments: str, dsn: str | None = None, seconds: float = 60.0, **settings: str
) -> subprocess.CompletedProcess[str]:
    """A `viewfinder` command that ends by itself."""
    variables = environment(folder, dsn, {f"VIEWFINDER_{name}": value for name, value in settings.items()})
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        env=variables | {"COLUMNS": "200", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def until(ask: Callable[[], _T | None], seconds: float, what: str, every: float = 0.02) -> _T:
    """What `ask` answers once it is something true, asked again and again."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(every)
    return answer


# the database behind it


def fetch(dsn: str, sql: str, *arguments: Any) -> list[asyncpg.Record]:
    """Rows, for tests that run no loop."""
    return asyncio.run(lanes.fetch(dsn, sql, *arguments))


@contextmanager
def database(postgres: str, name: str, *, empty: bool = False) -> Iterator[str]:
    """The DSN of a database of its own, of the current schema unless it is to be `empty`."""
    template = "" if empty else f" TEMPLATE {TEMPLATE} STRATEGY FILE_COPY"
    asyncio.run(execute(postgres, f"CREATE DATABASE {name}{template}"))
    try:
        yield named(postgres, name)
    finally:
        asyncio.run(drop(postgres, name))


def embedded_dsn(data: Path) -> str:
    """Of the PostgreSQL that `serve` runs in its data folder."""
    return f"postgresql://viewfinder@/viewfinder?host={data}"


def postmaster(data: Path) -> int:
    """The process id of the PostgreSQL in a data folder."""
    return int((data / "postgres" / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0])


# the push service in front of it


class PushService:
    """FCM's stand-in with a loop of its own; `settings` are what `serve` needs to use it."""

    def __init__(self, fcm: StandIn, folder: Path) -> None:
        self.fcm = fcm
        credentials = fcm.credentials(folder / "service-account.json")
        self.settings = {"FCM_URL": fcm.url, "FCM_CREDENTIALS_FILE": str(credentials)}

    def delivered(self) -> dict[str, dict[str, Any]]:
        """The messages that reached a phone, by decision."""
        return {message["data"]["decision"]: message for message in list(self.fcm.messages)}


@contextmanager
def push_service(folder: Path) -> Iterator[PushService]:
    """Pushes go out, as far as the engine can tell."""
    started: asyncio.Future[PushService]
    loop = asyncio.new_event_loop()
    started, ended = loop.create_future(), asyncio.Event()

    async def run() -> None:
        async with stand_in() as fcm:
            started.set_result(PushService(fcm, folder))
            await ended.wait()

    task = loop.create_task(run())
    service = loop.run_until_complete(started)
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), name="fcm")
    thread.start()
    try:
        yield service
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


# bytes on its socket


class Heard(NamedTuple):
    """An HTTP answer as it came over the wire; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def hear(connection: socket.socket) -> Heard:
    """The next answer on a connection.

    Raises:
        http.client.HTTPException, OSError: it was closed, or nothing came in time.
    """
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        body = response.read()
    finally:
        response.close()
    return Heard(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def connect(served: Served, seconds: float = 30.0) -> socket.socket:
    """A bare connection."""
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exchange(served: Served, request: bytes, seconds: float = 30.0) -> Heard:
    """The answer to bytes that no HTTP client would send."""
    with connect(served, seconds) as connection:
        connection.sendall(request)
        return hear(connection)
