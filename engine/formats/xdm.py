"""XDM, Adobe's Experience Data Model: a request's bytes to events with a verdict on each record, and
events and profiles to records.

Read are ExperienceEvents (a record with a time or a type) and individual profiles (any other). Field
names are those of https://github.com/adobe/xdm at 4a4fc5f8dd17, in its spelling or in the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from engine.domain.offers.rules import Workspace
from engine.domain.people.events import Event, Kind
from engine.domain.people.profiles import IdentityKey, Profile
from engine.formats import xdm_events, xdm_identities, xdm_profiles
from engine.formats.segment import BODY_BYTES_MAX, EVENT_BYTES_MAX, Received, Rejection, Unreadable
from engine.formats.segment_event import Receipt, message_identifier, read_event
from engine.formats.segment_verdicts import TOO_LARGE, Refusal
from engine.formats.xdm_body import decode, split
from engine.formats.xdm_fields import at
from engine.formats.xdm_names import OWN, is_prefixed, plain, prefixed

CALL = "xdm"
Names = Literal["as_sent", "plain", "prefixed"]
"""How the names of a record are spelt that is written."""


def read(
    body: bytes,
    *,
    received_at: datetime,
    trusted: bool,
    gpc: bool,
    workspace: Workspace,
    retention: timedelta,
    new_message_id: Callable[[], str],
) -> Received:
    """The events in `body`, unzipped before, and the verdict on each record that is not taken.

    An ExperienceEvent is known again by its `_id`. A profile record has none of its own: the same one
    again states the same again.

    Raises:
        Unreadable: 400 (no JSON, no object, no list), 413 (over 500 KB, over 2,500 records, a single
        record over 32 KB).
    """
    if len(body) > BODY_BYTES_MAX:
        raise Unreadable(413, f"the body may have {BODY_BYTES_MAX} bytes after decompression")
    receipt = Receipt(
        received_at=received_at,
        retention=retention,
        trusted=trusted,
        gpc=gpc,
        server_only=workspace.server_only,
        new_message_id=new_message_id,
        namespaces=workspace.namespaces,
    )
    records, alone = split(body)
    if alone and len(records[0]) > EVENT_BYTES_MAX:
        raise Unreadable(413, f"an event may have {EVENT_BYTES_MAX} bytes")
    events: list[tuple[int, Event]] = []
    rejected: list[Rejection] = []
    items: list[bytes] = []
    for index, raw in enumerate(records):
        record = decode(raw) if len(raw) <= EVENT_BYTES_MAX else TOO_LARGE
        event = record if isinstance(record, Refusal) else read_record(record, receipt, workspace)
        if isinstance(event, Refusal):
            name = None if isinstance(record, Refusal) else message_identifier(_id_of(record))
            rejected.append(Rejection(index, name, event.code, event.message))
            items.append(raw[:EVENT_BYTES_MAX])
        else:
            events.append((index, event))
    return Received(tuple(events), tuple(rejected), tuple(items))


def read_record(record: Mapping[str, Any], receipt: Receipt, workspace: Workspace) -> Event | Refusal:
    """The event that one record states, or why it is not taken."""
    spelling: dict[str, Any] = {}
    fields = dict(record)
    if is_prefixed(fields):
        fields, odd = plain(fields)
        spelling = {"names": "prefixed", **({"odd": odd} if odd else {})}
    fields.pop("writeKey", None)
    who = xdm_identities.named(fields.get("identityMap"), workspace.namespaces)
    if is_event(fields):
        item, kind, when = xdm_events.read(fields, who, workspace.purposes, spelling)
    else:
        kind = Kind.IDENTIFY
        item, when = xdm_profiles.read(fields, who, workspace, spelling)
    event = read_event(item, kind, msgspec.structs.replace(receipt, identities=who.others))
    if isinstance(event, Refusal) or not when:
        return event
    return msgspec.structs.replace(event, consent_at=when)


def is_event(fields: Mapping[str, Any]) -> bool:
    """Whether a plain record is an ExperienceEvent; else it is a profile."""
    return "timestamp" in fields or "eventType" in fields or at(fields, OWN, "type") is not None


def event_record(
    event: Event, workspace: Workspace, names: Names = "as_sent", known: Sequence[IdentityKey] = ()
) -> dict[str, Any]:
    """An event as an ExperienceEvent. `known` are the names of the person, for an event that has none."""
    return _spelt(*xdm_events.written(event, workspace.namespaces, known), names)


def profile_record(
    profile: Profile, workspace: Workspace, view: Mapping[str, Any], names: Names = "as_sent"
) -> dict[str, Any]:
    """A profile as an individual profile. `view` is the profile as it reads now."""
    return _spelt(*xdm_profiles.written(profile, workspace, view), names)


def _spelt(record: dict[str, Any], spelling: Mapping[str, Any], names: Names) -> dict[str, Any]:
    if names == "as_sent":
        names = "prefixed" if spelling.get("names") == "prefixed" else "plain"
    if names == "plain":
        return record
    odd = spelling.get("odd")
    stated = odd if isinstance(odd, Mapping) else {}
    return prefixed(record, {path: key for path, key in stated.items() if isinstance(key, str)})


def _id_of(record: Mapping[str, Any]) -> Any:
    return record.get("_id", record.get("@id"))
