"""What SDKs ask for before they send their first event."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from engine.app.engine import Engine

_FOR_PAGES = {"access-control-allow-origin": "*"}
"""Any page that has the write key may ask: it is public, and so is the answer."""


def _named(operation: str, path: list[Any]) -> str:
    """The operation's id on one of its paths: ids are unique, and one route answers several."""
    prefix = "".join(part.capitalize() for part in path if part in ("cdn", "v1"))
    return operation + prefix


@get(
    [
        "/v1/projects/{write_key:str}/settings",
        "/projects/{write_key:str}/settings",
        "/cdn/v1/projects/{write_key:str}/settings",
        "/cdn/projects/{write_key:str}/settings",
    ],
    sync_to_thread=False,
    operation_id=lambda _handler, _method, path: _named("segmentSettings", path),
    response_headers=_FOR_PAGES,
    summary="Settings of Segment SDKs",
)
def segment_settings(
    write_key: FromPath[str], state: State, request: Request[Any, Any, Any]
) -> dict[str, Any]:
    """Tells the SDK to send its events here. 404 for a key that nobody knows."""
    engine: Engine = state.engine
    if not engine.keys.knows(write_key):
        raise NotFoundException("unknown write key")
    host = f"{request.url.netloc}/v1"
    return {"integrations": {"Segment.io": {"apiKey": write_key, "apiHost": host}}}


@get(
    ["/sourceConfig"],
    sync_to_thread=False,
    operation_id=lambda _handler, _method, path: _named("rudderSourceConfig", path),
    response_headers=_FOR_PAGES,
    summary="Settings of RudderStack SDKs",
)
def rudder_settings() -> dict[str, Any]:
    """A source that is on, with no destinations of its own: events come here."""
    return {
        "source": {
            "id": "viewfinder",
            "name": "viewfinder",
            "writeKey": "",
            "enabled": True,
            "config": {"statsCollection": {"errors": {"enabled": False}, "metrics": {"enabled": False}}},
            "dataplanes": {},
            "destinations": [],
            "updatedAt": "2026-01-01T00:00:00.000Z",
        }
    }
