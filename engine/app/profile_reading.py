"""Profiles and decisions as the outside reads them (wire.md, /admin)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from engine.adapters.postgres.store import Store
from engine.app.engine import Engine
from engine.app.ruling import Ruling
from engine.domain.offers import caps
from engine.domain.offers.decisions import bucket_of_decision
from engine.domain.offers.propensity import features
from engine.domain.offers.rules import RuleSet, Workspace
from engine.domain.offers.scope import Scope
from engine.domain.people import computed, identity
from engine.domain.people.accounts import member_view
from engine.domain.people.counting import whole
from engine.domain.people.labels import kept_back
from engine.domain.people.profiles import ACCOUNT_NAMESPACE, BUCKETS, DEVICE_NAMESPACE, Profile
from engine.domain.people.sources import provenance
from engine.domain.places.presence import is_known


class IdentityView(msgspec.Struct, frozen=True):
    namespace: str
    value: str


class PresenceView(msgspec.Struct, frozen=True):
    """A fence that the person is inside of, as far as is known, and since when."""

    fence: str
    since: datetime


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """Who stated a trait: the party, the way it came (app, server, import, operator; empty for what is
    older than that is written down), and when; its label, which purposes may read it, and whether the
    person allows one of them."""

    source: str
    origin: str
    at: datetime
    label: str | None
    purposes: list[str]
    readable: bool


class ProfileView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`GET /admin/profiles/{namespace}/{value}`. After silence `presence` is empty, and not known."""

    id: str
    version: int
    identities: list[IdentityView]
    traits: dict[str, Any]
    sources: dict[str, SourceView]
    computed: dict[str, Any]
    consent: dict[str, str]
    audiences: list[str]
    devices: list[dict[str, Any]]
    presence: list[PresenceView]
    presence_known: bool = msgspec.field(name="presenceKnown")
    propensities: dict[str, float]
    accounts: dict[str, dict[str, Any]] = {}
    """What the person is in each account, with since when; left out where they are in none."""

    def __repr__(self) -> str:
        return f"ProfileView({self.id})"


async def find(engine: Engine, namespace: str, value: str) -> Profile | None:
    """The stored profile of an identity, read from the database."""
    return await find_in(engine.store, engine.ruling.rules, namespace, value)


async def find_in(store: Store, rules: RuleSet, namespace: str, value: str) -> Profile | None:
    """The same, for whoever has no engine."""
    if namespace in (DEVICE_NAMESPACE, ACCOUNT_NAMESPACE) or "\0" in namespace + value:
        return None
    key = identity.normal((namespace, value), rules.workspace.namespaces)
    async with store.session() as session:
        owners = await session.owners([key])
        if key not in owners:
            return None
        found = await session.profiles([owners[key]])
    profile = found[0][0] if found else None
    return profile if profile is not None and profile.lists(key) else None


def view(profile: Profile, ruling: Ruling, now: datetime) -> ProfileView:
    """The profile as it reads at `now`; the propensities are those of this very moment."""
    rules, presence = ruling.rules, profile.presence
    known = is_known(presence, now, rules.silence)
    return ProfileView(
        id=profile.id,
        version=profile.version,
        identities=[IdentityView(i.namespace, i.value) for i in profile.identities],
        traits={name: trait.value for name, trait in profile.traits.items()},
        sources=_sources(profile, rules.workspace),
        computed=computed.read(profile.computed, whole(profile, rules.workspace), now),
        consent={name: "granted" if c.granted else "denied" for name, c in profile.consent.items()},
        audiences=sorted(profile.audiences.since),
        devices=[
            {
                "id": device,
                "type": address.type,
                "token": address.token,
                "provider": address.provider,
                "permissions": address.permissions,
                "loggedOut": address.logged_out,
                "seenAt": address.seen_at,
            }
            for device, address in profile.devices.items()
        ],
        presence=[PresenceView(fence, since) for fence, since in presence.inside.items()] if known else [],
        presence_known=known,
        propensities=propensities(profile, ruling, now),
        accounts={account: member_view(seat) for account, seat in profile.accounts.items()},
    )


def _sources(profile: Profile, workspace: Workspace) -> dict[str, SourceView]:
    everything = sorted(workspace.purposes)
    hidden = kept_back(profile.consent, workspace)
    found: dict[str, SourceView] = {}
    for name, trait in profile.traits.items():
        said = provenance(trait.source, trait.at)
        declaration = workspace.traits.get(name)
        readers = workspace.readers.get(name)
        found[name] = SourceView(
            source=said.source,
            origin=said.origin,
            at=said.at,
            label=declaration.label if declaration is not None else None,
            purposes=everything if readers is None else sorted(purpose.name for purpose in readers),
            readable=name not in hidden,
        )
    return found


def propensities(profile: Profile, ruling: Ruling, now: datetime) -> dict[str, float]:
    """What each model says of the person, apart from any event; those that cannot tell are left out."""
    workspace = ruling.rules.workspace
    local = now.astimezone(caps.zone(profile.zone, workspace.timezone))
    scope = Scope(
        profile=computed.profile_view(profile, workspace, now), local=caps.local_view(local), now=now
    )
    scores = {
        name: ruling.models[name].predict([features(card, scope)])[0]
        for name, card in ruling.rules.models.items()
    }
    return {name: score for name, score in scores.items() if score is not None}


async def event_rows(
    engine: Engine, profile: Profile, before: int | None, limit: int
) -> Sequence[Mapping[str, Any]]:
    """The stored events of a person, newest first, with `seq` as their numbers."""
    return await engine.store.fetch("events_of", *_whose_rows(profile), before, limit)


async def events(engine: Engine, profile: Profile, before: int | None, limit: int) -> list[dict[str, Any]]:
    return [
        {
            "seq": row["seq"],
            "messageId": row["message_id"],
            "receivedAt": row["received_at"],
            "timestamp": row["occurred_at"],
            "type": row["kind"],
            "name": row["name"],
            "event": msgspec.Raw(row["body"].encode()),
            "facts": msgspec.Raw(row["facts"].encode()),
        }
        for row in await event_rows(engine, profile, before, limit)
    ]


def _whose_rows(profile: Profile) -> tuple[list[str], list[int]]:
    """The ids that the profile's rows stand under, with what their numbers become greater by."""
    absorbed = profile.absorbed
    return [profile.id, *(a.id for a in absorbed)], [0, *(a.offset for a in absorbed)]


async def decisions(engine: Engine, profile: Profile, before: int | None, limit: int) -> list[dict[str, Any]]:
    rows = await engine.store.fetch("decisions_of", *_whose_rows(profile), before, limit)
    return [{"seq": row["seq"], **msgspec.json.decode(row["document"])} for row in rows]


async def decision(store: Store, decision_id: str) -> dict[str, Any] | None:
    """The decision with its candidates, the event behind it, what it depended on, and what became
    of its push."""
    bucket = bucket_of_decision(decision_id)
    rows = await store.fetch("decision", bucket, decision_id, [bucket])
    if not rows:
        rows = await store.fetch("decision", bucket, decision_id, list(range(BUCKETS)))
    if not rows:
        return None
    row = rows[0]
    found: dict[str, Any] = msgspec.json.decode(row["document"])
    if row["body"] is not None:
        found["event"] = msgspec.json.decode(row["body"])
        found["facts"] = msgspec.json.decode(row["facts"])
    if row["state"] is not None:
        found["delivery"] = {
            "state": row["state"],
            "attempts": row["attempts"],
            "result": msgspec.json.decode(row["result"]) if row["result"] else None,
        }
    return found
