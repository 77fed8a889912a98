"""What an event says of where the person is: a fix, or a stay that has lasted."""

from __future__ import annotations

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Event
from engine.domain.people.timers import NO_ALARMS, Alarms, is_internal
from engine.domain.places import dwell
from engine.domain.places.presence import Presence, Transition, fix_of, step


class Sighting(msgspec.Struct, frozen=True):
    """The presence after an event, what happened at which fence, the timers of stays, and notes on
    what was not believed."""

    presence: Presence
    transitions: tuple[Transition, ...] = ()
    alarms: Alarms = NO_ALARMS
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Sighting({len(self.transitions)} transitions)"


def sighting(rules: RuleSet, presence: Presence, event: Event) -> Sighting:
    """Total: an event that says nothing leaves the presence as it is."""
    stays = rules.interest.stays
    if (fix := fix_of(event)) is not None:
        moved = step(presence, fix, rules.index, rules.silence, rules.interest)
        notes: tuple[str, ...] = ()
        if moved.ignored is not None:
            notes = (f"fix: {moved.ignored}",)
        elif moved.inaccurate_for:
            notes = (f"fix: inaccurate for {len(moved.inaccurate_for)} fences",)
        alarms = dwell.alarms(presence, moved.presence, stays) if stays else NO_ALARMS
        return Sighting(moved.presence, moved.transitions, alarms, notes)
    if event.name == dwell.DUE and is_internal(event):
        after, found = dwell.due(presence, event, stays, rules.silence)
        transitions = tuple(Transition("dwell", *stay) for stay in found)
        return Sighting(after, transitions, dwell.alarms(presence, after, stays))
    return Sighting(presence)
