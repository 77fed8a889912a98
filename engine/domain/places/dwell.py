"""Stays that get long: told once each, by fix time, by a timer where no further fix comes.

A stay of five minutes is one that began five minutes ago and has not ended. Where presence was
unknown at that moment nobody can say so; the next fix inside does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from engine.domain.people.events import Event
from engine.domain.people.timers import NO_ALARMS, Alarms, Timer, timer

if TYPE_CHECKING:
    from engine.domain.places.presence import Presence

DUE: Final = "$dwell"
"""The event of the timer that waits for a stay to get long."""

Stays = Mapping[str, tuple[timedelta, ...]]
"""Fence id → how long a stay is told, the shortest first."""

Lasted = tuple[str, datetime, datetime, timedelta]
"""Fence id, when it was long enough, since when, how long."""


def lasted(
    before: Presence,
    inside: Mapping[str, datetime],
    when: datetime,
    stays: Stays,
    silence: timedelta,
) -> tuple[dict[str, float], list[Lasted]]:
    """What a fix at `when`, after which the person is `inside`, tells of stays: the longest ones told
    so far, of those that go on, and those told now. One that ended with this fix was as long as
    presence was known to last."""
    known_until = when if before.seen_at is None else before.seen_at + silence
    stayed: dict[str, float] = {}
    found: list[Lasted] = []
    for fence, since in before.inside.items():
        told = before.stayed.get(fence, 0.0)
        goes_on = fence in inside
        for span in stays.get(fence, ()):
            due = since + span
            if span.total_seconds() <= told or due > when:
                continue
            if due > known_until:
                if not goes_on:
                    continue
                due = when
            found.append((fence, due, since, span))
            told = span.total_seconds()
        if goes_on and told:
            stayed[fence] = told
    return stayed, sorted(found)


def due(presence: Presence, event: Event, stays: Stays, silence: timedelta) -> tuple[Presence, list[Lasted]]:
    """What a timer tells, and the presence that remembers it: nothing where the stay has ended, or
    where presence is unknown by then."""
    fence, when = str(event.properties.get("fence")), event.timestamp
    if fence not in presence.inside or presence.seen_at is None or when > presence.seen_at + silence:
        return presence, []
    only = {fence: stays.get(fence, ())}
    stayed, found = lasted(presence, presence.inside, when, only, silence)
    return msgspec.structs.replace(presence, stayed={**presence.stayed, **stayed}), found


def alarms(before: Presence, after: Presence, stays: Stays) -> Alarms:
    """The timers to set and to call off: one for each stay that some rule waits for."""
    concerned = [fence for fence in {**before.inside, **after.inside} if fence in stays]
    if not concerned:
        return NO_ALARMS
    to_set: list[Timer] = []
    cancelled: list[str] = []
    for fence in sorted(concerned):
        earlier, later = _next(before, fence, stays), _next(after, fence, stays)
        if later is not None and later != earlier:
            to_set.append(timer(f"dwell {fence}", later, DUE, {"fence": fence}))
        elif later is None and earlier is not None:
            cancelled.append(f"dwell {fence}")
    return Alarms(tuple(to_set), tuple(cancelled))


def _next(presence: Presence, fence: str, stays: Stays) -> datetime | None:
    """When the stay will be as long as is waited for next."""
    since = presence.inside.get(fence)
    if since is None:
        return None
    told = presence.stayed.get(fence, 0.0)
    return next((since + span for span in stays[fence] if span.total_seconds() > told), None)
