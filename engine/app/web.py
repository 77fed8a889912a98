"""The ASGI application: ingest in front, Litestar for everything else, the engine's life around."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import cast

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import ScalarRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from engine.app.engine import Engine
from engine.app.ingest import PATHS
from engine.app.ingest_contract import with_ingest
from engine.app.routes import (
    accounts,
    admin,
    audiences,
    decide,
    faults,
    geofences,
    health,
    identities,
    imports,
    receivers,
    rights,
    sdk_settings,
)

_PATHS = frozenset(PATHS)


def litestar_app(engine: Engine | None = None) -> Litestar:
    """The routes. Without an engine they are good for their OpenAPI only."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        if engine is None:
            yield
            return
        await engine.start()
        try:
            yield
        finally:
            await engine.stop()

    app = Litestar(
        route_handlers=[
            health.healthz,
            health.readyz,
            health.metrics,
            sdk_settings.segment_settings,
            sdk_settings.rudder_settings,
            decide.decide,
            geofences.geofences,
            admin.router(*rights.HANDLERS, *identities.HANDLERS, *receivers.HANDLERS),
            accounts.router,
            audiences.router,
            imports.router,
        ],
        lifespan=[lifespan],
        state=State({"engine": engine}),
        cors_config=CORSConfig(allow_origins=[]),
        openapi_config=OpenAPIConfig(
            title="Viewfinder",
            version=version("viewfinder"),
            description="Events in, decisions out. See sdk_contract/README.md.",
            path="/schema",
            render_plugins=[ScalarRenderPlugin()],
            components=Components(
                security_schemes={
                    "writeKey": SecurityScheme(
                        type="http", scheme="basic", description="the key as user, no password"
                    ),
                    "bearerKey": SecurityScheme(type="http", scheme="bearer", description="the same key"),
                    "adminToken": SecurityScheme(type="http", scheme="bearer"),
                }
            ),
        ),
        exception_handlers=faults.HANDLERS,
        logging_config=None,
        debug=False,
    )
    with_ingest(app.openapi_schema)
    return app


def _is_preflight(scope: HTTPScope) -> bool:
    """Whether a browser asks if a page may ask: ingest answers that for all that take a write key."""
    return scope["method"] == "OPTIONS" and scope["path"] == decide.PATH


def application(engine: Engine) -> ASGIApp:
    """What the server runs: a phone's events go past the router."""
    routes = litestar_app(engine)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and (scope["path"] in _PATHS or _is_preflight(scope)):
            await engine.ingest(scope, receive, send)
        else:
            await routes(cast(HTTPScope, scope), receive, send)

    return app
