"""Ingest in the OpenAPI document: the raw handler is not seen by the generator, so it is described
here, from the same schemas that SDK authors test against."""

from __future__ import annotations

from litestar.openapi.spec import (
    OpenAPI,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    PathItem,
    Reference,
    RequestBody,
    Schema,
)

from engine.app.ingest import CALLS
from engine.formats.segment import BATCH_CALLS

_SCHEMAS = "./schemas/"
_STATUSES = {
    "400": "Not JSON, or not an object",
    "401": "Unknown key",
    "408": "The body took too long to arrive",
    "413": "Over 500 KB or 2,500 events, or an event over 32 KB, after decompression",
    "503": "Nothing is confirmed; send it again after Retry-After seconds",
}


def with_ingest(document: OpenAPI) -> None:
    """Adds the paths of ingest to a generated document."""
    paths = document.paths if document.paths is not None else {}
    document.paths = paths
    for call in CALLS:
        paths[f"/v1/{call}"] = _path(call, f"{call}Events")
    paths["/b"] = _path("b", "shortBatch")


def _path(call: str, operation_id: str) -> PathItem:
    is_batch = call in BATCH_CALLS
    schema = "batch.json" if is_batch else "event.json"
    responses: dict[str, OpenAPIResponse | Reference] = {
        "200": OpenAPIResponse(
            description="A verdict on each event; all that are accepted are durable",
            content={"application/json": OpenAPIMediaType(schema=Reference(ref=_SCHEMAS + "answer.json"))},
        )
    }
    for status, description in _STATUSES.items():
        responses[status] = OpenAPIResponse(
            description=description,
            content={"application/json": OpenAPIMediaType(schema=Schema())},
        )
    return PathItem(
        post=Operation(
            operation_id=operation_id,
            summary="Several events" if is_batch else f"One {call} event",
            tags=["events"],
            security=[{"writeKey": []}],
            request_body=RequestBody(
                required=True,
                content={"application/json": OpenAPIMediaType(schema=Reference(ref=_SCHEMAS + schema))},
            ),
            responses=responses,
        )
    )
