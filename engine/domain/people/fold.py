"""An event's own statements folded into the profile: consent, device, traits, place, time.

Each step is a value in, a value out; the order matters where it says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import h3.api.basic_int as h3
import msgspec

from engine.domain.offers.rules import Precision, Workspace
from engine.domain.people.consent import LOCATION, stated
from engine.domain.people.events import ENGINE, Device, Event
from engine.domain.people.profiles import Address, Contact, Profile, Trait, token_digest
from engine.domain.people.sources import origin_of, rank, source_of

RESTRICTED = "$restricted"
"""The name of the event that restricts what is done with a person's data, or lifts that."""
MAX_TRAITS = 500
MAX_TRAIT_BYTES = 4096
MAX_TRAITS_BYTES = 65_536
"""Of a profile's traits, encoded: the whole document is written with every event."""
MAX_DEVICES = 20
MOST_UNSEEN = 20
"""Of offers inside the app that were never shown, how many are still known when one is."""
LONGEST_WORD = 64
_encode = msgspec.msgpack.Encoder().encode
_COARSE: dict[Precision, tuple[int, float]] = {"neighbourhood": (7, 1400.0), "city": (5, 9900.0)}
"""H3 resolution, and the greatest distance of a point in such a cell from its centre, metres."""


def coarsened(event: Event, precision: Precision) -> Event:
    """The event with its position as exact as the person allowed, before anything keeps it."""
    location = event.location
    if location is None:
        return event
    if event.device is not None and event.device.permissions.get("location") == "denied":
        precision = "none"  # wherever it comes from, the phone was not to be located
    if precision == "exact":
        return event
    if precision == "none":
        return msgspec.structs.replace(event, location=None)
    resolution, radius = _COARSE[precision]
    latitude, longitude = h3.cell_to_latlng(
        h3.latlng_to_cell(location.latitude, location.longitude, resolution)
    )
    coarse = msgspec.structs.replace(
        location,
        latitude=round(latitude, 4),
        longitude=round(longitude, 4),
        accuracy=max(radius, location.accuracy),
        altitude=None,
        speed=None,
        heading=None,
        floor=None,
    )
    return msgspec.structs.replace(event, location=coarse)


def with_device(devices: dict[str, Address], event: Event, workspace: Workspace) -> dict[str, Address]:
    """The person's addresses after what the event says of its device.

    `Logged Out` stops personal pushes to the device until its user is named again.
    """
    device, at = event.device, event.known_at
    if device is None:
        return devices
    known = devices.get(device.id) or Address(seen_at=at)
    logged_out, signed_at = known.logged_out, known.signed_at
    if signed_at is None or at >= signed_at:
        if event.name == "Logged Out":
            logged_out, signed_at = True, at
        elif event.user_id is not None:
            logged_out, signed_at = False, at
    address = _stated(known, device, at, logged_out, signed_at)
    if event.consent and (purpose := workspace.purposes.get(LOCATION)) is not None:
        location = stated(event, purpose)
        if location is not None and (known.location is None or known.location.at <= location.at):
            address = msgspec.structs.replace(address, location=location)
    changed = {**devices, device.id: address}
    while len(changed) > MAX_DEVICES:
        del changed[min(changed, key=lambda d: changed[d].seen_at)]
    return changed


def _is_news(at: datetime, known_at: datetime | None) -> bool:
    return known_at is None or at >= known_at


def _stated(
    known: Address, device: Device, at: datetime, logged_out: bool, signed_at: datetime | None
) -> Address:
    """The address after what an event says of it: the newest word on each thing stands."""
    token, token_at = known.token, known.token_at
    if device.token is not msgspec.UNSET and _is_news(at, token_at):
        token, token_at = device.token, at
    permissions, permissions_at = known.permissions, known.permissions_at
    if device.permissions:
        if _is_news(at, permissions_at):
            permissions, permissions_at = {**permissions, **device.permissions}, at
        else:
            permissions = {**device.permissions, **permissions}
    seen_at = known.seen_at
    news, old = (device, known) if at >= seen_at else (known, device)
    return Address(
        type=news.type or old.type,
        token=token,
        provider=news.provider or old.provider,
        environment=news.environment or old.environment,
        app=news.app or old.app,
        permissions=permissions,
        logged_out=logged_out,
        seen_at=at if news is device else seen_at,
        token_at=token_at,
        permissions_at=permissions_at,
        signed_at=signed_at,
        location=known.location,
    )


def with_traits(
    traits: dict[str, Trait], event: Event, workspace: Workspace
) -> tuple[dict[str, Trait], tuple[str, ...]]:
    """The traits after the event's, and notes on those that there is no room for. Of each the word of
    the best source stands, then the newest; a null takes a trait away."""
    if not event.traits:
        return traits, ()
    changed = dict(traits)
    notes: list[str] = []
    room: int | None = None
    origin = origin_of(event)
    corrects = event.sender is ENGINE
    for name, value in event.traits.items():
        known = changed.get(name)
        source = source_of(name, value, event, origin, workspace.traits)
        if known is not None and not corrects:
            better = rank(known.source) - rank(source)
            if better > 0 or (better == 0 and known.at > event.known_at):
                if better > 0 and known.value != value:
                    notes.append("a trait is known from a better source: not changed")
                continue
        if known is None or known.value != value:
            room = MAX_TRAITS_BYTES - len(_encode(traits)) if room is None else room
            size = len(_encode((name, value)))
            if size > MAX_TRAIT_BYTES or size > room or (known is None and len(changed) >= MAX_TRAITS):
                notes.append("a trait is too large, or one too many: not kept")
                continue
            room -= size
        changed[name] = Trait(value, event.known_at, source)
    return changed, tuple(notes)


def with_outcome(profile: Profile, event: Event) -> Profile:
    """What became of a push: a delivered one is marked, one never accepted gives its cap back, a
    token that the provider no longer knows is forgotten."""
    if event.sender is not ENGINE:
        return profile
    if event.name == RESTRICTED:
        return msgspec.structs.replace(profile, restricted=event.properties.get("restricted") is True)
    decision = event.properties.get("decision")
    if event.name == "Offer Delivered":
        contacts = tuple(
            msgspec.structs.replace(c, delivered=True) if c.decision == decision else c
            for c in profile.contacts
        )
        return msgspec.structs.replace(profile, contacts=contacts)
    if event.name == "Offer Failed":
        contacts = profile.contacts
        if not event.properties.get("possibly_delivered"):
            contacts = tuple(c for c in contacts if c.decision != decision)
        devices = profile.devices
        if event.properties.get("token_forgotten"):
            devices = _without_token(devices, event.properties)
        return msgspec.structs.replace(profile, contacts=contacts, devices=devices)
    return profile


def _without_token(devices: dict[str, Address], properties: Any) -> dict[str, Address]:
    device = devices.get(properties.get("device", ""))
    if device is None or device.token is None:
        return devices
    if token_digest(device.token) != properties.get("token_digest"):
        return devices  # registered anew since the push was sent
    return {**devices, properties["device"]: msgspec.structs.replace(device, token=None)}


def with_contact(profile: Profile, contact: Contact, horizon: datetime, most: int = 2000) -> Profile:
    """The profile with one more offer made; older ones than any cap looks back to are let go."""
    kept = [c for c in profile.contacts if c.at > horizon]
    if contact.channel == "in_app":
        unseen = [c for c in kept if c.channel == "in_app" and not c.shown]
        forgotten = {c.decision for c in unseen[: -MOST_UNSEEN + 1]}
        kept = [c for c in kept if c.decision not in forgotten]
    kept = kept[-most + 1 :]
    return msgspec.structs.replace(profile, contacts=(*kept, contact))


def zone_and_locale(profile: Profile, event: Event) -> tuple[str | None, str | None]:
    """The person's time zone and language, from the newest event that states them."""
    if profile.seq and event.timestamp < profile.last_seen:
        return profile.timezone, profile.locale
    timezone, locale = event.context.get("timezone"), event.context.get("locale")
    return (
        profile.timezone if timezone == profile.timezone else _word(timezone) or profile.timezone,
        profile.locale if locale == profile.locale else _word(locale) or profile.locale,
    )


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_WORD else None
