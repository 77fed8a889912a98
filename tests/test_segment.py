"""The Segment and RudderStack protocol: limits, broken bodies, and what must hold for any body."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.people.events import Event, Kind, Sender
from engine.formats import segment
from engine.formats.segment import Answer, Received, Unreadable

RECEIVED_AT = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
RETENTION = timedelta(days=395)


def read(body: Any, call: str = "batch", **given: Any) -> Received:
    numbers = count()
    settings: dict[str, Any] = {
        "received_at": RECEIVED_AT,
        "trusted": False,
        "server_only": frozenset(),
        "retention": RETENTION,
        "new_message_id": lambda: f"generated-{next(numbers)}",
    }
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return segment.read(raw, call=call, **{**settings, **given})


def codes(received: Received) -> list[str]:
    return [rejection.code for rejection in received.rejected]


def track(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Opened", "userId": "u1", "messageId": "m1", **fields}


def test_gzip_is_found_by_its_magic_bytes_and_by_no_header_alone() -> None:
    body = b'{"batch": []}'
    assert segment.decode_body(gzip.compress(body), None) == body
    assert segment.decode_body(gzip.compress(body), "gzip") == body
    assert segment.decode_body(body, "gzip") == body
    assert segment.decode_body(gzip.compress(b'{"ba') + gzip.compress(b'tch": []}'), "gzip") == body
    assert segment.decode_body(gzip.compress(body) + b"\0" * 8, "gzip") == body
    with pytest.raises(Unreadable) as caught:
        segment.decode_body(body, "br")
    assert caught.value.status == 400


def test_every_truncation_of_gzip_is_refused() -> None:
    whole = gzip.compress(b'{"batch": []}' * 20)
    for length in range(2, len(whole)):
        with pytest.raises(Unreadable) as caught:
            segment.decode_body(whole[:length], "gzip")
        assert caught.value.status == 400


def test_damaged_gzip_is_refused() -> None:
    whole = bytearray(gzip.compress(b'{"batch": []}' * 20))
    whole[-6] ^= 1  # the checksum
    for body in (bytes(whole), gzip.compress(b"{}") + b"rest", gzip.compress(b"") * 1_000):
        with pytest.raises(Unreadable) as caught:
            segment.decode_body(body, "gzip")
        assert caught.value.status == 400


def test_gzip_is_limited_to_the_byte_after_unpacking() -> None:
    assert len(segment.decode_body(gzip.compress(b"x" * 1_000), "gzip", 1_000)) == 1_000
    for body in (
        gzip.compress(b"x" * 1_001),
        gzip.compress(b"x" * 600) + gzip.compress(b"x" * 600),
        b"x" * 1_001,
    ):
        with pytest.raises(Unreadable) as caught:
            segment.decode_body(body, "gzip", 1_000)
        assert caught.value.status == 413


def test_a_gzip_bomb_leaves_memory_flat() -> None:
    compressor = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join([compressor.compress(bytes(1_000_000)) for _ in range(200)]) + compressor.flush()
    assert len(bomb) < segment.BODY_BYTES_MAX
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable) as caught:
            segment.decode_body(bomb, "gzip")
        assert caught.value.status == 413
        assert tracemalloc.get_traced_memory()[1] < 3 * segment.BODY_BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "call"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "batch"),
        (b"[" * 100_000, "track"),
        (b'{"batch":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "batch"),
        (b'{"batch":[NaN,' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "batch"),
        (b'{"a":' * 80_000 + b"1" + b"}" * 80_000, "batch"),
        (b'{"userId":"u","event":"e","properties":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "track"),
        (b"", "batch"),
        (b"null", "batch"),
        (b'"batch"', "track"),
        (b'{"batch": {}}', "batch"),
        (b'{"batch": null}', "b"),
        (b'{"batch": [tru]}', "import"),
        (b'{"userId": "u1"} {}', "identify"),
        (b'{"userId": "u\x00"}', "identify"),
        ('{"userId": "u1"}'.encode("utf-16"), "identify"),
    ],
)
def test_what_is_no_json_object_is_unreadable(body: bytes, call: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(body, call)
    assert caught.value.status == 400
    assert segment.write_key_in(body) is None


def test_limits_hold_to_the_byte_and_the_event() -> None:
    def sized(length: int) -> dict[str, Any]:
        event = track(properties={"x": ""})
        event["properties"]["x"] = "x" * (length - len(json.dumps(event)))
        assert len(json.dumps(event)) == length
        return event

    assert len(read({"batch": [sized(segment.EVENT_BYTES_MAX)]}).events) == 1
    received = read({"batch": [track(), sized(segment.EVENT_BYTES_MAX + 1), track()]})
    assert [index for index, _ in received.events] == [0, 2]
    assert received.rejected[0].code == "too_large"
    assert received.rejected[0].message_id == "m1"
    assert len(received.rejected_items[0]) == segment.EVENT_BYTES_MAX

    assert len(read(sized(segment.EVENT_BYTES_MAX), "track").events) == 1
    with pytest.raises(Unreadable) as caught:
        read(sized(segment.EVENT_BYTES_MAX + 1), "track")
    assert caught.value.status == 413

    assert len(read({"batch": [{"type": "page", "userId": "u"}] * 2_500}).events) == 2_500
    with pytest.raises(Unreadable) as caught:
        read({"batch": [{"type": "page", "userId": "u"}] * 2_501})
    assert caught.value.status == 413

    padding = b" " * (segment.BODY_BYTES_MAX - len(b'{"batch":[]}'))
    assert read(b'{"batch":[]}' + padding) == Received((), write_key=None)
    with pytest.raises(Unreadable) as caught:
        read(b'{"batch":[]}' + padding + b" ")
    assert caught.value.status == 413


def test_a_shared_context_counts_for_each_event() -> None:
    context = {"x": "x" * segment.EVENT_BYTES_MAX}
    assert codes(read({"context": context, "batch": [track(), track()]})) == ["too_large", "too_large"]


def test_a_shared_context_that_cannot_be_stored_is_on_every_event() -> None:
    body = b'{"context": {"x": 1e999}, "batch": [{"type": "page", "userId": "u"}, 7], "writeKey": "WK"}'
    received = read(body)
    assert codes(received) == ["not_a_number", "not_a_number"]
    assert received.write_key == "WK"


def test_depth_is_bounded_at_64() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    # The event and its properties are the first two levels.
    received = read({"batch": [track(properties={"x": nested(62)}), track(properties={"x": nested(63)})]})
    assert [index for index, _ in received.events] == [0]
    assert codes(received) == ["too_deep"]
    assert codes(read({"batch": [track(properties={"x": nested(500)}), track()]})) == ["too_deep"]
    # Broad is not deep.
    assert codes(read({"batch": [track(properties={"x": [[{}]] * 500})]})) == []


def test_bytes_that_are_no_utf8_are_a_verdict_of_their_event() -> None:
    body = b'{"batch":[{"type":"page","userId":"u","name":"caf\xe9"},{"type":"page","userId":"caf\xc3\xa9"}]}'
    received = read(body)
    assert codes(received) == ["invalid_text"]
    assert received.rejected_items == (b'{"type":"page","userId":"u","name":"caf\xe9"}',)
    assert received.events[0][1].user_id == "café"


@pytest.mark.parametrize(
    "field", ["category", "mergeProperties", "timestamp", "userId", "messageId", "properties"]
)
def test_a_wild_number_in_any_field_is_a_verdict(field: str) -> None:
    for number in (str(2**64), "1" * 400, "-" + "1" * 4_300, "1" * 5_000, "NaN", "1e999"):
        value = f'{{"x": {number}}}' if field == "properties" else number
        whole = json.dumps({**track(anonymousId="a1", type="page"), field: None})
        item = whole.replace(f'"{field}": null', f'"{field}": {value}')
        received = read(f'{{"batch": [{item}]}}'.encode())
        for _, event in received.events:
            storable(event)
        assert len(received.events) + len(received.rejected) == 1
        if number in ("NaN", "1e999") or len(number) == 5_000:
            assert codes(received) == ["not_a_number"]


def test_what_is_wrong_with_an_ignored_field_is_ignored() -> None:
    """Whatever its neighbours: the same item alone, and beside one that needs the tolerant parser."""
    for damage in (b"1e999", b"NaN", b'"\\ud800"', b'"\xff"', b"[" * 100 + b"]" * 100, b"1" * 5_000):
        item = b'{"type":"page","userId":"u1","new":' + damage + b"}"
        for neighbour in (b"7", b"NaN"):
            received = read(b'{"batch":[' + item + b"," + neighbour + b"]}")
            assert [index for index, _ in received.events] == [0], damage
        assert len(read(item, "page").events) == 1


def test_a_byte_order_mark_is_no_fault() -> None:
    assert len(read(b"\xef\xbb\xbf" + json.dumps(track()).encode(), "track").events) == 1
    assert len(read(b"\xef\xbb\xbf" + json.dumps({"batch": [track()]}).encode()).events) == 1


def test_the_write_key_is_found_before_and_after_reading() -> None:
    for body in (b'{"writeKey": "WK", "batch": []}', b'{"writeKey": "WK", "batch": [NaN, "\\ud800"]}'):
        assert segment.write_key_in(body) == "WK"
        assert read(body).write_key == "WK"
    single = json.dumps({**track(), "writeKey": "WK"}).encode()
    assert read(single, "track").write_key == segment.write_key_in(single) == "WK"
    assert segment.write_key_in(b'{"writeKey": 7}') is None


def test_ids_fit_into_the_databases_keys() -> None:
    long = "x" * 513
    received = read(
        {"batch": [track(userId=long), track(anonymousId=long), track(event=long), track(userId="x" * 512)]}
    )
    assert codes(received) == ["too_large"] * 3
    assert [index for index, _ in received.events] == [3]


def test_a_long_message_id_is_recognised_by_its_digest() -> None:
    events = read(
        {"batch": [track(messageId="x" * 256), track(messageId="x" * 257), track(messageId="x" * 257)]}
    ).events
    ids = [event.message_id for _, event in events]
    assert ids[0] == "x" * 256
    assert ids[1] == ids[2]
    assert len(ids[1]) <= 256
    assert ids[1] != read(track(messageId="x" * 258), "track").events[0][1].message_id


def test_a_missing_message_id_is_generated_in_a_space_of_its_own() -> None:
    events = read(
        {"batch": [track(messageId=None), track(messageId=""), track(messageId="generated-0")]}
    ).events
    assert [(event.message_id, event.sender) for _, event in events] == [
        ("generated-0", Sender.GENERATED),
        ("generated-1", Sender.GENERATED),
        ("generated-0", Sender.CLIENT),
    ]


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([2**64, -(2**63) - 1, 10**400, -(10**308)]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(), st.text(alphabet="\0\ud800\udfff\\u0é😀")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
POSITIONS = st.fixed_dictionaries(
    {},
    optional={
        field: st.one_of(st.floats(-200, 200), JSON)
        for field in (
            "latitude",
            "longitude",
            "accuracy",
            "altitude",
            "speed",
            "heading",
            "isMock",
            "timestamp",
        )
    },
)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "location": st.one_of(POSITIONS, JSON),
        "device": st.one_of(
            st.fixed_dictionaries({}, optional={"id": JSON, "type": JSON, "token": JSON}), JSON
        ),
        "permissions": st.one_of(OBJECTS, JSON),
        "pushProvider": JSON,
        "app": st.one_of(st.fixed_dictionaries({"namespace": JSON}), JSON),
        "consent": st.one_of(st.fixed_dictionaries({"categoryPreferences": st.one_of(OBJECTS, JSON)}), JSON),
        "traits": st.one_of(OBJECTS, JSON),
    },
)
ITEMS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"type": st.one_of(st.sampled_from([kind.value for kind in Kind]), JSON)},
        optional={
            "event": st.one_of(st.sampled_from(["Location Updated", "Opened"]), JSON),
            "userId": st.one_of(st.just("u1"), JSON),
            "anonymousId": JSON,
            "previousId": JSON,
            "groupId": JSON,
            "messageId": JSON,
            "name": JSON,
            "category": JSON,
            "timestamp": JSON,
            "originalTimestamp": JSON,
            "sentAt": JSON,
            "properties": st.one_of(POSITIONS, JSON),
            "traits": st.one_of(st.dictionaries(st.sampled_from(["consent", "consent.a", "b"]), JSON), JSON),
            "context": st.one_of(CONTEXTS, JSON),
            "mergeProperties": st.lists(st.fixed_dictionaries({"type": JSON, "value": JSON})),
            "unknown": JSON,
        },
    ),
)


def storable(event: Event) -> None:
    """What PostgreSQL and MessagePack demand of an event; raises where one of them would."""
    msgspec.msgpack.encode(event)
    encoded = json.dumps(msgspec.to_builtins(event), allow_nan=False, ensure_ascii=False).encode()
    assert b"\\u0000" not in encoded.replace(b"\\\\", b"")


@settings(max_examples=400, deadline=None)
@given(items=st.lists(ITEMS, max_size=5), context=st.one_of(st.none(), CONTEXTS), ascii=st.booleans())
def test_any_items_get_one_verdict_each(items: list[Any], context: Any, ascii: bool) -> None:
    """NaN, halves of emojis and all: whatever Python's json writes."""
    body = json.dumps({"batch": items, "context": context}, ensure_ascii=ascii).encode(
        "utf-8", "surrogatepass"
    )
    received = read(body)
    indices = [index for index, _ in received.events] + [rejection.index for rejection in received.rejected]
    assert sorted(indices) == list(range(len(items)))
    assert len(received.rejected) == len(received.rejected_items)
    for _, event in received.events:
        storable(event)
        assert "token" not in event.context.get("device", ()) or not isinstance(event.context["device"], dict)
    answer = Answer(accepted=len(received.events), rejected=received.rejected)
    schema_answer = json.loads(msgspec.json.encode(answer))
    assert "\0" not in str([rejection["messageId"] for rejection in schema_answer["rejected"]])


@settings(max_examples=100, deadline=None)
@given(item=ITEMS, call=st.sampled_from([kind.value for kind in Kind]))
def test_a_single_call_and_a_batch_agree(item: Any, call: str) -> None:
    def verdict(received: Received) -> Any:
        return received.events[0][1] if received.events else received.rejected[0].code

    if not isinstance(item, dict):
        with pytest.raises(Unreadable):
            read(item, call)
        return
    typed = {**item, "type": call}
    assert verdict(read(typed, call)) == verdict(read({"batch": [typed]}))


@settings(max_examples=300, deadline=None)
@given(
    body=st.one_of(st.binary(), st.binary().map(lambda tail: b'{"batch":[' + tail)),
    call=st.sampled_from(["batch", "track"]),
)
def test_any_bytes_are_read_or_unreadable(body: bytes, call: str) -> None:
    status = 200
    try:
        read(segment.decode_body(body, None), call)
    except Unreadable as unreadable:
        status = unreadable.status
    assert status in (200, 400)


@given(st.integers(min_value=0), st.data())
def test_a_cut_body_is_unreadable(seed: int, data: st.DataObject) -> None:
    body = json.dumps(
        {"batch": [track(properties={"n": seed, "text": "é\u2028"})]}, ensure_ascii=False
    ).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(Unreadable) as caught:
        read(body[:cut])
    assert caught.value.status == 400


def test_no_repr_and_no_sentence_shows_a_value() -> None:
    secrets = {"latitude": 52.661234, "longitude": -8.629876, "accuracy": "4711 secret"}
    nearby = {"latitude": 52.661234, "longitude": 1}
    body = {
        "batch": [
            track(userId="ada@example.com", context={"location": secrets, "device": {"token": "s3cret"}}),
            track(
                traits={"email": "ada@example.com"},
                context={"location": nearby, "device": {"token": "s3cret"}},
            ),
        ]
    }
    received = read(body)
    assert codes(received) == ["not_a_number"]
    shown = repr(received) + repr(received.events) + repr(received.rejected)
    for value in ("52.66", "8.62", "4711", "ada@", "s3cret"):
        assert value not in shown
