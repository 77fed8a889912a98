"""The same address or number is the same person, however it is spelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.domain.people.identity import normal
from engine.formats.identity_values import country_of, email, phone
from tests import served
from tests.served import SERVER_KEY, fetch
from tests.story import NOON, People, event, rule_set

WORKSPACE = """
identities:
  - {namespace: user_id, one: true}
  - {namespace: email, from: [traits.email]}
  - {namespace: phone, from: [traits.phone]}
  - {namespace: anonymous_id}
"""


@pytest.mark.parametrize(
    ("text", "normal_text"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("  ada@example.com ", "ada@example.com"),
        ("a@b@example.com", "a@b@example.com"),
        ("ADA\u0308@example.com", "ad\u00e4@example.com"),
        ("n/a", None),
        ("@example.com", None),
        ("ada@", None),
        ("ada lovelace@example.com", None),
    ],
)
def test_an_email_address_is_spelt_in_one_way(text: str, normal_text: str | None) -> None:
    assert email(text) == normal_text


@pytest.mark.parametrize(
    ("text", "region", "normal_text"),
    [
        ("087 123 4567", "IE", "+353871234567"),
        ("+353 (0)87 123-4567", "DE", "+353871234567"),
        ("00353871234567", "IE", "+353871234567"),
        ("0171 1234567", "DE", "+491711234567"),
        ("(650) 253-0000", "US", "+16502530000"),
        ("087 123 4567", None, None),  # of which country?
        ("+353871234567", None, "+353871234567"),
        ("0", "IE", None),
        ("unknown", "IE", None),
    ],
)
def test_a_phone_number_is_spelt_in_one_way(text: str, region: str | None, normal_text: str | None) -> None:
    assert phone(text, region) == normal_text


def test_a_number_is_of_the_workspaces_country() -> None:
    assert country_of("Europe/Dublin") == "IE"
    assert country_of("America/New_York") == "US"
    assert country_of("UTC") is None


def test_spellings_do_not_make_two_people() -> None:
    people = People(rule_set("rules: {}", WORKSPACE))

    def told(app: str, **traits: str) -> str:
        return people.tell(event("Open", NOON, anonymous_id=app, traits=traits))

    assert told("a1", email="Ada@Example.com") == told("a2", email=" ada@example.com")
    assert told("a1", phone="087 123 4567") == told("a3", phone="+353871234567")
    assert told("b1", phone="0") != told("b2", phone="0")
    person = people.whose("anonymous_id", "a1")
    assert person is not None
    assert person.traits["email"].value == " ada@example.com"  # traits stay as they were said
    namespaces = people.rules.workspace.namespaces
    assert normal(("email", "ADA@example.com"), namespaces) == ("email", "ada@example.com")
    assert normal(("user_id", "ADA"), namespaces) == ("user_id", "ADA")


def test_a_till_names_a_person_by_the_card(postgres: str, tmp_path: Path) -> None:
    workspace = served.WORKSPACE + (
        b"identities:\n  - {namespace: user_id, one: true}\n"
        b"  - {namespace: loyalty_card, from: [traits.loyalty_card, context.externalId]}\n"
        b"  - {namespace: anonymous_id}\n"
    )
    served.write_workspace(tmp_path / "rules", workspace)
    with served.database(postgres, "test_till") as dsn, served.serve(tmp_path, dsn) as engine:
        till, admin = engine.client(SERVER_KEY), engine.admin()
        order = {"type": "track", "event": "Order Completed", "properties": {"revenue": 5}}
        known = {"type": "identify", "userId": "ada", "traits": {"loyalty_card": "C7"}, "messageId": "m1"}
        sent = [
            known,
            {**order, "messageId": "m2", "context": {"traits": {"loyalty_card": "C7"}}},
            {**order, "messageId": "m3", "context": {"externalId": "C8"}},
            {**order, "messageId": "m4", "context": {"externalId": None}},
        ]
        answer = till.post("/v1/batch", json={"batch": sent}).json()
        assert (answer["accepted"], [r["messageId"] for r in answer["rejected"]]) == (3, ["m4"])
        assert admin.get("/admin/profiles/user_id/ada").json()["computed"]["orders"] == 1
        other = admin.get("/admin/profiles/loyalty_card/C8").json()
        assert other["identities"] == [{"namespace": "loyalty_card", "value": "C8"}]
        again = till.post("/v1/batch", json={"batch": sent[:3]}).json()
        assert (again["accepted"], again["duplicates"]) == (0, 3)
        ((item,),) = fetch(dsn, "SELECT item FROM rejected")
        assert b'"messageId": "m4"' in item or b'"messageId":"m4"' in item
