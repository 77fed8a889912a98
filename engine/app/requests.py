"""A request that was read: its events, each with the ids that it is about, and those refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import msgspec

from engine.app.responses import Refused
from engine.domain.offers.rules import Namespace, Workspace
from engine.domain.people import identity
from engine.domain.people.events import Event
from engine.domain.people.profiles import IdentityKey
from engine.formats import xdm
from engine.formats.segment import Receipt, Received, Rejection, Unreadable, read, read_alone

RETENTION = timedelta(days=396)

_MISSING_IDENTITY = "none of the event's ids is of a namespace of this workspace"
_encode = msgspec.json.Encoder().encode

Named = tuple[Event, tuple[IdentityKey, ...]]
"""An event, and the ids that it is about, strongest first."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A body that was read: the events that can be taken, and those that cannot, with their bytes.
    `size` is in bytes, unzipped."""

    key: str
    trusted: bool
    size: int
    named: Sequence[Named]
    rejected: Sequence[tuple[Rejection, bytes]]

    def __repr__(self) -> str:
        return f"Request({len(self.named)} events, {len(self.rejected)} rejected)"


def read_named(
    call: str, body: bytes, trusted: bool, gpc: bool, received_at: datetime, workspace: Workspace
) -> Named | None:
    """The event of a body that holds nothing else, with the ids that it is about; None where something
    is to be said against it, which `read_request` does. Most requests are read by it, in two thirds of
    the time.

    Raises:
        Unreadable: as `read_request` says, too.
    """
    namespaces = workspace.namespaces
    receipt = Receipt(
        received_at=received_at,
        retention=workspace.retention.get("events", RETENTION),
        trusted=trusted,
        gpc=gpc,
        server_only=workspace.server_only,
        new_message_id=_new_message_id,
        namespaces=namespaces,
    )
    event = read_alone(body, call, receipt)
    if event is None:
        return None
    keys = identity.keys_of(event, namespaces)
    return (event, keys) if keys else None


def read_request(
    call: str, body: bytes, key: str, trusted: bool, gpc: bool, received_at: datetime, workspace: Workspace
) -> Request:
    """The events of an unzipped body, by the last part of its path. `gpc`: the browser asks that nothing
    be given to others.

    Raises:
        Refused: nothing of it can be taken.
    """
    retention = workspace.retention.get("events", RETENTION)
    try:
        if call == xdm.CALL:
            received = xdm.read(
                body,
                received_at=received_at,
                trusted=trusted,
                gpc=gpc,
                workspace=workspace,
                retention=retention,
                new_message_id=_new_message_id,
            )
        else:
            received = read(
                body,
                call=call,
                received_at=received_at,
                trusted=trusted,
                gpc=gpc,
                server_only=workspace.server_only,
                retention=retention,
                new_message_id=_new_message_id,
                namespaces=workspace.namespaces,
            )
    except Unreadable as fault:
        raise Refused(fault.status, str(fault)) from fault
    named, rejected = _named(received, workspace.namespaces)
    return Request(key, trusted, len(body), named, rejected)


def _named(
    received: Received, namespaces: Sequence[Namespace]
) -> tuple[list[Named], list[tuple[Rejection, bytes]]]:
    """The events with the ids that they are about, and the rejected ones with their bytes: those
    whose ids this workspace does not know among them."""
    rejected = list(zip(received.rejected, received.rejected_items, strict=True)) if received.rejected else []
    named: list[Named] = []
    for index, event in received.events:
        keys = identity.keys_of(event, namespaces)
        if keys:
            named.append((event, keys))
        else:
            rejection = Rejection(index, event.message_id, "missing_identity", _MISSING_IDENTITY)
            rejected.append((rejection, _encode(event)))
    if len(rejected) > 1:
        rejected.sort(key=lambda one: one[0].index)
    return named, rejected


def _new_message_id() -> str:
    return uuid4().hex
