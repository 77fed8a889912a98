"""`/healthz`, `/readyz`, `/metrics`: for whoever operates the engine."""

from __future__ import annotations

import os

from litestar import Response, get
from litestar.datastructures import State
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from engine.app.engine import Engine


@get("/healthz", sync_to_thread=False, operation_id="alive", summary="The process is alive")
def healthz() -> dict[str, str]:
    """Never asks the database."""
    return {"status": "alive"}


@get("/readyz", operation_id="ready", summary="The engine takes events")
async def readyz(state: State) -> Response[dict[str, str]]:
    """503 while starting, stopping, or without a database."""
    engine: Engine = state.engine
    problem = await engine.not_ready()
    if problem is not None:
        return Response({"status": problem}, status_code=503, headers={"retry-after": "1"})
    return Response({"status": "ready"})


@get("/metrics", sync_to_thread=False, include_in_schema=False)
def metrics() -> Response[bytes]:
    """Of all workers together, whichever of them is asked."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
