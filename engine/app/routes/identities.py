"""`/admin`, who is who: a person's identity graph and why, and merges taken back."""

from __future__ import annotations

from typing import Literal

import msgspec
from litestar import MediaType, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody

from engine.adapters.postgres.graph import graph
from engine.app.engine import Engine
from engine.app.identity_picture import picture
from engine.app.routes.admin import Lookup
from engine.app.splitting import NotSplit, Split, split
from engine.domain.people import identity

_json = msgspec.json.Encoder().encode


@get(
    "/profiles/{namespace:str}/{value:str}/identities",
    operation_id="identities",
    summary="Who a person is, and why: JSON, or a picture",
)
async def identities(
    namespace: FromPath[str],
    value: FromPath[str],
    state: State,
    format: FromQuery[Literal["json", "svg"]] = "json",
) -> Response[bytes]:
    engine: Engine = state.engine
    key = identity.normal((namespace, value), engine.ruling.rules.workspace.namespaces)
    found = await graph(engine.store.pool, key) if "\0" not in namespace + value else None
    if found is None:
        raise NotFoundException("no profile by that identity")
    if format == "svg":
        return Response(picture(found).encode(), media_type="image/svg+xml")
    return Response(_json(found), media_type=MediaType.JSON)


@post(
    "/profiles/split",
    operation_id="split",
    summary="Take back the merge that an identity came by, within 30 days",
    status_code=200,
)
async def take_apart(data: JSONBody[Lookup], state: State) -> Split:
    engine: Engine = state.engine
    key = identity.normal((data.namespace, data.value), engine.ruling.rules.workspace.namespaces)
    try:
        return await split(engine.store.pool, key, engine.ruling.rules, engine.clock())
    except NotSplit as fault:
        raise ClientException(str(fault)) from fault


HANDLERS = (identities, take_apart)
