"""XDM records: what they mean here, and that they come out as they went in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.people import identity
from engine.domain.people.events import Event, Kind, Sender
from engine.domain.people.profiles import Consent
from engine.formats import xdm, xdm_identities
from engine.formats.segment import Unreadable
from engine.formats.segment import read as read_segment
from tests import xdm_records
from tests.test_segment_contract import instant, iso, outside, vector_body
from tests.xdm_records import NOW, event_of, person_after, read

CONTRACT = Path(__file__).parent.parent / "sdk_contract"
HERE = xdm_records.workspace()
EXAMPLES = dict(xdm_records.examples())
VECTORS = json.loads((CONTRACT / "vectors" / "xdm" / "records.json").read_text())
WHO = {"identityMap": {"ECID": [{"id": "e1"}]}}
WHEN = {"_id": "m1", "timestamp": "2026-11-01T11:59:00Z"}


def within(part: Any, whole: Any) -> bool:
    """Whether everything that one record says, the other says as well."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return bool(part == whole)


def told(event: Event, names: xdm.Names = "as_sent") -> dict[str, Any]:
    """The record of an event, or of the person that a profile's record made."""
    if event.kind is not Kind.IDENTIFY:
        return xdm.event_record(event, HERE, names)
    return xdm.profile_record(person_after(event, HERE), HERE, {}, names)


# round trips


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_public_example_comes_out_as_it_went_in(name: str) -> None:
    record = EXAMPLES[name]
    event = event_of(record, HERE)
    out = told(event)
    if event.kind is Kind.IDENTIFY:
        assert within(record, out), out
        assert out.keys() - record.keys() <= {"viewfinder:_viewfinder", "xdm:consents"}
    else:
        assert out == record
    assert event_of(out, HERE) == event
    plain = told(event, "plain")
    assert not [key for key in plain if ":" in key]
    assert told(event_of(plain, HERE), "plain") == plain


def test_the_examples_are_there() -> None:
    assert len(EXAMPLES) >= 37


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-1e6, 1e6)
    | st.text("abé☕", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc_", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
IDS = st.text("ab1-", min_size=1, max_size=6)
ITEM = st.fixed_dictionaries(
    {"id": IDS},
    optional={
        "primary": st.booleans(),
        "authenticatedState": st.sampled_from(["ambiguous", "authenticated", "loggedOut"]),
        "more": JSON,
    },
)
MAPS = st.dictionaries(
    st.sampled_from(["ECID", "Email", "CRMID", "Phone", "AVID", "loyalty_card", "https://x/4"]),
    st.lists(ITEM, min_size=1, max_size=3),
    max_size=4,
).map(lambda found: {"ECID": [{"id": "e1"}], **found})
CHOICES = st.fixed_dictionaries(
    {"val": st.sampled_from(["y", "n", "p", "u", "dy", "dn", "LI", "VI"])},
    optional={
        "time": st.sampled_from(["2026-01-02T03:04:05Z", "2020-01-01T00:00:00+01:00", "then"]),
        "reason": JSON,
    },
)
CONSENTS = st.fixed_dictionaries(
    {},
    optional={
        "collect": CHOICES,
        "share": CHOICES,
        "personalize": st.fixed_dictionaries({"content": CHOICES}),
        "marketing": st.dictionaries(
            st.sampled_from(["any", "push", "email", "postalMail"]), CHOICES, max_size=3
        ),
        "metadata": st.fixed_dictionaries({"time": st.just("2026-05-05T05:05:05Z")}),
        "idSpecific": JSON,
    },
)
MEASURE = st.fixed_dictionaries({"value": st.integers(0, 2)}) | JSON
GEO = st.fixed_dictionaries(
    {"_schema": st.fixed_dictionaries({"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)})},
    optional={"city": st.just("Limerick"), "more": JSON},
)
PLACES = st.fixed_dictionaries(
    {},
    optional={
        "geo": GEO | JSON,
        "ianaTimezone": st.just("Europe/Dublin"),
        "POIinteraction": st.fixed_dictionaries(
            {},
            optional={
                "poiEntries": MEASURE,
                "poiExits": MEASURE,
                "poiDetail": st.fixed_dictionaries(
                    {},
                    optional={
                        "poiID": IDS,
                        "name": IDS,
                        "geoInteractionDetails": st.fixed_dictionaries(
                            {"deviceGeoAccuracy": st.floats(0, 500)}
                        ),
                    },
                )
                | JSON,
            },
        )
        | JSON,
    },
)
LINES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "SKU": IDS,
            "quantity": st.integers(0, 5),
            "priceTotal": st.floats(0, 1e5),
            "name": IDS,
            "x": JSON,
        },
    )
    | JSON,
    max_size=3,
)
COMMERCE = st.fixed_dictionaries(
    {},
    optional={
        "order": st.fixed_dictionaries(
            {},
            optional={
                "purchaseID": IDS,
                "priceTotal": st.floats(0, 1e5),
                "currencyCode": st.just("EUR"),
                "x": JSON,
            },
        )
        | JSON,
        "purchases": MEASURE,
        "productViews": MEASURE,
        "cart": JSON,
    },
)
EVENTS = st.fixed_dictionaries(
    {"_id": IDS, "timestamp": st.sampled_from(["2026-10-31T09:00:00.5+02:00", "2017-09-26T15:52:25+00:00"])},
    optional={
        "identityMap": MAPS,
        "eventType": st.sampled_from(
            [
                "commerce.purchases",
                "web.webpagedetails.pageViews",
                "location.entry",
                "Some Thing",
                "application.launch",
            ]
        ),
        "placeContext": PLACES | JSON,
        "commerce": COMMERCE | JSON,
        "productListItems": LINES | JSON,
        "web": JSON,
        "environment": JSON,
        "device": st.fixed_dictionaries(
            {
                "locationPermission": st.sampled_from(["ALWAYS_ALLOWED", "UNPROMPTED"]),
                "isPushOptIn": st.booleans(),
            }
        )
        | JSON,
        "consents": CONSENTS | JSON,
        "revenue": JSON,
        "_tenant": JSON,
    },
).map(lambda found: WHO | found)
PERSON = st.fixed_dictionaries(
    {},
    optional={
        "name": st.fixed_dictionaries({}, optional={"firstName": IDS | JSON, "middleName": IDS}),
        "birthDate": st.sampled_from(["1990-01-02", "unknown"]),
        "more": JSON,
    },
)
PUSHES = st.lists(
    st.fixed_dictionaries(
        {"token": IDS, "platform": st.sampled_from(["apns", "apnsSandbox", "fcm", "pigeon"])},
        optional={"appID": IDS, "denylisted": st.booleans(), "identity": st.fixed_dictionaries({"id": IDS})},
    ),
    max_size=3,
)
PROFILES = st.fixed_dictionaries(
    {"identityMap": MAPS},
    optional={
        "person": PERSON | JSON,
        "personalEmail": st.fixed_dictionaries({"address": IDS}, optional={"primary": st.booleans()}) | JSON,
        "loyalty": st.fixed_dictionaries({}, optional={"tier": IDS, "points": st.integers(0, 9), "x": JSON})
        | JSON,
        "consents": CONSENTS | JSON,
        "pushNotificationDetails": PUSHES | JSON,
        "segmentMembership": JSON,
        "homeAddress": JSON,
        "_tenant": JSON,
    },
).map(lambda found: {name: value for name, value in found.items() if value is not None})


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_an_event_comes_out_as_it_went_in(record: dict[str, Any]) -> None:
    event = event_of(record, HERE)
    out = told(event)
    assert out == record
    assert event_of(out, HERE) == event
    prefixed = told(event, "prefixed")
    assert told(event_of(prefixed, HERE), "plain") == record


@settings(max_examples=300, deadline=None)
@given(PROFILES)
def test_a_profile_comes_out_as_it_went_in(record: dict[str, Any]) -> None:
    event = event_of(record, HERE)
    out = told(event)
    assert within(record, out)
    assert event_of(out, HERE) == event


PROPERTIES = st.dictionaries(
    st.sampled_from(
        ["order_id", "revenue", "currency", "products", "sku", "price", "quantity", "geofence", "url", "x"]
    ),
    JSON
    | st.lists(
        st.fixed_dictionaries({"sku": IDS, "price": st.floats(0, 1e4), "quantity": st.integers(0, 3)})
    ),
    max_size=5,
)
SEGMENT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["track", "page", "screen", "identify", "group"]),
        "event": st.sampled_from(
            ["Order Completed", "Product Added", "Geofence Exited", "Location Updated", "Other"]
        ),
        "anonymousId": IDS,
        "messageId": IDS,
        "timestamp": st.just("2026-10-31T09:00:00.123Z"),
        "properties": PROPERTIES,
    },
    optional={
        "userId": IDS,
        "groupId": IDS,
        "traits": st.dictionaries(st.sampled_from(["email", "first_name", "consent", "z"]), IDS, max_size=3),
        "context": st.fixed_dictionaries(
            {},
            optional={
                "location": st.fixed_dictionaries(
                    {"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)},
                    optional={
                        "accuracy": st.floats(0, 99),
                        "speed": st.floats(0, 9),
                        "isMock": st.booleans(),
                    },
                ),
                "device": st.fixed_dictionaries(
                    {"id": IDS, "type": st.just("ios")}, optional={"token": IDS | st.none()}
                ),
                "permissions": st.fixed_dictionaries({"push": st.just("granted")}),
                "consent": st.fixed_dictionaries(
                    {"categoryPreferences": st.fixed_dictionaries({"C1": st.booleans()})}
                ),
                "timezone": st.just("Europe/Dublin"),
                "app": st.fixed_dictionaries({"namespace": IDS}),
                "pushProvider": st.just("apns"),
            },
        ),
    },
)


@settings(max_examples=300, deadline=None)
@given(SEGMENT)
def test_an_event_of_another_protocol_is_the_same_after_xdm(sent: dict[str, Any]) -> None:
    received = read_segment(
        json.dumps({"batch": [sent]}).encode(),
        call="batch",
        received_at=NOW,
        trusted=True,
        server_only=(),
        retention=timedelta(days=396),
        new_message_id=lambda: "generated",
        namespaces=HERE.namespaces,
    )
    ((_, event),) = received.events
    record = xdm.event_record(event, HERE)
    again = event_of(record, HERE)
    assert xdm.event_record(again, HERE) == record
    assert set(identity.keys_of(again, HERE.namespaces)) == set(identity.keys_of(event, HERE.namespaces))
    same = {"identities": (), "raw_timestamp": None, "sent_at": None}
    assert msgspec.structs.replace(again, **same) == msgspec.structs.replace(event, **same)


# fmt: off
WORDS = [
    "identityMap", "xdm", "ECID", "id", "consents", "marketing", "any", "val", "placeContext",
    "geo", "_schema", "latitude", "longitude", "commerce", "order", "_viewfinder", "type",
    "location", "traits", "properties", "context", "device", "eventType", "timestamp", "_id",
    "productListItems", "pushNotificationDetails", "odd", "xdm:web", "@id", "schema:latitude",
    "library", "name", "derived", "body", "event", "segmentMembership",
]
# fmt: on
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(ANY)
def test_no_record_is_too_odd(value: Any) -> None:
    """A verdict or an event, whatever comes; and what was taken can be told again."""
    try:
        received = read(json.dumps(value).encode(), HERE)
    except Unreadable:
        return
    for _, event in received.events:
        told(event, "prefixed")


@given(ANY)
def test_what_stands_in_a_context_breaks_no_export(value: Any) -> None:
    context = {
        "library": {"name": "xdm"},
        "xdm": value if isinstance(value, dict) else {"odd": value, "derived": value},
    }
    event = Event(
        kind=Kind.TRACK,
        name="x",
        message_id="m",
        received_at=NOW,
        timestamp=NOW,
        user_id="u",
        context=context,
    )
    msgspec.json.encode(xdm.event_record(event, HERE))


# what records mean


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["id"])
def test_vector(vector: dict[str, Any]) -> None:
    given_workspace = xdm_records.workspace(json.dumps(VECTORS["workspace"]).encode())
    request, expected = vector["request"], vector["expect"]

    def taken() -> Any:
        return xdm.read(
            vector_body(request),
            received_at=instant(vector["receivedAt"]),
            trusted=request.get("key") == "server",
            gpc=False,
            workspace=given_workspace,
            retention=timedelta(days=395),
            new_message_id=lambda: "generated",
        )

    if "status" in expected:
        with pytest.raises(Unreadable) as caught:
            taken()
        assert caught.value.status == expected["status"]
        return
    received = taken()
    rejected = [{"index": r.index, "messageId": r.message_id, "code": r.code} for r in received.rejected]
    assert rejected == expected["rejected"]
    assert len(received.events) == len(expected["events"])
    for (index, event), expectation in zip(received.events, expected["events"], strict=True):
        actual = {
            **outside(index, event),
            "identities": [list(key) for key in identity.keys_of(event, given_workspace.namespaces)],
            "consentAt": {name: iso(time) for name, time in event.consent_at.items()},
        }
        assert {key: actual[key] for key in expectation} == expectation


def test_a_single_record_has_a_limit_and_a_batch_a_verdict() -> None:
    large = {**WHO, **WHEN, "_acme": {"text": "x" * 33_000}}
    with pytest.raises(Unreadable) as caught:
        read(large, HERE)
    assert caught.value.status == 413
    received = read([large, {**WHO, **WHEN}], HERE)
    assert [r.code for r in received.rejected] == ["too_large"]
    assert len(received.events) == 1
    with pytest.raises(Unreadable) as caught:
        read([{}] * 2_501, HERE)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b'[{"_id":"a","x":NaN},{"_id":"b","x":"\\u0000"},{"_id":"c","x":1e999}]', ["not_a_number"] * 2),
        (b'[{"_id":"a","x":"\\ud83d"}]', ["invalid_text"]),
        (b'[{"_id":"a","x":' + b"[" * 80 + b"]" * 80 + b"}]", ["too_deep"]),
    ],
)
def test_one_bad_record_never_fails_its_batch(body: bytes, codes: list[str]) -> None:
    good = json.dumps({**WHO, **WHEN}).encode()
    received = read(body[:-1] + b"," + good + b"]", HERE)
    assert [r.code for r in received.rejected if r.code in codes] == codes
    assert [event.message_id for _, event in received.events] == ["m1"]


@pytest.mark.parametrize("body", [b"", b"17", b"[", b'{"a":1},{}', b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_json_is_refused_whole(body: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        read(body, HERE)
    assert caught.value.status == 400


# profiles that changed since


def test_what_was_said_since_is_what_comes_out() -> None:
    record = {
        "identityMap": {"CRMID": [{"id": "u1"}], "Email": [{"id": "old@example.com"}], "AVID": [{"id": "a"}]},
        "person": {"name": {"firstName": "Ada", "lastName": "Lovelace"}},
        "consents": {
            "marketing": {"any": {"val": "y"}, "push": {"val": "y", "reason": "nice"}},
            "share": {"val": "y"},
        },
    }
    person = person_after(event_of(record, HERE), HERE)
    assert person.consent["marketing"].granted
    later = Event(
        kind=Kind.IDENTIFY,
        message_id="m2",
        received_at=NOW,
        timestamp=NOW,
        user_id="u1",
        traits={"first_name": "Bea", "do_not_sell": True, "shoe_size": 38},
        consent={"marketing": False, "C0005": True},
    )
    person = person_after(later, HERE, person)
    moved = tuple(i for i in person.identities if i.namespace != "email")
    person = msgspec.structs.replace(person, identities=moved)
    out = xdm.profile_record(person, HERE, {"id": person.id, "version": 2, "traits": {}})
    assert out["identityMap"] == {"CRMID": [{"id": "u1"}], "AVID": [{"id": "a"}]}
    assert out["person"] == {"name": {"firstName": "Bea", "lastName": "Lovelace"}}
    time = NOW.isoformat()
    assert out["consents"] == {
        "marketing": {
            "any": {"val": "n", "time": time},
            "push": {"val": "n", "time": time, "reason": "nice"},
        },
        "share": {"val": "n"},
    }
    assert out["_viewfinder"] == {
        "id": person.id,
        "version": 2,
        "traits": {"shoe_size": 38},
        "consents": {"partners": {"val": "y", "time": time}},
    }
    again = person_after(event_of(out, HERE), HERE)
    assert xdm.profile_record(again, HERE, {"id": person.id, "version": 2}) == out


def test_a_person_who_came_by_another_protocol() -> None:
    told = Event(
        kind=Kind.IDENTIFY,
        message_id="m1",
        received_at=NOW,
        timestamp=NOW,
        user_id="u1",
        anonymous_id="a1",
        traits={
            "first_name": "Ada",
            "lastName": "Lovelace",
            "email": "ada@example.com",
            "loyalty_tier": "gold",
            "vegan": True,
            "address": {"street": "1 Henry St", "city": "Limerick", "floor": 3},
        },
        consent={"marketing": True},
    )
    out = xdm.profile_record(person_after(told, HERE), HERE, {})
    assert out == {
        "identityMap": {
            "CRMID": [{"id": "u1", "primary": True}],
            "Email": [{"id": "ada@example.com"}],
            "ECID": [{"id": "a1"}],
        },
        "person": {"name": {"firstName": "Ada", "lastName": "Lovelace"}},
        "personalEmail": {"address": "ada@example.com"},
        "loyalty": {"tier": "gold"},
        "homeAddress": {"street1": "1 Henry St", "city": "Limerick"},
        "consents": {"marketing": {"any": {"val": "y", "time": NOW.isoformat()}}},
        "_viewfinder": {"traits": {"vegan": True, "address": {"floor": 3}}},
    }


SEGMENTS = st.dictionaries(
    st.text("ab/#~", max_size=5),
    st.text("x", max_size=900) | st.dictionaries(IDS, st.text("xyz", max_size=3)),
    max_size=9,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text("a/#~", min_size=1, max_size=3), SEGMENTS, max_size=4), min_size=1, max_size=3
    )
)
def test_a_large_field_is_kept_in_parts(fields: list[dict[str, Any]]) -> None:
    """And is replaced whole."""
    person = None
    for minute, field in enumerate(fields):
        record = {"identityMap": {"ECID": [{"id": "e1"}]}, "segments": {"all": field, "few": {"a": 1}}}
        event = msgspec.structs.replace(event_of(record, HERE), timestamp=NOW - timedelta(minutes=9 - minute))
        person = person_after(event, HERE, person)
        assert all(len(msgspec.msgpack.encode(trait.value)) <= 4_000 for trait in person.traits.values())
        out = xdm.profile_record(person, HERE, {})
        assert out["segments"] == record["segments"]


def test_hundreds_of_segments_over_the_years() -> None:
    entry = {"status": "realized", "lastQualificationTime": "2026-01-01T00:00:00Z"}
    ups = {f"{n:032x}": entry for n in range(200)}
    record = {"identityMap": {"ECID": [{"id": "e1"}]}, "segmentMembership": {"ups": ups}}
    event = event_of(record, HERE)
    assert len(event.traits) > 5
    out = told(event)
    assert out["segmentMembership"] == record["segmentMembership"]
    assert event_of(out, HERE) == event


def test_an_older_choice_never_overrides_a_newer_one() -> None:
    said = Consent(False, datetime(2026, 6, 1, tzinfo=UTC), "marketing")
    who = {"identityMap": {"CRMID": [{"id": "u1"}]}}
    person = person_after(event_of(who, HERE), HERE)
    person = msgspec.structs.replace(person, consent={"marketing": said})
    for time, granted in (("2026-05-31T23:59:59Z", False), ("2026-06-01T00:00:01Z", True)):
        stated = {**who, "consents": {"marketing": {"any": {"val": "y"}}, "metadata": {"time": time}}}
        assert person_after(event_of(stated, HERE), HERE, person).consent["marketing"].granted is granted
    ahead = {
        **who,
        "consents": {"marketing": {"any": {"val": "y"}}, "metadata": {"time": "2036-01-01T00:00:00Z"}},
    }
    assert person_after(event_of(ahead, HERE), HERE, person).consent["marketing"].at == NOW


def test_a_purpose_of_its_own_for_push() -> None:
    given_workspace = xdm_records.workspace(
        xdm_records.WORKSPACE.replace(
            b"    letters:", b"    pushes: {basis: consent, from: [push]}\n    letters:"
        )
    )
    who = {"identityMap": {"CRMID": [{"id": "u1"}]}}
    stated = {**who, "consents": {"marketing": {"any": {"val": "y"}, "push": {"val": "n"}}}}
    found = person_after(event_of(stated, given_workspace), given_workspace).consent
    assert {name: said.granted for name, said in found.items()} == {"marketing": True, "pushes": False}


def test_nothing_personal_in_a_repr() -> None:
    record = EXAMPLES["classes/profile.example.1.json"]
    event = event_of(record, HERE)
    who = xdm_identities.named({"Email": [{"id": "jane@doe.com"}]}, HERE.namespaces)
    assert "jane" not in repr(event) + repr(who) + repr(read(record, HERE))
    assert event.sender is Sender.GENERATED


def test_who_was_erased_is_in_no_list_of_ids() -> None:
    listed = xdm_records.workspace(
        xdm_records.WORKSPACE.replace(b"from: [traits.loyalty_card]", b"from: [context.externalId]")
    ).namespaces
    told = Event(
        kind=Kind.TRACK,
        name="x",
        message_id="m",
        received_at=NOW,
        timestamp=NOW,
        user_id="u1",
        context={"externalId": [{"type": "loyalty_card", "id": "C7"}]},
    )
    assert identity.keys_of(told, listed) == (("user_id", "u1"), ("loyalty_card", "C7"))
    left = identity.without(told, {("loyalty_card", "C7")}, listed)
    assert (identity.keys_of(left, listed), left.context) == ((("user_id", "u1"),), {})


def test_who_was_erased_is_in_no_kept_map() -> None:
    who = {
        "CRMID": [{"id": "u1"}],
        "ECID": [{"id": "e1"}, {"id": "e2"}],
        "Email": [{"id": "Ada@Example.com"}],
    }
    gone = {("email", "ada@example.com"), ("anonymous_id", "e2"), ("user_id", "u1")}
    many = {f"namespace-{n}": [{"id": "x" * 900}] for n in range(9)}
    for record in (
        {"identityMap": who, **WHEN},
        {"identityMap": who, "person": {"gender": "female"}},
        {"identityMap": {**many, **who}, "person": {"gender": "female"}},
    ):
        left = identity.without(event_of(record, HERE), gone, HERE.namespaces)
        assert identity.keys_of(left, HERE.namespaces) == (("anonymous_id", "e1"),)
        text = msgspec.json.encode([left, told(left)]).decode().casefold()
        assert not [word for word in ("ada@", "e2", "u1") if word in text]
        assert "e1" in text
