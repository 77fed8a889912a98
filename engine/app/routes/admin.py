"""`/admin`: what the business's own people may look at, with an admin token."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, post
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody, Parameter

from engine.app import profile_reading, xdm_reading
from engine.app.admin_access import admin_only
from engine.app.engine import Engine
from engine.app.routes import operations
from engine.domain.people.profiles import Profile
from engine.formats import xdm

Limit = Annotated[int, Parameter(ge=1, le=1000, description="How many at most")]
Form = Annotated[Literal["json", "xdm"], Parameter(description="Our own, or Adobe's XDM")]
Names = Annotated[
    xdm.Names,
    Parameter(description="Of XDM: eventType is plain, xdm:eventType prefixed; by default as they came"),
]
Before = Annotated[int | None, Parameter(ge=0, le=2**63 - 1, description="Only those with a smaller number")]


class Lookup(msgspec.Struct, frozen=True):
    """Whom to look for; personal identifiers go in a body, never in a URL."""

    namespace: str
    value: str

    def __repr__(self) -> str:
        return f"Lookup({self.namespace!r}, …)"


@get("/profiles/{namespace:str}/{value:str}", operation_id="profile", summary="A profile")
async def profile(
    namespace: FromPath[str],
    value: FromPath[str],
    state: State,
    format: Form = "json",
    names: Names = "as_sent",
) -> profile_reading.ProfileView | dict[str, Any]:
    return await _profile(state, Lookup(namespace, value), format, names)


@post(
    "/profiles/lookup",
    operation_id="lookUpProfile",
    summary="A profile, asked for in the body",
    status_code=200,
)
async def lookup(
    data: JSONBody[Lookup], state: State, format: Form = "json", names: Names = "as_sent"
) -> profile_reading.ProfileView | dict[str, Any]:
    return await _profile(state, data, format, names)


@get("/profiles/{namespace:str}/{value:str}/events", operation_id="profileEvents", summary="Newest first")
async def events(
    namespace: FromPath[str],
    value: FromPath[str],
    state: State,
    limit: Limit = 50,
    before: Before = None,
    format: Form = "json",
    names: Names = "as_sent",
) -> dict[str, Any]:
    engine: Engine = state.engine
    found = await _found(engine, Lookup(namespace, value))
    if format == "xdm":
        return await xdm_reading.events(engine, found, before, limit, names)
    return {"events": await profile_reading.events(engine, found, before, limit)}


@get(
    "/profiles/{namespace:str}/{value:str}/decisions", operation_id="profileDecisions", summary="Newest first"
)
async def decisions(
    namespace: FromPath[str], value: FromPath[str], state: State, limit: Limit = 50, before: Before = None
) -> dict[str, Any]:
    engine: Engine = state.engine
    found = await _found(engine, Lookup(namespace, value))
    return {"decisions": await profile_reading.decisions(engine, found, before, limit)}


@get("/decisions/{decision_id:uuid}", operation_id="decision", summary="A decision with its whole trace")
async def decision(decision_id: FromPath[UUID], state: State) -> dict[str, Any]:
    found = await profile_reading.decision(state.engine.store, str(decision_id))
    if found is None:
        raise NotFoundException("no decision by that id")
    return found


@get("/rejected", operation_id="rejected", summary="Events that ingest refused, newest first")
async def rejected(state: State, limit: Limit = 50, before: Before = None) -> dict[str, Any]:
    engine: Engine = state.engine
    rows = await engine.store.fetch("recent_rejected", before, limit)
    return {
        "rejected": [
            {
                "id": row["id"],
                "receivedAt": row["received_at"],
                "code": row["code"],
                "message": row["message"],
                "messageId": row["message_id"],
                "item": bytes(row["item"]).decode("utf-8", "replace"),
            }
            for row in rows
        ]
    }


async def _profile(
    state: State, named: Lookup, form: str, names: xdm.Names
) -> profile_reading.ProfileView | dict[str, Any]:
    engine: Engine = state.engine
    found = await _found(engine, named)
    if form == "xdm":
        return xdm_reading.profile(found, engine.ruling, engine.clock(), names)
    return profile_reading.view(found, engine.ruling, engine.clock())


async def _found(engine: Engine, named: Lookup) -> Profile:
    found = await profile_reading.find(engine, named.namespace, named.value)
    if found is None:
        raise NotFoundException("no profile by that identity")
    return found


def router(*others: BaseRouteHandler) -> Router:
    """The routes, with `others` under the same path: one path may stand in one router only."""
    return Router(
        path="/admin",
        route_handlers=[
            profile,
            lookup,
            events,
            decisions,
            decision,
            rejected,
            *operations.HANDLERS,
            *others,
        ],
        guards=[admin_only],
        response_headers={"cache-control": "no-store"},
        security=[{"adminToken": []}],
        tags=["admin"],
    )
