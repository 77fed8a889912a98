"""What a phone or a server reported: one frozen value per event, whatever protocol it came by.

The wire (Segment, RudderStack) is turned into these in `engine.formats.segment`; timers and the
engine's own outcomes build them directly. Times are aware UTC datetimes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec


class Kind(StrEnum):
    """The calls of the Segment protocol."""

    TRACK = "track"
    IDENTIFY = "identify"
    SCREEN = "screen"
    PAGE = "page"
    GROUP = "group"
    ALIAS = "alias"
    MERGE = "merge"


class Sender(StrEnum):
    """Who named the message: each has its own space of message ids, so that no phone can occupy
    the id of a timer, and a generated id never meets a client's."""

    CLIENT = "client"
    ENGINE = "engine"
    GENERATED = "generated"
    IMPORT = "import"


TRACK: Final = Kind.TRACK
ENGINE: Final = Sender.ENGINE
"""For what every event comes by: Python 3.11 finds a member of an enumeration, and its `value`, in 200
to 400 ns, as long as a small function takes."""


class Location(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One fix. Degrees (WGS 84), metres, metres per second, degrees clockwise from north.

    `at` is the fix's own time as the device stated it, not corrected for the device's clock:
    presence uses differences of it. `accuracy` is 25 where the phone gave none or a negative one.
    `floor` is the storey of a building where the phone knows it, 0 being the ground floor.
    """

    latitude: float
    longitude: float
    accuracy: float = 25.0
    altitude: float | None = None
    speed: float | None = None
    heading: float | None = None
    floor: int | None = None
    is_mock: bool = False
    at: datetime | None = None

    def __repr__(self) -> str:
        return "Location(…)"


class Device(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The address that a push can be sent to, as stated by one event. It never joins people.

    `token` is UNSET where the event said nothing of it, None where it took the token away.
    """

    id: str
    type: str | None = None
    token: str | msgspec.UnsetType | None = msgspec.UNSET
    provider: str | None = None
    environment: str | None = None
    app: str | None = None
    permissions: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"Device(type={self.type!r}, …)"


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One thing that happened to one person.

    `name` is the track event's, the page's or the screen's name. `timestamp` is the event's time
    after correction for the device's clock (wire.md, Time), `raw_timestamp` what the caller sent.
    `trusted` is true for a server key, `history` for what is told long after it
    happened: it is counted, and offers nothing. `consent` holds category or purpose names as sent,
    `consent_at` when some of it was said, where that was not now. `identities` are namespaces and values
    that the protocol named beside the ids. `party` is the source that an import says its traits have;
    empty as the workspace declares them.
    """

    kind: Kind
    message_id: str
    received_at: datetime
    timestamp: datetime
    name: str = ""
    sender: Sender = Sender.CLIENT
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    group_id: str | None = None
    properties: Mapping[str, Any] = {}
    traits: Mapping[str, Any] = {}
    context: Mapping[str, Any] = {}
    consent: Mapping[str, bool] = {}
    consent_at: Mapping[str, datetime] = {}
    identities: tuple[tuple[str, str], ...] = ()
    device: Device | None = None
    location: Location | None = None
    raw_timestamp: str | None = None
    sent_at: datetime | None = None
    trusted: bool = False
    history: bool = False
    party: str = ""

    @property
    def known_at(self) -> datetime:
        """When what it states became known: no later than it came, because a device's clock that runs
        ahead must not outlast what is said after it."""
        stated, received = self.timestamp, self.received_at
        return stated if stated <= received else received

    def __repr__(self) -> str:
        return f"Event(kind={self.kind.value!r}, name={self.name!r}, …)"
