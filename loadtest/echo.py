"""The yardstick: the same server with an application that reads the body and answers a constant.

Run as `python -m loadtest.echo`; prints `ready http://HOST:PORT` as `serve` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

import uvicorn
from litestar import Litestar, get
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from engine.app.ingest import PATHS
from engine.app.server import die_with_parent, listen

ANSWER = b'{"success":true,"accepted":1,"duplicates":0,"rejected":[],"decisions":[]}'
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode()),
    (b"access-control-allow-origin", b"*"),
]

_PATHS = frozenset(PATHS)


async def _answer(receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER, "more_body": False})


@get("/healthz")
async def _healthz() -> str:
    return "ok"


def application() -> ASGIApp:
    """Mounted as `engine.app.web.application` mounts ingest."""
    routes = Litestar(route_handlers=[_healthz])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] in _PATHS:
            await _answer(receive, send)
        else:
            await routes(cast(HTTPScope, scope), receive, send)

    return app


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        self._on_ready()


def main() -> None:
    die_with_parent()
    listener = listen("127.0.0.1", 0)

    def ready() -> None:
        sys.stdout.write(f"ready http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()

    # As engine.app.server.run has it.
    config = uvicorn.Config(
        application(),
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        backlog=2048,
        timeout_keep_alive=65,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )
    _Server(config, ready).run(sockets=[listener])


if __name__ == "__main__":
    main()
