"""What the phone itself says of regions: its operating system watched one, heard a beacon, or knew a
Wi-Fi, and reports that it was entered or left.

That is evidence like a fix, of another kind: it comes late (minutes on iOS), it is about a circle of
at least 100 m whatever the place is, and it may contradict a fix of the same minute, which is the
better witness. A place that the phone said was entered stays entered until the phone says that it
was left, or a fix lies outside of that circle; so the same visit is not counted again when a fix
comes nearer.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from engine.domain.people.events import Event
from engine.domain.places.fence_index import FenceIndex
from engine.domain.places.presence import MOST_FENCES, Presence, Transition, is_known, watched_margin

ENTERED: Final = "Geofence Entered"
EXITED: Final = "Geofence Exited"
SAME_MOMENT: Final = timedelta(seconds=60)
"""A fix no farther away in time than this can contradict what the phone says."""


class Unheeded(StrEnum):
    """Why what a phone said of a region changed nothing. Stable codes."""

    UNKNOWN = "unknown"
    OUT_OF_ORDER = "out_of_order"
    NOT_CARRIED = "not_carried"
    CONTRADICTED = "contradicted"


class Reported(msgspec.Struct, frozen=True):
    """The presence after a phone's report, and the enter or exit that it was."""

    presence: Presence
    transitions: tuple[Transition, ...] = ()
    unheeded: Unheeded | None = None

    def __repr__(self) -> str:
        return f"Reported({len(self.transitions)} transitions, unheeded={self.unheeded!r})"


def reported(
    presence: Presence, event: Event, fence: str | None, index: FenceIndex, silence: timedelta
) -> Reported:
    """The presence after `Geofence Entered` or `Geofence Exited` of a fence; None for one that there
    is not. A report of what is known already changes nothing."""
    if fence is None:
        return Reported(presence, (), Unheeded.UNKNOWN)
    entered, at = event.name == ENTERED, event.known_at
    device = event.device.id if event.device is not None else ""
    known = is_known(presence, at, silence)
    if known and device != presence.carried and device in presence.devices:
        return Reported(presence, (), Unheeded.NOT_CARRIED)
    since = presence.inside.get(fence)
    if presence.seen_at is not None and at < presence.seen_at and fence not in presence.held:
        # A later fix, or a later report, has said how it is.
        return Reported(presence, (), Unheeded.OUT_OF_ORDER)
    if (since is not None) == entered:
        seen_at = max(at, presence.seen_at or at)
        return Reported(msgspec.structs.replace(presence, seen_at=seen_at))
    if since is not None and at < since:
        return Reported(presence, (), Unheeded.OUT_OF_ORDER)
    if _contradicts(presence, device, fence, at, index, entered):
        return Reported(presence, (), Unheeded.CONTRADICTED)
    inside = {name: moment for name, moment in presence.inside.items() if name != fence}
    held = tuple(name for name in presence.held if name != fence)
    if entered:
        if len(inside) >= MOST_FENCES:
            return Reported(presence)
        inside[fence], held = at, (*held, fence)
    after = msgspec.structs.replace(
        presence,
        inside=inside,
        held=held,
        pending={name: run for name, run in presence.pending.items() if name != fence},
        stayed={name: span for name, span in presence.stayed.items() if name != fence},
        seen_at=max(at, presence.seen_at or at),
    )
    return Reported(after, (Transition("enter" if entered else "exit", fence, at, since),))


def _contradicts(
    presence: Presence, device: str, fence: str, at: datetime, index: FenceIndex, entered: bool
) -> bool:
    """Whether a fix of that minute lies clearly on the other side."""
    trail = presence.devices.get(device)
    if trail is None or fence not in index or abs(trail.when - at) > SAME_MOMENT:
        return False
    spot = trail.last
    distance = index.distance_meters(fence, spot.latitude, spot.longitude)
    if entered:
        return distance - watched_margin(index, fence) > 3 * spot.accuracy_meters
    return -distance > spot.accuracy_meters / 2
