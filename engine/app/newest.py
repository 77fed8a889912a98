"""A request's newest fix of each person in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.domain.people.events import Event, Location
from engine.domain.people.profiles import IdentityKey


def newest_fixes(
    named: Sequence[tuple[Event, tuple[IdentityKey, ...]]],
) -> dict[IdentityKey, tuple[datetime, Location]]:
    """The newest fix of each person in a batch: an enter offers only if it still holds there."""
    newest: dict[IdentityKey, tuple[datetime, Location]] = {}
    for event, keys in named:
        if event.location is not None:
            at = event.location.at or event.timestamp
            if keys[0] not in newest or newest[keys[0]][0] < at:
                newest[keys[0]] = (at, event.location)
    return newest


def later(event: Event, newest: tuple[datetime, Location] | None) -> Location | None:
    """The newest fix of the event's person, where that is not its own."""
    if newest is None or event.location is None or newest[1] is event.location:
        return None
    return newest[1]
