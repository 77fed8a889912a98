"""Who is told what: a receiver as a rule set sees it, and a person as the receiver may see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from engine.domain.offers.rules import Purpose, Workspace
from engine.domain.people.computed import profile_view
from engine.domain.people.consent import permits, state_of
from engine.domain.people.profiles import Profile
from engine.domain.sharing.receivers import Topic

PERSONAL = "personal"
LOCATION = "location"
"""Labels that say something of what is no trait: e-mail addresses and phone numbers; where somebody is."""


class Readable(msgspec.Struct, frozen=True, kw_only=True):
    """Names of what may be told for a purpose; what is not in here stays here."""

    traits: frozenset[str]
    computed: frozenset[str]
    audiences: frozenset[str]
    rules: frozenset[str]
    namespaces: frozenset[str]
    location: bool


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver that is told of people."""

    receiver: str
    topics: frozenset[Topic]
    purpose: Purpose
    may: Readable


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Everybody who is told something, by the rules in force."""

    readers: tuple[Reader, ...]
    topics: frozenset[Topic]
    workspace: Workspace


def why_not(person: Profile | None, purpose: Purpose | None) -> str | None:
    """Why nothing of the person may be told for the purpose; None where it may."""
    if person is None or person.erased or purpose is None:
        return "no_consent"
    if person.restricted:
        return "restricted"
    if not permits(person.consent, purpose):
        return "no_consent"
    if person.sharing is not None and not person.sharing.granted and purpose.basis != "contract":
        return "do_not_share"
    return None


def naming(reader: Reader, profile: Profile, version: int) -> dict[str, Any]:
    """Whom a message is about. `version` counts what was written of them: the greater, the later."""
    may = reader.may.namespaces
    return {
        "id": profile.id,
        "version": version,
        "identities": [
            {"namespace": one.namespace, "value": one.value}
            for one in profile.identities
            if one.namespace in may
        ],
    }


def state(reader: Reader, profile: Profile, workspace: Workspace, now: datetime) -> dict[str, Any]:
    """The person as the receiver may know them at `now`."""
    may = reader.may
    view = profile_view(profile, workspace, now)
    return {
        "traits": {name: view[name] for name in profile.traits if name in may.traits and name in view},
        "computed": {name: view[name] for name in sorted(may.computed) if name in view},
        "consent": {name: state_of(profile.consent, name) for name in workspace.purposes},
        "audiences": sorted(may.audiences.intersection(profile.audiences.since)),
        "timezone": profile.timezone,
        "locale": profile.locale,
    }
