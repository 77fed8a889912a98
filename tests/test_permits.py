"""What is asked right before something is sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.app.permits import why_not
from engine.domain.offers.delivery import Call
from engine.domain.offers.rules import Purpose
from engine.domain.people.profiles import Address, Consent
from tests.sends import NOW, TOKEN, a_send
from tests.story import someone

MARKETING, SERVICE = Purpose(name="marketing"), Purpose(name="service", basis="contract")
PHONE = {"phone-1": Address(type="android", token=TOKEN, seen_at=NOW)}
UNSHARED = Consent(False, NOW, "gpc")
PUSH = a_send()
CALL = msgspec.structs.replace(
    PUSH, payload=Call(webhook="kitchen", body={}, decision="d", action="a", rule="r")
)


@pytest.mark.parametrize(
    ("known", "send", "purpose", "reason"),
    [
        ({}, PUSH, MARKETING, None),
        ({"restricted": True}, PUSH, SERVICE, "restricted"),
        ({"consent": {}}, PUSH, MARKETING, "no_consent"),
        ({"consent": {}}, PUSH, SERVICE, None),
        ({}, PUSH, None, "no_consent"),
        ({"devices": {}}, PUSH, MARKETING, "no_device"),
        ({}, CALL, MARKETING, None),
        ({"sharing": UNSHARED}, CALL, MARKETING, "do_not_share"),
        ({"sharing": UNSHARED}, CALL, SERVICE, None),  # what the person asked for is not sold
        ({"sharing": UNSHARED}, PUSH, MARKETING, None),
        ({"sharing": Consent(True, NOW, "do_not_sell")}, CALL, MARKETING, None),
        ({"erased": True, "consent": {}, "devices": {}}, CALL, MARKETING, "no_consent"),
        ({"erased": True, "consent": {}, "devices": {}}, CALL, SERVICE, "no_consent"),
    ],
)
def test_why_something_must_not_go_out(
    known: dict[str, Any], send: Any, purpose: Purpose | None, reason: str | None
) -> None:
    assert why_not(send, someone(**{"devices": PHONE, **known}), purpose) == reason


def test_what_is_for_nobody_does_not_go_out() -> None:
    assert why_not(PUSH, None, SERVICE) == "no_consent"
