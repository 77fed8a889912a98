"""The same address or number is the same person, however it is spelt."""

from __future__ import annotations

import pytest

from engine.domain.people.identity import normal
from engine.formats.identity_values import country_of, email, phone
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
