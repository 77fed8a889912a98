"""The rows of one tick, as its one statement writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.people.events import Event, Kind, Sender


class EventRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of `events`, and of `seen`."""

    unit: int
    bucket: int
    profile_id: str
    seq: int
    received_at: datetime
    occurred_at: datetime
    sender: Sender
    message_id: str
    kind: Kind
    name: str
    body: Event
    facts: Mapping[str, Any]
    located: bool

    def __repr__(self) -> str:
        return f"EventRow({self.profile_id}, {self.seq})"


class DecisionRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of `decisions`."""

    unit: int
    bucket: int
    id: str
    decided_at: datetime
    profile_id: str
    seq: int
    outcome: str
    rule: str | None
    offer: str | None
    reason: str | None
    document: msgspec.Raw

    def __repr__(self) -> str:
        return f"DecisionRow({self.id})"


class SendRow(msgspec.Struct, gc=False, kw_only=True):
    """A row of `outbox`; `lease` is that of the committing engine, None for nobody's."""

    unit: int
    bucket: int
    id: str
    profile_id: str
    provider: str
    purpose: str
    payload: msgspec.Raw
    expires_at: datetime
    lease: str | None

    def __repr__(self) -> str:
        return f"SendRow({self.id})"


class TimerRow(msgspec.Struct, kw_only=True):
    """A row of `timers`, new or moved."""

    unit: int
    bucket: int
    profile_id: str
    id: str
    due_at: datetime
    paced: bool
    event: msgspec.Raw

    def __repr__(self) -> str:
        return f"TimerRow({self.id!r})"


class MemberRow(msgspec.Struct, kw_only=True):
    """A row of `audience_members`; `since` is None for somebody who left."""

    unit: int
    bucket: int
    profile_id: str
    audience: str
    since: datetime | None

    def __repr__(self) -> str:
        return f"MemberRow({self.audience!r})"


class LinkRow(msgspec.Struct, kw_only=True):
    """A row of `identities`; `previous_id` is the profile that it may be taken from."""

    unit: int
    bucket: int
    namespace: str
    value: str
    profile_id: str
    previous_id: str | None

    def __repr__(self) -> str:
        return f"LinkRow({self.namespace!r}, …)"


class RungRow(msgspec.Struct, kw_only=True):
    """A row of `timers` to delete; one that fired, at `due_at`, only if it is still due then."""

    unit: int
    bucket: int
    profile_id: str
    id: str
    due_at: datetime | None = None

    def __repr__(self) -> str:
        return f"RungRow({self.id!r})"


class ProbeRow(msgspec.Struct, kw_only=True):
    """A further profile that may know an event's message: a key of `seen`."""

    unit: int
    bucket: int
    profile_id: str
    sender: Sender
    message_id: str

    def __repr__(self) -> str:
        return f"ProbeRow({self.profile_id})"


class ChangeRow(msgspec.Struct, kw_only=True):
    """A row of `changes`: what one receiver is told."""

    unit: int
    bucket: int
    profile_id: str
    receiver: str
    position: int
    id: str
    topic: str
    body: msgspec.Raw

    def __repr__(self) -> str:
        return f"ChangeRow({self.id})"


class Shared(msgspec.Struct, frozen=True):
    """A message that two profiles have, each with its own copy of the event, None where it is gone."""

    profile_id: str
    other_id: str
    sender: str
    message_id: str
    event: Event | None
    other_event: Event | None

    def __repr__(self) -> str:
        return f"Shared({self.profile_id}, {self.other_id})"


class Commit(msgspec.Struct, kw_only=True):
    """The rows of one tick; those of `profiles` as tuples in the order of the statement's columns. Rows of
    one `unit` are written together or not at all."""

    profiles: list[tuple[int, int, str, int, bytes, str | None]] = msgspec.field(default_factory=list)
    events: list[EventRow] = msgspec.field(default_factory=list)
    decisions: list[DecisionRow] = msgspec.field(default_factory=list)
    sends: list[SendRow] = msgspec.field(default_factory=list)
    links: list[LinkRow] = msgspec.field(default_factory=list)
    timers_done: list[RungRow] = msgspec.field(default_factory=list)
    timers_set: list[TimerRow] = msgspec.field(default_factory=list)
    members: list[MemberRow] = msgspec.field(default_factory=list)
    changes: list[ChangeRow] = msgspec.field(default_factory=list)
    probes: list[ProbeRow] = msgspec.field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether all that it writes is profiles of which none has become part of another, events and
        decisions."""
        rest = self.sends or self.links or self.timers_done or self.timers_set or self.members or self.probes
        return not (rest or [row for row in self.profiles if row[5] is not None])

    def __repr__(self) -> str:
        return f"Commit({len(self.profiles)} profiles, {len(self.events)} events)"
