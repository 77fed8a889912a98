"""The contract with SDKs: requests that real ones made, the shared vectors, and the published schemas."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from referencing import Registry, Resource

from engine.domain.offers.rules import Namespace
from engine.domain.people.events import Event, Kind, Sender
from engine.formats import segment
from engine.formats.segment import Answer, Received, Rejection, Unreadable
from engine.formats.segment_time import parse_time

CAPTURES = Path(__file__).parent / "captures"
CONTRACT = Path(__file__).parent.parent / "sdk_contract"


def read(
    body: bytes,
    received_at: datetime,
    call: str = "batch",
    key: str = "public",
    server_only: tuple[str, ...] = (),
    retention_days: int = 395,
    namespaces: tuple[Namespace, ...] = (),
) -> Received:
    return segment.read(
        body,
        call=call,
        received_at=received_at,
        trusted=key == "server",
        server_only=server_only,
        retention=timedelta(days=retention_days),
        new_message_id=lambda: "generated",
        namespaces=namespaces,
    )


def instant(text: str) -> datetime:
    moment = parse_time(text)
    assert moment is not None
    return moment


def captured(name: str) -> tuple[bytes, dict[str, str], dict[str, Any]]:
    """A captured request as it went over the wire: body, headers, and the body's parsed form."""
    request = json.loads((CAPTURES / f"{name}.json").read_text())[0]
    separators = (",", ":") if name == "segment-node" else (", ", ": ")
    body = json.dumps(request["body"], separators=separators).encode()
    if not request["gzip"]:
        assert len(body) == request["wire_bytes"]
    headers = {key.lower(): value for key, value in request["headers"]}
    return (gzip.compress(body) if request["gzip"] else body), headers, request["body"]


@pytest.mark.parametrize("name", ["segment-python", "segment-node", "rudder-python-gzip"])
def test_a_captured_request_is_read_whole(name: str) -> None:
    wire, headers, sent = captured(name)
    body = segment.decode_body(wire, headers.get("content-encoding"))
    received = read(body, instant(sent["sentAt"]))

    assert received.rejected == ()
    assert received.write_key == sent.get("writeKey")
    assert [index for index, _ in received.events] == list(range(7))
    events = [event for _, event in received.events]
    assert [event.message_id for event in events] == [item["messageId"] for item in sent["batch"]]
    assert {event.sender for event in events} == {Sender.CLIENT}
    identify, order, screen, page, alias, group, anonymous = events
    assert [event.kind for event in events] == [
        Kind.IDENTIFY,
        Kind.TRACK,
        Kind.SCREEN,
        Kind.PAGE,
        Kind.ALIAS,
        Kind.GROUP,
        Kind.TRACK,
    ]
    assert identify.traits["email"] == "a@b.c"
    assert identify.device is not None
    assert (identify.device.id, identify.device.type, identify.device.token) == ("dev1", "ios", "tok")
    assert order.name == "Order Completed"
    assert order.properties == {"revenue": 12.5}
    assert order.timestamp == parse_time(sent["batch"][1]["timestamp"])
    assert (screen.name, page.name) == ("Home", "Docs")
    assert (alias.previous_id, alias.user_id) == ("anon1", "u1")
    assert (group.group_id, group.properties, group.traits) == ("g1", {"n": 1}, {})
    assert (anonymous.user_id, anonymous.anonymous_id) == (None, "anon9")
    for event in events:
        assert not {"ip", "location", "traits"} & event.context.keys()
        assert "tok" not in json.dumps(event.context)
    if name != "rudder-python-gzip":
        assert order.location is not None
        assert (order.location.latitude, order.location.longitude) == (40.7, -74.0)


def each_vector() -> Iterator[dict[str, Any]]:
    for path in sorted((CONTRACT / "vectors" / "ingest").glob("*.json")):
        yield from json.loads(path.read_text())["vectors"]


VECTORS = list(each_vector())


def vector_body(request: dict[str, Any]) -> bytes:
    text = request["bodyText"] if "bodyText" in request else json.dumps(request["body"])
    return str(text).encode()


def iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    timespec = "milliseconds" if moment.microsecond else "seconds"
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def outside(index: int, event: Event) -> dict[str, Any]:
    """An event in the vectors' words."""
    device, location = event.device, event.location
    return {
        "index": index,
        "kind": event.kind.value,
        "name": event.name,
        "messageId": event.message_id,
        "generatedMessageId": event.sender is Sender.GENERATED,
        "timestamp": iso(event.timestamp),
        "userId": event.user_id,
        "anonymousId": event.anonymous_id,
        "previousId": event.previous_id,
        "groupId": event.group_id,
        "properties": event.properties,
        "traits": event.traits,
        "context": event.context,
        "consent": event.consent,
        "trusted": event.trusted,
        "device": device
        and {
            "id": device.id,
            "type": device.type,
            **({} if device.token is msgspec.UNSET else {"token": device.token}),
            "provider": device.provider,
            "environment": device.environment,
            "app": device.app,
            "permissions": device.permissions,
        },
        "location": location
        and {
            "latitude": location.latitude,
            "longitude": location.longitude,
            "accuracy": location.accuracy,
            "altitude": location.altitude,
            "speed": location.speed,
            "heading": location.heading,
            "isMock": location.is_mock,
            "at": iso(location.at),
        },
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_vector(vector: dict[str, Any]) -> None:
    request, expected = vector["request"], vector["expect"]
    given: dict[str, Any] = {
        "received_at": instant(vector["receivedAt"]),
        "call": request["call"],
        "key": request.get("key", "public"),
        "server_only": tuple(request.get("serverOnly", ())),
        "retention_days": request.get("retentionDays", 395),
        "namespaces": tuple(
            Namespace(name=kind["namespace"], sources=tuple(tuple(path.split(".")) for path in kind["from"]))
            for kind in request.get("identities", ())
        ),
    }
    if "status" in expected:
        with pytest.raises(Unreadable) as caught:
            read(vector_body(request), **given)
        assert caught.value.status == expected["status"]
        return
    received = read(vector_body(request), **given)
    actual = [outside(index, event) for index, event in received.events]
    assert len(actual) == len(expected["events"])
    for event, expectation in zip(actual, expected["events"], strict=True):
        assert {key: event[key] for key in expectation} == expectation
    assert [
        {"index": rejection.index, "messageId": rejection.message_id, "code": rejection.code}
        for rejection in received.rejected
    ] == expected["rejected"]
    if "writeKey" in expected:
        assert received.write_key == expected["writeKey"]


def test_vector_ids_are_unique() -> None:
    ids = [vector["id"] for vector in VECTORS]
    assert len(ids) == len(set(ids)) > 40


SCHEMAS = {path.name: json.loads(path.read_text()) for path in (CONTRACT / "schemas").glob("*.json")}


def validator_of(name: str) -> jsonschema.Draft202012Validator:
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    registry: Registry[Any] = Registry().with_resources(
        [(schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()]
    )
    return jsonschema.Draft202012Validator(SCHEMAS[name], registry=registry)


SCHEMA_SEES = {
    "not_an_object",
    "unknown_type",
    "missing_identity",
    "missing_event",
    "latitude_out_of_range",
    "longitude_out_of_range",
    "invalid_timestamp",
    "not_a_number",
    "invalid_text",
}
# What a schema cannot know: the 30th of February, and the two ids of a merge.
SCHEMA_MISSES = {("time-011-unreadable", 2), ("identity-007-merge-of-one", 0)}


def test_the_event_schema_says_what_the_vectors_say() -> None:
    schema = validator_of("event.json")
    for vector in VECTORS:
        body = vector["request"].get("body")
        if body is None or "status" in vector["expect"] or vector.get("tolerated"):
            continue
        call = vector["request"]["call"]
        items = body["batch"] if call == "batch" or call == "import" else [{**body, "type": call}]
        refused = {rejection["index"]: rejection["code"] for rejection in vector["expect"]["rejected"]}
        for index, item in enumerate(items):
            if (vector["id"], index) in SCHEMA_MISSES:
                continue
            fits = schema.is_valid(item)
            assert fits == (refused.get(index) not in SCHEMA_SEES), (vector["id"], index)


@pytest.mark.parametrize("name", ["segment-python", "segment-node", "rudder-python-gzip"])
def test_captures_fit_the_batch_schema(name: str) -> None:
    validator_of("batch.json").validate(captured(name)[2])


def test_the_answer_is_what_its_schema_says() -> None:
    decision = {
        "id": "d1",
        "messageId": "m1",
        "offer": "free-latte",
        "outcome": "offered",
        "placement": None,
        "message": {"title": "Cold?", "body": None, "deeplink": None, "image": None},
        "expiresAt": "2026-11-24T10:30:00Z",
    }
    answer = Answer(
        accepted=2,
        rejected=(Rejection(1, None, "unknown_type", "type must be …"),),
        decisions=[decision],
    )
    encoded = json.loads(msgspec.json.encode(answer))
    schema = SCHEMAS["answer.json"]
    validator = validator_of("answer.json")
    validator.validate(encoded)
    assert encoded["rejected"][0] == {
        "index": 1,
        "messageId": None,
        "code": "unknown_type",
        "message": "type must be …",
    }
    assert encoded.keys() == schema["properties"].keys()
    assert encoded["rejected"][0].keys() == schema["$defs"]["rejection"]["properties"].keys()
    # The public form never shows a suppressed decision.
    assert not validator.is_valid({**encoded, "decisions": [{**decision, "outcome": "suppressed"}]})
