"""XDM records: the public example files, and a person as the domain knows them after a record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from engine.domain.offers.rules import Workspace
from engine.domain.people import consent, fold, identity
from engine.domain.people.events import Event
from engine.domain.people.profiles import Address, Identity, Profile, new_profile
from engine.formats import xdm
from engine.formats.segment import Received
from engine.formats.workspace import load

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
EXAMPLES = Path(os.environ.get("ADOBE_XDM", Path(__file__).parent / "data" / "xdm"))
"""The examples kept here; or all of a checkout of the public repository: its folder `components`."""

WORKSPACE = b"""
timezone: Europe/Dublin
currency: EUR
consent:
  purposes:
    marketing: {basis: consent}
    letters: {basis: consent, from: [marketing.postalMail]}
    analytics: {basis: consent, from: [collect]}
    partners: {basis: consent, from: [C0005]}
identities:
  - {namespace: user_id, one: true}
  - {namespace: loyalty_card, one: true, on_change: replace, from: [traits.loyalty_card]}
  - {namespace: email, from: [traits.email]}
  - {namespace: phone, from: [traits.phone]}
  - {namespace: anonymous_id}
events:
  Order Completed: {from: server}
traits:
  first_name: {type: string, label: personal}
  email: {type: string}
  birth_date: {type: timestamp}
  loyalty_tier: {type: string}
  loyalty_points: {type: number}
computed:
  orders: {count: Order Completed}
"""

WHOM: dict[str, Any] = {"xdm:identityMap": {"ECID": [{"xdm:id": "92312748749128"}]}}
_WHEN = {"xdm:timestamp": "2026-10-31T09:00:00+00:00"}
_PARTS: dict[str, tuple[str, ...]] = {
    "placecontext": ("xdm:placeContext",),
    "geo": ("xdm:placeContext", "xdm:geo"),
    "poi-detail": ("xdm:placeContext", "xdm:POIinteraction", "xdm:POIDetail"),
    "commerce": ("xdm:commerce",),
    "device": ("xdm:device",),
}
"""Where an event has what is an example of a data type."""


def workspace(text: bytes = WORKSPACE) -> Workspace:
    loaded = load({"workspace.yaml": text}, {})
    assert loaded.rule_set is not None, loaded.problems
    return loaded.rule_set.workspace


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each example as a whole record of its class, by its path."""
    for path in sorted(EXAMPLES.rglob("*.example.*.json")):
        name, folder = path.relative_to(EXAMPLES).as_posix(), path.parent.name
        when = {**_WHEN, "@id": f"https://data.adobe.io/{name}"}
        stem = path.name.split(".")[0]
        found = json.loads(path.read_bytes())
        record: dict[str, Any] | None = None
        if stem == "identitymap":
            record = {**when, "xdm:identityMap": found}
        elif stem in _PARTS and folder != "experience-event":
            record = dict(WHOM | when)
            *outer, last = _PARTS[stem]
            place = record
            for step in outer:
                place = place.setdefault(step, {})
            place[last] = found
        elif stem == "productlistitem":
            record = {**WHOM, **when, "xdm:productListItems": [found]}
        elif (
            stem in ("experienceevent", "profile")
            or folder in ("profile", "consent")
            or stem == "segmentation"
        ):
            record = {**WHOM, **found}
        elif folder in ("experience-event", "events"):
            record = {**WHOM, **when, **found}
        if record is not None:
            yield name, record


def read(record: Any, given: Workspace, *, trusted: bool = True) -> Received:
    body = record if isinstance(record, bytes) else json.dumps(record).encode()
    return xdm.read(
        body,
        received_at=NOW,
        trusted=trusted,
        gpc=False,
        workspace=given,
        retention=timedelta(days=396),
        new_message_id=lambda: "generated",
    )


def event_of(record: Any, given: Workspace) -> Event:
    received = read(record, given)
    assert received.rejected == ()
    ((_, event),) = received.events
    return event


def person_after(event: Event, given: Workspace, known: Profile | None = None) -> Profile:
    """What an event says of the person, by the same steps as the tick takes."""
    keys = identity.keys_of(event, given.namespaces)
    profile = known or new_profile(keys[0], b"secret", NOW)
    news = [Identity(*key, event.known_at) for key in keys if not profile.lists(key)]
    devices = dict(profile.devices)
    if event.device is not None and isinstance(event.device.token, str):
        told = event.device
        devices[told.id] = Address(
            type=told.type,
            token=event.device.token,
            provider=told.provider,
            environment=told.environment,
            app=told.app,
            seen_at=NOW,
        )
    traits, notes = fold.with_traits(profile.traits, event, given)
    assert notes == ()
    return Profile(
        id=profile.id,
        created_at=NOW,
        last_seen=NOW,
        identities=(*profile.identities, *news),
        traits=traits,
        consent=consent.with_statements(profile.consent, event, given),
        devices=devices,
    )
