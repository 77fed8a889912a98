"""`viewfinder serve`: the engine, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import structlog
from cyclopts import Parameter
from prometheus_client.multiprocess import mark_process_dead

from engine.adapters.fcm import CredentialsProblem
from engine.adapters.postgres.migrations import migrate
from engine.app import logs, server
from engine.app.cli.database import DATABASE_FAULTS, database
from engine.app.cli.environment import fail, read_settings
from engine.app.cli.workspace import folders, published
from engine.app.engine import Engine
from engine.app.rulesets import Checked
from engine.app.settings import PUBLISHED, Settings, SettingsError, load_or_create_keys

AGAIN_SECONDS = 1.0
"""Before a worker that died is started again."""

log = structlog.get_logger()


def serve(*, worker: Annotated[str | None, Parameter(show=False)] = None) -> int:
    """Run the engine. Prints `ready http://HOST:PORT` once it takes events."""
    logs.configure()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    settings = read_settings()
    checked = folders(settings) if settings.rules != PUBLISHED else None
    try:
        settings, made = load_or_create_keys(settings)
    except SettingsError as fault:
        fail(str(fault), 1)
        raise
    if worker is not None:
        descriptor, _, tells = worker.partition(":")
        server.die_with_parent()
        listener = socket.socket(fileno=int(descriptor))
        dsn = settings.database_url or ""
        return _run(settings, dsn, checked or published(dsn), listener, lambda: os.write(int(tells), b"."))
    if made:
        _show_keys(settings)
    try:
        listener = server.listen(settings.host, settings.port)
    except OSError as fault:
        fail(f"cannot listen on {settings.host}:{settings.port}: {fault.strerror}", 2)
        raise
    with database(settings) as dsn:
        try:
            asyncio.run(migrate(dsn))
        except DATABASE_FAULTS as fault:
            fail(f"the database: {fault}", 1)
        checked = checked or published(dsn)
        if settings.workers == 1:
            return _run(settings, dsn, checked, listener, lambda: _announce(settings, listener))
        with tempfile.TemporaryDirectory(prefix="viewfinder-metrics-") as counts:
            return _supervise(settings, dsn, listener, counts)


def _run(
    settings: Settings,
    dsn: str,
    checked: Checked,
    listener: socket.socket,
    on_ready: Callable[[], object],
) -> int:
    try:
        return 0 if server.run(Engine(settings, dsn, checked), listener, on_ready) else 1
    except CredentialsProblem as fault:
        fail(str(fault), 1)
        raise


def _supervise(settings: Settings, dsn: str, listener: socket.socket, counts: str) -> int:
    """One process a worker on the same socket; one that dies is started again. `counts` is the
    folder in which they keep their metrics together."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": counts, "VIEWFINDER_DATABASE_URL": dsn}
    environment.pop("VIEWFINDER_DATABASE_URL_FILE", None)
    told, tells = os.pipe()
    serving, stopping = threading.Event(), threading.Event()

    def start() -> subprocess.Popen[bytes]:
        given = f"{listener.fileno()}:{tells}"  # nothing secret: anyone may list command lines
        return subprocess.Popen(
            [sys.executable, "-m", "engine", "serve", "--worker", given],
            pass_fds=[listener.fileno(), tells],
            env=environment,
            start_new_session=True,  # Ctrl-C is for us: a worker takes a second signal for "at once"
        )

    def announce() -> None:
        os.read(told, 1)
        serving.set()
        _announce(settings, listener)

    def stop(_: int = 0, __: FrameType | None = None) -> None:
        stopping.set()
        for one in workers:
            with contextlib.suppress(ProcessLookupError):
                one.send_signal(signal.SIGTERM)

    def reload(_: int, __: FrameType | None) -> None:
        for one in workers:
            with contextlib.suppress(ProcessLookupError):
                one.send_signal(signal.SIGHUP)

    workers = [start() for _ in range(settings.workers)]
    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=announce, daemon=True).start()
    while any(one.returncode is None for one in workers):
        process, status = os.wait()
        number = next((n for n, one in enumerate(workers) if one.pid == process), None)
        if number is None:
            continue
        code = workers[number].returncode = os.waitstatus_to_exitcode(status)
        mark_process_dead(process, counts)  # type: ignore[no-untyped-call]
        if stopping.is_set():
            continue
        if not serving.is_set():  # what stops one from starting stops all
            stop()
            continue
        log.error("worker_died", exit_code=code)
        time.sleep(AGAIN_SECONDS)
        if not stopping.is_set():
            workers[number] = start()
        if stopping.is_set():  # told to while it was being started
            stop()
    return 0 if serving.is_set() else 1


def _announce(settings: Settings, listener: socket.socket) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert else "http"
    sys.stdout.write(f"ready {scheme}://{host}:{listener.getsockname()[1]}\n")
    sys.stdout.flush()


def _show_keys(settings: Settings) -> None:
    sys.stdout.write(
        "Keys were made and are kept in the data folder; they are shown this once:\n"
        f"  write key    {settings.write_keys[0]}\n"
        f"  server key   {settings.server_keys[0]}\n"
        f"  admin token  {settings.admin_token}\n"
    )
    sys.stdout.flush()
