"""Serving: uvicorn on one socket, one process a worker, and an orderly end.

A first SIGTERM takes readiness away, stops listening and finishes what is under way; a second one
exits at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from engine.app.engine import Engine
from engine.app.protocol import IDLE_SECONDS, Protocol, protocol_of
from engine.app.web import application

SHUTDOWN_SECONDS = 25
BACKLOG = 2048


class Server(uvicorn.Server):
    """Tells when it is ready and, by `Engine.draining`, when it is not any more. Lets go of clients
    that take too long to say what they want."""

    def __init__(self, config: uvicorn.Config, engine: Engine, on_ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._engine = engine
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            if hasattr(signal, "SIGHUP"):
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._engine.reload_soon)
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol) and connection.takes_too_long(now):
                    connection.transport.close()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        self._engine.draining = True
        # Not uvicorn's own: it raises the signal again at the end, and an orderly end is exit code 0.
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """The socket that all workers accept from.

    Raises:
        OSError: the address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)  # at once: of two who bind, only one may listen
    listener.set_inheritable(True)
    return listener


def run(engine: Engine, listener: socket.socket, on_ready: Callable[[], object]) -> bool:
    """Serves until told to stop. False where the engine did not come up."""
    settings = engine.settings
    config = uvicorn.Config(
        application(engine),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=protocol_of(lambda: engine.ingest),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    server = Server(config, engine, on_ready)
    server.run(sockets=[listener])
    return server.started


def die_with_parent() -> None:
    """Ends this worker when the process that started it is gone (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)
