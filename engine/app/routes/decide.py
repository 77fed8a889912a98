"""`POST /v1/decide`: an app asks what to show, with the event that just happened."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.enums import MediaType

from engine.app.engine import Engine
from engine.app.responses import HEADERS

PATH = "/v1/decide"


@post(PATH, status_code=200, include_in_schema=False)
async def decide(state: State, request: Request[Any, Any, Any]) -> Response[bytes]:
    """Described beside ingest, in `ingest_contract`."""
    engine: Engine = state.engine
    headers = {name.lower(): value for name, value in request.scope["headers"]}
    answer = await engine.ingest.decide(headers, await request.body())
    extra = {name.decode(): value.decode() for name, value in (*HEADERS, *answer.extra)}
    return Response(answer.body, status_code=answer.status, media_type=MediaType.JSON, headers=extra)
