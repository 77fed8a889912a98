"""The one spelling of e-mail addresses and phone numbers, so that the same one is the same person.

What is no address and no number (`n/a`, `0`) is no identity: it would make one person of many.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import partial
from importlib import resources

EMAIL = "email"
PHONE = "phone"


def normal_form(namespace: str, zone: str) -> Callable[[str], str | None] | None:
    """How values of a namespace are spelt; None where as they come. `zone` is the time zone whose
    country phone numbers without one belong to."""
    if namespace == EMAIL:
        return email
    if namespace == PHONE:
        return partial(phone, region=country_of(zone))
    return None


def email(text: str) -> str | None:
    """Lower case, without blanks around it."""
    found = unicodedata.normalize("NFC", text).strip().lower()
    name, at, domain = found.rpartition("@")
    return found if name and at and domain and not any(c.isspace() for c in found) else None


def phone(text: str, region: str | None) -> str | None:
    """E.164, as in +353871234567."""
    import phonenumbers  # a quarter of a second, for workspaces that know people by their number

    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def country_of(zone: str) -> str | None:
    """The country (ISO 3166, two letters) that a time zone is of; None for UTC and the like."""
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8")
    for line in table.splitlines():
        if not line.startswith("#"):
            country, _, name, *_ = line.split("\t")
            if name == zone:
                return country
    return None
