"""What became of offers: the engine's own events, what apps tell of offers they showed, and
conversions, each attributed to the decision that made the offer.

An outcome that belongs to no offer of this person is no outcome: it is kept as an event, and sets
nothing off.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from engine.domain.offers.rules import Offer
from engine.domain.offers.scope import Scope
from engine.domain.people.events import ENGINE, TRACK, Event
from engine.domain.people.profiles import Contact, Profile
from engine.domain.people.timers import NO_ALARMS, Alarms, Timer, timer

DELIVERED: Final = "Offer Delivered"
SHOWN: Final = "Offer Shown"
TAPPED: Final = "Offer Tapped"
CONVERTED: Final = "Offer Converted"
EXPIRED: Final = "Offer Expired"
OUTCOMES: Final = frozenset((DELIVERED, SHOWN, TAPPED, CONVERTED, EXPIRED))
_TOLD_BY_APPS: Final = frozenset((SHOWN, TAPPED))
MOST_CONVERTED: Final = 500


def is_outcome(event: Event) -> bool:
    return event.name in OUTCOMES and event.kind is TRACK


def with_outcome(profile: Profile, event: Event) -> tuple[Profile, Event | None]:
    """The profile after an outcome that an app or the engine told of, and the outcome with its offer and
    rule; None where it is none."""
    contact = _contact(profile, event.properties.get("decision"))
    if event.sender is not ENGINE:
        if event.name not in _TOLD_BY_APPS or contact is None:
            return profile, None
        contact = msgspec.structs.replace(contact, shown=True)
        profile = _with(profile, contact)
    elif event.name == EXPIRED and (contact is None or contact.converted):
        return profile, None
    if contact is not None:
        told = {**event.properties, "offer": contact.offer, "rule": contact.rule}
        event = msgspec.structs.replace(event, properties=told)
    return profile, event


def with_conversions(
    profile: Profile, offers: Iterable[Offer], scope: Scope, at: datetime, now: datetime
) -> tuple[Profile, Alarms]:
    """The profile after something that converts some offers, and the engine's events that say so. Of
    several times that an offer was made the last one before it counts."""
    alarms = NO_ALARMS
    for offer in offers:
        assert offer.converts is not None
        contact = _last_made(profile, offer.id, at, offer.converts.within)
        if contact is None:
            continue
        condition = offer.converts.pattern.condition
        own = msgspec.structs.replace(scope, offer={"id": offer.id, "tags": sorted(offer.tags)})
        if condition is not None and condition.evaluate(own) is not True:
            continue
        profile = _with(profile, msgspec.structs.replace(contact, converted=True))
        newest = max(profile.converted.get(offer.id, at), at)
        profile = msgspec.structs.replace(profile, converted=_kept({**profile.converted, offer.id: newest}))
        alarms += Alarms((_told(CONVERTED, contact, now),), (f"{EXPIRED}:{contact.decision}",))
    return profile, alarms


def expiring(contact: Contact, offer: Offer, expires_at: datetime) -> Alarms:
    """Says that an offer has expired when its time to convert is over, or else its message's time."""
    within: timedelta | None = offer.converts.within if offer.converts is not None else None
    return Alarms((_told(EXPIRED, contact, expires_at if within is None else contact.at + within),))


def _told(name: str, contact: Contact, at: datetime) -> Timer:
    told = {
        "decision": contact.decision,
        "offer": contact.offer,
        "rule": contact.rule,
        "channel": contact.channel,
    }
    return timer(f"{name}:{contact.decision}", at, name, told)


def _contact(profile: Profile, decision: object) -> Contact | None:
    return next((c for c in reversed(profile.contacts) if c.decision == decision), None)


def _last_made(profile: Profile, offer: str, at: datetime, within: timedelta) -> Contact | None:
    made = (
        c
        for c in profile.contacts
        if c.offer == offer
        and c.at <= at <= c.at + within
        and not c.converted
        and (c.shown or c.channel != "in_app")
    )
    return max(made, key=lambda c: (c.at, c.decision), default=None)


def _with(profile: Profile, contact: Contact) -> Profile:
    contacts = tuple(contact if c.decision == contact.decision else c for c in profile.contacts)
    return msgspec.structs.replace(profile, contacts=contacts)


def _kept(converted: dict[str, datetime]) -> dict[str, datetime]:
    while len(converted) > MOST_CONVERTED:
        del converted[min(converted, key=lambda offer: (converted[offer], offer))]
    return converted
