"""What is asked right before something is sent: much may have happened since it was decided."""

from __future__ import annotations

from engine.domain.offers.delivery import Call, Send
from engine.domain.offers.rules import Purpose
from engine.domain.people.consent import permits
from engine.domain.people.profiles import Profile


def why_not(send: Send, person: Profile | None, purpose: Purpose | None) -> str | None:
    """Why it must not go out any more; None where it may."""
    if person is not None and person.restricted:
        return "restricted"
    if person is None or person.erased or purpose is None or not permits(person.consent, purpose):
        return "no_consent"
    if isinstance(send.payload, Call):
        denied = person.sharing is not None and not person.sharing.granted
        return "do_not_share" if denied and purpose.basis != "contract" else None
    address = person.devices.get(send.payload.device_id)
    if address is None or not address.reachable or address.token != send.payload.token:
        return "no_device"
    return None
