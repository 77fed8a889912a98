"""What an event says of where the person is: a fix, what the phone says of a region, or a stay that
has lasted; and what is forgotten of it once it may not be known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.offers.rules import Precision, RuleSet
from engine.domain.people.consent import location_precision
from engine.domain.people.events import TRACK, Event
from engine.domain.people.profiles import Address, Consent, Profile
from engine.domain.people.timers import NO_ALARMS, Alarms, is_internal, timer
from engine.domain.places import dwell
from engine.domain.places.presence import Presence, Transition, fix_of, is_known, step
from engine.domain.places.regions import ENTERED, EXITED, reported
from engine.domain.places.zones import zone_at

APPROXIMATE_METERS: Final = 1000.0
"""A phone that grants its approximate position only is no nearer than that to what it says: Android
gives some 3 km², iOS several kilometres."""
WITHDRAWN: Final = "$positions_withdrawn"
"""The event of the timer on which stored positions of some devices are forgotten."""
_EXACTNESS: Final[Mapping[Precision, int]] = {"none": 0, "city": 1, "neighbourhood": 2, "exact": 3}


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """The presence after an event, what happened at which fence, the timers of stays, and notes on
    what was not believed."""

    presence: Presence
    transitions: tuple[Transition, ...] = ()
    alarms: Alarms = NO_ALARMS
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Sighting({len(self.transitions)} transitions)"


def sighting(
    rules: RuleSet, presence: Presence, event: Event, device: Address | None, zoneless: bool
) -> Sighting:
    """Total: an event that says nothing leaves the presence as it is. `device` is the phone that it
    came from, with what is known of its permissions; `zoneless` where no phone says its time zone."""
    is_report = event.name in (ENTERED, EXITED) and event.kind is TRACK
    if event.location is None and not is_report and event.name != dwell.DUE:
        return Sighting(presence)
    stays, after = rules.interest.stays, presence
    transitions: tuple[Transition, ...] = ()
    notes: tuple[str, ...] = ()
    if (fix := fix_of(event)) is not None:
        if device is not None and device.permissions.get("precise") is False:
            fix = msgspec.structs.replace(fix, accuracy_meters=max(fix.accuracy_meters, APPROXIMATE_METERS))
        moved = step(presence, fix, rules.index, rules.silence, rules.interest)
        after, transitions = moved.presence, moved.transitions
        if zoneless and after is not presence:
            after = msgspec.structs.replace(after, zone=zone_at(fix.latitude, fix.longitude))
        if moved.ignored is not None:
            notes = (f"fix: {moved.ignored}",)
        elif moved.inaccurate_for:
            notes = (f"fix: inaccurate for {len(moved.inaccurate_for)} fences",)
        if presence.inside and (silent := _silent_minutes(presence, after, rules.silence)):
            notes += (f"presence: unknown after {silent} min without a fix",)
    if is_report:
        report = reported(after, event, _fence_of(rules, event), rules.index, rules.silence)
        if stays and report.transitions:
            stayed, long = dwell.lasted(after, report.presence.inside, event.known_at, stays, rules.silence)
            transitions += tuple(Transition("dwell", *stay) for stay in long)
            report = msgspec.structs.replace(
                report, presence=msgspec.structs.replace(report.presence, stayed=stayed)
            )
        after, transitions = report.presence, transitions + report.transitions
        if report.unheeded is not None:
            notes += (f"region: {report.unheeded}",)
    elif event.name == dwell.DUE and is_internal(event):
        after, found = dwell.due(presence, event, stays, rules.silence)
        transitions = tuple(Transition("dwell", *stay) for stay in found)
        if presence.inside and not is_known(presence, event.timestamp, rules.silence):
            notes = ("presence: unknown when the stay would have been long enough",)
    alarms = dwell.alarms(presence, after, stays) if stays else NO_ALARMS
    return Sighting(after, transitions, alarms, notes)


def _silent_minutes(before: Presence, after: Presence, silence: timedelta) -> int:
    """How long nobody knew where the person was until this fix; 0 for not at all."""
    if before.seen_at is None or after.seen_at is None:
        return 0
    gap = after.seen_at - before.seen_at
    return int(gap.total_seconds() // 60) if gap > silence else 0


def _fence_of(rules: RuleSet, event: Event) -> str | None:
    """The fence that the phone reports, by its id or, of a beacon, by its name."""
    said = event.properties.get("geofence")
    if not isinstance(said, str):
        return None
    return said if said in rules.fences else rules.interest.beacons.get(said)


def withdrawn(
    rules: RuleSet,
    before: Profile,
    consent: Mapping[str, Consent],
    devices: Mapping[str, Address],
    event: Event,
) -> tuple[Presence, Alarms]:
    """The presence without what may not be known any more since this event, and the timer on which
    stored positions follow. The last exact fix goes at once."""
    presence, workspace = before.presence, rules.workspace
    gone = sorted(
        name
        for name in {"", *devices, *presence.devices}
        if _EXACTNESS[location_precision(consent, devices.get(name), workspace)]
        < _EXACTNESS[location_precision(before.consent, before.devices.get(name), workspace)]
    )
    if not gone:
        return presence, NO_ALARMS
    forget = timer(f"positions withdrawn {event.message_id}", event.known_at, WITHDRAWN, {"devices": gone})
    left = {name: trail for name, trail in presence.devices.items() if name not in gone}
    if presence.carried in gone:
        after = Presence(devices=left)
    else:
        after = msgspec.structs.replace(presence, devices=left)
    stays = rules.interest.stays
    calm = dwell.alarms(presence, after, stays) if stays else NO_ALARMS
    return after, calm + Alarms((forget,))
