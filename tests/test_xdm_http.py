"""XDM over HTTP: records in, decided on like every event, and out again to whoever may see them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import lanes, served, xdm_records
from tests.served import SERVER_KEY, Served, write_workspace
from tests.test_xdm import EXAMPLES, within


class House:
    """A running engine with its keys."""

    def __init__(self, engine: Served, dsn: str, folder: Path) -> None:
        self.engine = engine
        self.dsn = dsn
        self.folder = folder
        self.app = engine.client()
        self.server = engine.client(SERVER_KEY)
        self.admin = engine.admin()

    def person(self, namespace: str, value: str, **query: Any) -> Any:
        asked = {"namespace": namespace, "value": value}
        answer = self.admin.post("/admin/profiles/lookup", json=asked, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, ecid: str, **query: Any) -> Any:
        path = f"/admin/profiles/anonymous_id/{ecid}/events"
        return self.admin.get(path, params={"format": "xdm", **query}).json()


@pytest.fixture(scope="module")
def house(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("xdm")
    audiences = b"audiences:\n  fresh: profile.orders == 0\n"
    write_workspace(folder / "rules", xdm_records.WORKSPACE, lanes.RULES + audiences)
    with served.database(postgres, "test_xdm") as dsn, served.serve(folder, dsn) as engine:
        yield House(engine, dsn, folder)


def test_the_public_examples_over_the_wire(house: House) -> None:
    for number, (name, example) in enumerate(EXAMPLES.items()):
        # Some have an id in common, as no two events of a person can.
        record = {**example, "@id": f"example-{number}"} if "xdm:timestamp" in example else example
        answer = house.server.post("/v1/xdm", json=record).json()
        assert (answer["accepted"], answer["rejected"]) == (1, []), name
        codes = record["xdm:identityMap"]
        items = codes.get("ECID") or codes.get("https://data.adobe.io/entities/namespace/4")
        ecid = items[0]["xdm:id"] if items else None
        if "xdm:timestamp" not in record:
            out = house.person("anonymous_id", ecid, format="xdm")
            # By now the person is known by what other examples said, too.
            ids = {
                code: [item for item in out["xdm:identityMap"][code] if item in codes[code]] for code in codes
            }
            assert within(record, {**out, "xdm:identityMap": ids}), name
        elif ecid is not None:
            assert house.events(ecid)["events"][0] == record, name


def test_a_record_is_known_again_by_its_id(house: House) -> None:
    who = {"identityMap": {"ECID": [{"id": "again"}]}}
    event = {**who, "_id": "again-1", "timestamp": "2026-11-01T10:00:00Z", "eventType": "media.play"}
    other = {**event, "_id": "again-2"}
    first, second = (house.app.post("/v1/xdm", json=[event, sent]).json() for sent in (other, other))
    assert (first["accepted"], first["duplicates"]) == (2, 0)
    assert (second["accepted"], second["duplicates"]) == (0, 2)
    told = house.events("again")
    assert told == {"events": [other, event], "before": None}
    page = house.events("again", limit=1)
    assert page["events"] == [other]
    assert house.events("again", before=page["before"])["events"] == [event]
    # What comes out goes in again, and is what is there already.
    assert house.app.post("/v1/xdm", json=told).json()["duplicates"] == 2


def test_an_offer_for_somebody_who_came_by_xdm_alone(house: House) -> None:
    who = {"ECID": [{"id": "walker"}, {"id": "walker-web"}], "Email": [{"id": "Walker@Example.com"}]}
    profile = {
        "identityMap": who,
        "person": {"name": {"firstName": "Ada", "lastName": "Lovelace"}},
        "consents": {"marketing": {"push": {"val": "y"}}, "metadata": {"time": "2026-10-01T00:00:00Z"}},
        "pushNotificationDetails": [{"token": "t-walker", "platform": "fcm", "denylisted": False}],
    }
    envelope = {"header": {"datasetId": "d"}, "body": {"xdmMeta": {}, "xdmEntity": profile}}
    assert house.app.post("/v1/xdm", json=envelope).json()["accepted"] == 1
    entry = {
        "_id": "walker-1",
        "timestamp": datetime.now(UTC).isoformat(),
        "eventType": "location.entry",
        "identityMap": {"ECID": [{"id": "walker-web"}]},
        "placeContext": {"POIinteraction": {"poiDetail": {"poiID": "cafe"}, "poiEntries": {"value": 1}}},
    }
    answer = house.server.post("/v1/xdm", json=entry).json()
    (decision,) = answer["decisions"]
    assert (decision["offer"], decision["outcome"], decision["trigger"]) == ("latte", "offered", "enter")
    assert decision["message"]["title"] == "Hi Ada"

    shown = house.person("email", "walker@example.com")
    assert shown["traits"]["first_name"] == "Ada"
    assert shown["consent"] == {"marketing": "granted"}
    assert [device["token"] for device in shown["devices"]] == ["t-walker"]
    out = house.person("email", "walker@example.com", format="xdm")
    assert within(profile, out)
    assert out["segmentMembership"]["viewfinder"]["fresh"]["status"] == "realized"
    assert out["_viewfinder"]["computed"]["orders"] == 0
    prefixed = house.person("email", "walker@example.com", format="xdm", names="prefixed")
    assert prefixed["xdm:person"]["xdm:name"] == {"xdm:firstName": "Ada", "xdm:lastName": "Lovelace"}
    before = {key: shown[key] for key in ("identities", "traits", "consent")}
    assert house.app.post("/v1/xdm", json=out).json()["accepted"] == 1
    again = house.person("email", "walker@example.com")
    assert {key: again[key] for key in before} == before


def test_somebody_who_came_by_segment_goes_out_as_xdm(house: House) -> None:
    when = {"timestamp": "2026-11-01T10:00:00.000Z"}
    order = {
        "order_id": "o1",
        "revenue": 12.5,
        "currency": "EUR",
        "products": [{"sku": "s", "price": 6.25, "quantity": 2}],
    }
    house.server.post(
        "/v1/identify", json={"anonymousId": "seg", "userId": "seg-u", "traits": {"first_name": "Bo"}}
    )
    sent = {
        "event": "Order Completed",
        "anonymousId": "seg",
        "messageId": "seg-1",
        "properties": order,
        **when,
    }
    house.server.post("/v1/track", json=sent)
    (event, identify) = house.events("seg")["events"]
    assert event["eventType"] == "commerce.purchases"
    assert event["identityMap"] == {"ECID": [{"id": "seg", "primary": True}]}
    assert event["commerce"] == {
        "purchases": {"value": 1},
        "order": {"purchaseID": "o1", "priceTotal": 12.5, "currencyCode": "EUR"},
    }
    assert event["productListItems"] == [{"SKU": "s", "quantity": 2, "priceTotal": 12.5}]
    assert identify["identityMap"]["CRMID"] == [{"id": "seg-u", "primary": True}]
    assert identify["_viewfinder"]["traits"] == {"first_name": "Bo"}
    assert house.person("user_id", "seg-u", format="xdm")["person"] == {"name": {"firstName": "Bo"}}
    refused = house.app.post("/v1/xdm", json={**event, "_id": "forged"}).json()
    assert [rejection["code"] for rejection in refused["rejected"]] == ["server_only"]


def test_who_may_and_what_is_written_down(house: House) -> None:
    record = {"identityMap": {"ECID": [{"id": "watched"}]}, "person": {"gender": "female"}}
    assert httpx.post(f"{house.engine.url}/v1/xdm", json=record).status_code == 401
    assert house.app.post("/v1/xdm", content=b"nope").status_code == 400
    assert house.app.post("/v1/xdm", json={**record, "_acme": "x" * 33_000}).status_code == 413
    assert house.app.get("/v1/xdm").status_code == 405
    assert house.app.post("/v1/xdm", json=record).status_code == 200
    path = "/admin/profiles/anonymous_id/watched"
    asked = {"format": "xdm"}
    assert httpx.get(house.engine.url + path, params=asked).status_code == 401
    for role, status in (("viewer", 403), ("marketer", 403), ("operator", 200), ("privacy", 200)):
        made = served.command(house.folder, "tokens", "make", role, "--role", role, dsn=house.dsn)
        assert made.returncode == 0, made.stderr
        bearer = {"authorization": f"Bearer {made.stdout.split()[-1]}"}
        for place in (path, path + "/events"):
            answer = httpx.get(house.engine.url + place, params=asked, headers=bearer)
            assert answer.status_code == status, role
    audited = served.fetch(
        house.dsn, "SELECT actor, action FROM audit WHERE actor IN ('operator', 'privacy')"
    )
    place = "GET /admin/profiles/{namespace}/{value}"
    seen = {(row["actor"], row["action"]) for row in audited}
    assert {("operator", place), ("operator", f"{place}/events"), ("privacy", place)} <= seen
    assert house.admin.get(path, params={"format": "xml"}).status_code == 400
    assert house.admin.get("/admin/profiles/anonymous_id/nobody", params=asked).status_code == 404
    assert "watched" not in house.engine.stderr
