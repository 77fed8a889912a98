"""What is told of a person: the messages that follow from one commit, for each receiver its own.

A message is about one profile. Its `position` orders it among that profile's: by the version that was
written with it, then by its place in the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from engine.domain.offers.decisions import Decision, is_worth_telling
from engine.domain.offers.rules import Workspace
from engine.domain.people.profiles import Membership, Profile, custom_uuid
from engine.domain.sharing.readers import Reader, Told, naming, state, why_not
from engine.domain.sharing.receivers import Topic

PLACES = 1 << 16
"""More messages of one profile than one commit can bring."""
PROFILE_CHANGED = "profile.changed"
OUTCOMES = {"Offer Delivered": "delivery.succeeded", "Offer Failed": "delivery.failed"}
"""The engine's own events that say what became of a send, and what is told then."""
_NOWHERE = Membership()
_SHARED = (
    *("identities", "traits", "computed", "counted", "consent", "sharing", "restricted"),
    *("timezone", "locale"),
)
"""The parts of a document that `state` and whether it may be told come from, audiences apart."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one receiver. `id` is the same for all who get it."""

    receiver: str
    topic: Topic
    position: int
    id: str
    body: dict[str, Any]

    def __repr__(self) -> str:
        return f"Change({self.id}, receiver={self.receiver!r})"


class Outcome(msgspec.Struct, frozen=True):
    """What became of a send, as the profile's own event says it."""

    name: str
    properties: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Outcome({self.name!r})"


def changes(
    sharing: Told,
    before: Profile | None,
    profile: Profile,
    decisions: Sequence[Decision],
    outcomes: Sequence[Outcome],
    now: datetime,
) -> Iterator[Change]:
    """What is told of a profile that is written at `now`. `before` is how it was stored."""
    version = profile.version + 1
    messages = list(_messages(sharing, before, profile, decisions, outcomes))
    if not messages:
        return
    for reader in sharing.readers:
        if why_not(before if profile.ended is not None else profile, reader.purpose) is not None:
            continue
        person = naming(reader, profile, version)
        for place, (topic, kind, content) in enumerate(messages):
            if topic not in reader.topics:
                continue
            told = _told(reader, topic, kind, content, before, profile, sharing.workspace, now)
            if told is None:
                continue
            position = version * PLACES + place
            identifier = message_id(profile.id, position)
            body = {"type": kind, "id": identifier, "at": now, "profile": person, **told}
            yield Change(receiver=reader.receiver, topic=topic, position=position, id=identifier, body=body)


def message_id(profile_id: str, position: int) -> str:
    """The id of a message, which whoever tells it again derives again."""
    return str(custom_uuid(blake2b(f"{profile_id}\0{position}".encode(), digest_size=16).digest()))


def _messages(
    sharing: Told,
    before: Profile | None,
    profile: Profile,
    decisions: Iterable[Decision],
    outcomes: Iterable[Outcome],
) -> Iterator[tuple[Topic, str, Any]]:
    wanted = sharing.topics
    if "profiles" in wanted:
        if profile.ended is not None:
            yield "profiles", "profile.merged", profile.ended.into
        elif before is None or any(getattr(before, f) is not getattr(profile, f) for f in _SHARED):
            yield "profiles", PROFILE_CHANGED, None
    if "audiences" in wanted and profile.ended is None:
        was, now_in = (before.audiences if before else _NOWHERE).since, profile.audiences.since
        if was is not now_in:
            yield from (("audiences", "audience.left", (n, None)) for n in sorted(was.keys() - now_in.keys()))
            entered = sorted(now_in.keys() - was.keys())
            yield from (("audiences", "audience.entered", (n, now_in[n])) for n in entered)
    if "decisions" in wanted:
        yield from (("decisions", "decision.made", one) for one in decisions if is_worth_telling(one))
    if "deliveries" in wanted:
        yield from (("deliveries", OUTCOMES[one.name], one) for one in outcomes)


def _told(
    reader: Reader,
    topic: Topic,
    kind: str,
    content: Any,
    before: Profile | None,
    profile: Profile,
    workspace: Workspace,
    now: datetime,
) -> dict[str, Any] | None:
    """What a message says beside whom it is about; None where there is nothing in it for the receiver."""
    match topic:
        case "audiences":
            name, since = content
            if name not in reader.may.audiences:
                return None
            return {"audience": name} if since is None else {"audience": name, "since": since}
        case "decisions":
            if content.rule is not None and content.rule not in reader.may.rules:
                return None
            return {"decision": decided(content, location=reader.may.location)}
        case "deliveries":
            if content.properties.get("rule") not in reader.may.rules:
                return None
            return {"delivery": dict(content.properties)}
    if kind != PROFILE_CHANGED:
        return {"into": content}
    told = state(reader, profile, workspace, now)
    if before is not None and why_not(before, reader.purpose) is None:
        names = naming(reader, before, 0)["identities"] == naming(reader, profile, 0)["identities"]
        if names and told == state(reader, before, workspace, now):
            return None
    return {"state": told}


def decided(decision: Decision, *, location: bool) -> dict[str, Any]:
    """A decision without its texts and candidates, which may say what the receiver must not read."""
    told = {
        "id": decision.id,
        "messageId": decision.message_id,
        "decidedAt": decision.decided_at,
        "trigger": decision.trigger,
        "outcome": decision.outcome.value,
        "channel": decision.channel,
        "placement": decision.placement,
        "rule": decision.rule,
        "offer": decision.offer,
        "reason": decision.reason.value if decision.reason is not None else None,
        "propensity": decision.propensity,
        "expectedValue": decision.expected_value,
        "expiresAt": decision.expires_at,
        "revision": decision.revision,
    }
    if location:
        told["geofence"] = decision.geofence
    return told
