"""The immutable record of one judgement: who won, or why nobody did, with every candidate inside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from engine.domain.people.profiles import custom_uuid


class Outcome(StrEnum):
    OFFERED = "offered"
    DEFERRED = "deferred"
    SUPPRESSED = "suppressed"


class Reason(StrEnum):
    """Why a candidate went no further, in the order of checking (design 6.4)."""

    PAUSED = "paused"
    OUTSIDE_DATES = "outside_dates"
    RESTRICTED = "restricted"
    QUARANTINED = "quarantined"
    NO_CONSENT = "no_consent"
    STALE_EVENT = "stale_event"
    CONDITION_FALSE = "condition_false"
    CONDITION_UNKNOWN = "condition_unknown"
    NOT_IN_AUDIENCE = "not_in_audience"
    OUTSIDE_HOURS = "outside_hours"
    ALREADY_CONVERTED = "already_converted"
    NO_DEVICE = "no_device"
    NO_PERMISSION = "no_permission"
    CAPPED = "capped"
    BUDGET_EXHAUSTED = "budget_exhausted"
    NO_CODE = "no_code"
    MODEL_FAILED = "model_failed"
    LOW_PROPENSITY = "low_propensity"
    NOT_WORTH_IT = "not_worth_it"
    OUTRANKED = "outranked"
    HOLDOUT = "holdout"
    EXPERIMENT_CONTROL = "experiment_control"
    QUIET_HOURS = "quiet_hours"
    SEND_TIME = "send_time"


ORDER: Mapping[Reason, int] = {reason: position for position, reason in enumerate(Reason)}


class Judged(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, rename="camel"):
    """One candidate after its gates: `reason` is None for the winner. `numbers` say by how much."""

    rule: str
    offer: str
    geofence: str | None = None
    variant: str | None = None
    reason: Reason | None = None
    numbers: Mapping[str, Any] = {}
    propensity: float | None = None
    expected_value: float | None = None


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What the person reads, rendered in their language."""

    title: str
    body: str
    deeplink: str | None = None
    image: str | None = None

    def __repr__(self) -> str:
        return "Message(…)"


class Decision(msgspec.Struct, frozen=True, gc=False, kw_only=True, rename="camel"):
    """One judgement for an event, channel and placement; the full form of wire.md."""

    id: str
    message_id: str
    profile_id: str
    decided_at: datetime
    trigger: str
    outcome: Outcome
    revision: str
    channel: str = "push"
    placement: str | None = None
    geofence: str | None = None
    rule: str | None = None
    offer: str | None = None
    reason: Reason | None = None
    propensity: float | None = None
    expected_value: float | None = None
    message: Message | None = None
    expires_at: datetime | None = None
    candidates: tuple[Judged, ...] = ()

    def __repr__(self) -> str:
        return f"Decision({self.id}, {self.outcome.value}, rule={self.rule!r})"


class PublicDecision(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an app with a public write key may read of a decision."""

    id: str
    message_id: str
    offer: str | None
    outcome: Outcome
    placement: str | None
    message: Message | None
    expires_at: datetime | None


class FullDecision(PublicDecision, frozen=True, kw_only=True, rename="camel"):
    """What a server key may read of a decision; candidates are in the trace only."""

    profile_id: str
    trigger: str
    geofence: str | None
    rule: str | None
    reason: Reason | None
    channel: str
    propensity: float | None
    expected_value: float | None
    revision: str


def public_form(decision: Decision) -> PublicDecision | None:
    """None for what an app does not get to see."""
    if decision.outcome is Outcome.SUPPRESSED:
        return None
    return _form(PublicDecision, decision)


def full_form(decision: Decision) -> FullDecision | None:
    """None where the condition was false: counted, not returned."""
    return _form(FullDecision, decision) if is_worth_telling(decision) else None


_Form = TypeVar("_Form", bound=PublicDecision)


def _form(form: type[_Form], decision: Decision) -> _Form:
    return form(**{name: getattr(decision, name) for name in form.__struct_fields__})


def is_worth_telling(decision: Decision) -> bool:
    """False where all candidates fell at their conditions."""
    return any(c.reason is not Reason.CONDITION_FALSE for c in decision.candidates)


def decision_id(profile_id: str, bucket: int, seq: int, ordinal: int, decided_at: datetime) -> str:
    """A UUID (version 8) that anyone who replays the event derives again.

    Its first 48 bits are the milliseconds of `decided_at`, its eighth byte the profile's bucket,
    so that the id alone says where its row is; the rest is a hash of profile, event and ordinal.
    """
    digest = blake2b(f"{profile_id}\0{seq}\0{ordinal}".encode(), digest_size=9).digest()
    milliseconds = int(decided_at.timestamp() * 1000)
    raw = milliseconds.to_bytes(6, "big") + bytes((digest[8], bucket)) + digest[:8]
    return str(custom_uuid(raw))


def bucket_of_decision(identifier: str) -> int:
    """The bucket that a decision's id names.

    Raises:
        ValueError: it is not a UUID.
    """
    return UUID(identifier).bytes[7]
