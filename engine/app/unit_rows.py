"""Rows that a unit leaves beside its documents, under its number in the tick."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.adapters.postgres.outbox import Call, Push, Send
from engine.adapters.postgres.rows import (
    DecisionRow,
    EventRow,
    LinkRow,
    MemberRow,
    ProbeRow,
    RungRow,
    SendRow,
    TimerRow,
)
from engine.app.replies import Pending
from engine.app.turn import Turn
from engine.domain.decide import Observation, Sending
from engine.domain.offers.decisions import Decision, Message
from engine.domain.people.events import Sender
from engine.domain.people.profiles import (
    IdentityKey,
    Membership,
    Profile,
    Seat,
    bucket_of,
    identity_bucket,
    members_of,
)
from engine.domain.people.timers import Timer
from engine.domain.sharing.receivers import PREFIX

PROVIDERS = {"ios": "apns", "web": "webpush"}
"""Where a push to a device of this type goes unless the device says otherwise; else FCM."""

NOWHERE = Membership()
"""In no audience: of somebody who was not there before."""

Links = Mapping[IdentityKey, tuple[str, str | None]]
"""The profile that each key is to point to, and the one that it points to as yet."""
Wound = Mapping[tuple[str, str], Timer | None]
"""What a tick leaves of timers, by profile and id: set or moved, None for called off."""

_json = msgspec.json.Encoder().encode


def member_rows(number: int, before: Membership, profile: Profile) -> Iterable[MemberRow]:
    """What changed of the audiences that a person is in."""
    then, now = before.since, profile.audiences.since
    if then is now:
        return
    bucket = bucket_of(profile.id)
    for name in then.keys() | now.keys():
        since = now.get(name)
        if since != then.get(name):
            yield MemberRow(unit=number, bucket=bucket, profile_id=profile.id, audience=name, since=since)


def seat_rows(number: int, before: Mapping[str, Seat], profile: Profile) -> Iterable[MemberRow]:
    """What changed of the accounts that a person is a member of."""
    bucket = bucket_of(profile.id)
    for account in before.keys() | profile.accounts.keys():
        was, seat = before.get(account), profile.accounts.get(account)
        since = seat.since if seat is not None else None
        if since != (was.since if was is not None else None):
            yield MemberRow(
                unit=number, bucket=bucket, profile_id=profile.id, audience=members_of(account), since=since
            )


def link_rows(number: int, links: Links) -> Iterable[LinkRow]:
    """What identities point to from now on."""
    for key, (profile_id, previous_id) in links.items():
        yield LinkRow(
            unit=number,
            bucket=identity_bucket(key),
            namespace=key[0],
            value=key[1],
            profile_id=profile_id,
            previous_id=previous_id,
        )


def probe_rows(number: int, probes: Iterable[tuple[str, Sender, str]]) -> Iterable[ProbeRow]:
    """Where else a message may be stored."""
    for owner, sender, message in probes:
        yield ProbeRow(
            unit=number, bucket=bucket_of(owner), profile_id=owner, sender=sender, message_id=message
        )


def rung_rows(
    number: int,
    rung: Iterable[tuple[int, str, str, datetime]],
    alarms: Wound,
) -> Iterable[RungRow]:
    """The timers that fired or were called off."""
    for bucket, profile_id, identifier, due_at in rung:
        if (profile_id, identifier) not in alarms:  # one statement must not delete and set a row
            yield RungRow(unit=number, bucket=bucket, profile_id=profile_id, id=identifier, due_at=due_at)
    for (profile_id, identifier), timer in alarms.items():
        if timer is None:
            yield RungRow(unit=number, bucket=bucket_of(profile_id), profile_id=profile_id, id=identifier)


def timer_rows(number: int, alarms: Wound) -> Iterable[TimerRow]:
    """The timers that were set or moved."""
    for (profile_id, identifier), timer in alarms.items():
        if timer is not None:
            yield TimerRow(
                unit=number,
                bucket=bucket_of(profile_id),
                profile_id=profile_id,
                id=identifier,
                due_at=timer.due_at,
                paced=timer.paced,
                event=msgspec.Raw(_json(timer.event)),
            )


def call_of(
    sending: Sending, body: Mapping[str, Any], profile: Profile, lease: str, providers: frozenset[str]
) -> Send:
    """The outbox row of an action, leased to this engine where it knows the receiver."""
    decision, candidate = sending.decision, sending.candidate
    webhook = candidate.offer.webhook
    assert webhook is not None
    provider = PREFIX + webhook.name
    return Send(
        bucket=bucket_of(profile.id),
        id=decision.id,
        profile_id=profile.id,
        provider=provider,
        purpose=candidate.purpose.name,
        payload=Call(
            webhook=webhook.name,
            body=body,
            decision=decision.id,
            action=candidate.offer.id,
            rule=candidate.rule.id,
        ),
        expires_at=decision.expires_at or decision.decided_at,
        attempts=0,
        lease=lease if provider in providers else "",
    )


def send_of(
    sending: Sending, message: Message, profile: Profile, lease: str, providers: frozenset[str]
) -> Send:
    """The outbox row of a winner, leased to this engine where it has the provider."""
    decision, candidate, address = sending.decision, sending.candidate, sending.address
    assert address is not None
    provider = address.provider or PROVIDERS.get(address.type or "", "fcm")
    return Send(
        bucket=bucket_of(profile.id),
        id=decision.id,
        profile_id=profile.id,
        provider=provider,
        purpose=candidate.purpose.name,
        payload=Push(
            device_id=sending.device_id,
            token=address.token or "",
            title=message.title,
            body=message.body,
            deeplink=message.deeplink,
            image=message.image,
            data={"decision": decision.id, "offer": candidate.offer.id, "rule": candidate.rule.id},
            collapse_key=decision.id,
            platform=address.type,
        ),
        expires_at=decision.expires_at or decision.decided_at,
        attempts=0,
        lease=lease if provider in providers else "",
    )


def outbox_row(number: int, send: Send) -> SendRow:
    return SendRow(
        unit=number,
        bucket=send.bucket,
        id=send.id,
        profile_id=send.profile_id,
        provider=send.provider,
        purpose=send.purpose,
        payload=msgspec.Raw(_json(send.payload)),
        expires_at=send.expires_at,
        lease=send.lease or None,
    )


def event_row(
    number: int,
    bucket: int,
    base: Profile | None,
    scores: Mapping[str, float | None],
    seen: Observation,
    pending: Pending,
    turn: Turn,
    place: int,
) -> EventRow:
    """The event as the log holds it. `place` is its turn in the tick, where that is not the first."""
    event, profile = seen.event, seen.profile
    facts = facts_of(base, scores, seen, pending, turn)
    if place:
        facts["place"] = place
    return EventRow(
        unit=number,
        bucket=bucket,
        profile_id=profile.id,
        seq=profile.seq,
        received_at=event.received_at,
        occurred_at=event.timestamp,
        sender=event.sender,
        message_id=event.message_id,
        kind=event.kind,
        name=event.name,
        body=event,
        facts=facts,
        located=event.location is not None or "newest" in facts or "places" in facts,
    )


def decision_row(number: int, bucket: int, profile: Profile, decision: Decision) -> DecisionRow:
    return DecisionRow(
        unit=number,
        bucket=bucket,
        id=decision.id,
        decided_at=decision.decided_at,
        profile_id=profile.id,
        seq=profile.seq,
        outcome=decision.outcome.value,
        rule=decision.rule,
        offer=decision.offer,
        reason=decision.reason.value if decision.reason else None,
        document=msgspec.Raw(_json(decision)),
    )


def facts_of(
    base: Profile | None,
    scores: Mapping[str, float | None],
    seen: Observation,
    pending: Pending,
    turn: Turn,
) -> dict[str, Any]:
    """What the decision depended on beside the event: enough to decide it again exactly."""
    facts: dict[str, Any] = {"version": base.version if base is not None else 0, **turn.facts}
    if scores:
        facts["propensity"] = scores
    if seen.notes:
        facts["notes"] = seen.notes
    if seen.sky:
        facts["weather"] = seen.sky
    if pending.slots.placements:
        facts["slots"] = {"placements": pending.slots.placements, "limit": pending.slots.limit}
    if (zone := seen.profile.zone or "") != seen.event.context.get("timezone", ""):
        facts["zone"] = zone  # else the event says so itself
    if seen.company is not None:
        facts["account"] = seen.company.told
    for trigger in seen.triggers:
        if trigger.fence is not None:
            place = (trigger.kind, trigger.name, trigger.fence.id, trigger.at)
            facts.setdefault("places", []).append(place)
    if pending.newest is not None:
        facts["newest"] = {"latitude": pending.newest.latitude, "longitude": pending.newest.longitude}
    return facts
