"""Ingest in the OpenAPI document. The generator does not see the raw handler, so it is described here,
by the same JSON Schemas that SDK authors test against (engine/formats/schemas)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final, cast

import msgspec
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
from engine.app.responses import CODES
from engine.formats.segment import BATCH_CALLS

_STATUSES: Final = {
    "400": "Not JSON, not an object, or cut off",
    "401": "Unknown key",
    "413": "Over 500 KB or 2,500 events, or a single event over 32 KB, after decompression",
    "503": "Nothing is confirmed; send it again after Retry-After seconds",
}
_FAULT: Final = {
    "type": "object",
    "required": ["success", "code", "message"],
    "properties": {
        "success": {"const": False},
        "code": {"enum": sorted(CODES.values())},
        "message": {"type": "string"},
    },
}
_BELOW = re.compile(r"^(\w+\.json)?#/\$defs/(\w+)$")


def schemas() -> dict[str, bytes]:
    """The published JSON Schemas, by file name."""
    folder = resources.files("engine.formats").joinpath("schemas")
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda f: f.name)
    return {file.name: file.read_bytes() for file in found}


def with_ingest(document: OpenAPI) -> None:
    """Adds the paths of ingest to a generated document, and the schemas that they speak of."""
    components = document.components
    for file, text in schemas().items():
        for name, schema in _components(file, msgspec.json.decode(text)):
            components.schemas[name] = cast(Schema, schema)
    event = cast(dict[str, Any], components.schemas["Event"])
    # In a single call the path names the type.
    single = {key: value for key, value in event.items() if key != "required"} | {"title": "A single event"}
    components.schemas["Single"] = cast(Schema, single)
    components.schemas["Fault"] = cast(Schema, _FAULT)
    paths = document.paths = document.paths if document.paths is not None else {}
    for call in CALLS:
        paths[f"/v1/{call}"] = _path(call, f"{call}Events")
    paths["/b"] = _path("b", "shortBatch")
    paths["/v1/xdm"] = _xdm()
    paths["/v1/decide"] = _ask()


def _components(file: str, schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A schema file as components: tools look up `#/…` in the document, not in the file."""
    parts = schema.pop("$defs", {})
    own = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    yield _name(file), _referring(own, file)
    for name, part in parts.items():
        yield f"{_name(file)}.{name}", _referring(part, file)


def _name(file: str) -> str:
    return file.removesuffix(".json").capitalize()


def _referring(node: Any, file: str) -> Any:
    if isinstance(node, list):
        return [_referring(item, file) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _target(value, file) if key == "$ref" and isinstance(value, str) else _referring(value, file)
        for key, value in node.items()
    }


def _target(reference: str, file: str) -> str:
    below = _BELOW.match(reference)
    name = f"{_name(below[1] or file)}.{below[2]}" if below else _name(reference)
    return f"#/components/schemas/{name}"


def _json(name: str) -> dict[str, OpenAPIMediaType]:
    return {"application/json": OpenAPIMediaType(schema=Reference(ref=f"#/components/schemas/{name}"))}


def _responses(
    description: str, content: dict[str, OpenAPIMediaType]
) -> dict[str, OpenAPIResponse | Reference]:
    """What a call answers: this where the body could be read, else a fault."""
    refused = {
        status: OpenAPIResponse(description=because, content=_json("Fault"))
        for status, because in _STATUSES.items()
    }
    return {"200": OpenAPIResponse(description=description, content=content), **refused}


def _ask() -> PathItem:
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/Decision"}}
    answer = {"type": "object", "required": ["decisions"], "properties": {"decisions": listed}}
    responses = _responses(
        "The decisions for the placements asked for; without any, all of the event",
        {"application/json": OpenAPIMediaType(schema=cast(Schema, answer))},
    )
    return PathItem(
        post=Operation(
            operation_id="decide",
            summary="What to show in the app, decided on an event",
            description=(
                "The event goes the way of every event: it is stored, counted, and may set off pushes as "
                "well. Being returned is not being shown: send `Offer Shown` with the decision's id in "
                "`properties.decision`."
            ),
            tags=["events"],
            security=[{"writeKey": []}, {"bearerKey": []}],
            request_body=RequestBody(required=True, content=_json("Ask")),
            responses=responses,
        )
    )


def _xdm() -> PathItem:
    record = {"type": "object", "description": "An ExperienceEvent, an individual profile, or its envelope"}
    body = {"oneOf": [record, {"type": "array", "items": record, "maxItems": 2500}]}
    responses = _responses("A verdict on each record; all that are accepted are durable", _json("Answer"))
    return PathItem(
        post=Operation(
            operation_id="xdmRecords",
            summary="Records of Adobe's Experience Data Model",
            description=(
                "Field names are those of https://github.com/adobe/xdm, plain (`eventType`) or with their "
                "prefix (`xdm:eventType`). A record with a `timestamp`, or an `eventType`, is an event; any "
                "other states who somebody is. Envelopes are `{header, body: {xdmMeta, xdmEntity}}`, a list "
                "of them in `messages`, and `{event: {xdm}}` or `{events: [{xdm}]}`."
            ),
            tags=["events"],
            security=[{"writeKey": []}, {"bearerKey": []}],
            request_body=RequestBody(
                required=True,
                content={"application/json": OpenAPIMediaType(schema=cast(Schema, body))},
            ),
            responses=responses,
        )
    )


def _path(call: str, operation_id: str) -> PathItem:
    is_batch = call in BATCH_CALLS
    responses = _responses("A verdict on each event; all that are accepted are durable", _json("Answer"))
    return PathItem(
        post=Operation(
            operation_id=operation_id,
            summary="Several events" if is_batch else f"One {call} event",
            tags=["events"],
            security=[{"writeKey": []}, {"bearerKey": []}],
            request_body=RequestBody(required=True, content=_json("Batch" if is_batch else "Single")),
            responses=responses,
        )
    )
