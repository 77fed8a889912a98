"""Which geofences a person is in, decided fix by fix (design, 6.3).

One pure step: presence and a fix give the next presence and the transitions. A jittering fix at an
edge must not enter and leave all day, so that a state changes only on evidence:

- outside → inside: inside by more than half the accuracy, or three successive fixes over at least
  30 s inside. After silence, and for the person's first fix, being inside is enough.
- inside → outside: outside by more than three times the accuracy, or three successive fixes over at
  least 30 s outside by more than the accuracy. After silence, one such fix is enough.

A stay is told when it has lasted as long as some rule asks (`dwell`), an approach so many seconds
before the enter (`approach`).

After `silence` without a fix presence is unknown. Nothing happens then; the next fix decides.
A person may carry one of several devices: the one that moved last speaks, the others only keep
their trail. A device not known before takes over when the carried one has been silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from engine.domain.places import dwell
from engine.domain.places.approach import NOBODY, Told, approaching
from engine.domain.places.fence_index import FenceIndex
from engine.domain.places.fixes import Fix, Followed, Ignored, Trail, fix_of, follow
from engine.domain.places.interest import NO_INTEREST, Interest
from engine.domain.places.motion import Way, recent, walked

__all__ = ["SILENCE", "Fix", "Ignored", "Presence", "Run", "Step", "Transition", "fix_of", "is_known", "step"]

SILENCE: Final = timedelta(minutes=30)
RUN_FIXES: Final = 3
RUN_TIME: Final = timedelta(seconds=30)
COARSE_METERS: Final = 200.0
"""A fix less accurate than this says nothing about fences smaller than its accuracy."""
WATCHED_METERS: Final = 100.0
"""Phones watch no smaller circles well: they report those that they know of as entered and left."""
MOST_FENCES: Final = 256
MOST_DEVICES: Final = 8


class Run(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Successive fixes that contradict the state: since when, by the device's time, how many."""

    since: datetime
    fixes: int


class Presence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known of one person's whereabouts; part of the profile's document.

    `inside`: fence id → time of entry. `pending`: fence id → the run that may change its state.
    `devices`: device id → trail, `carried` the one that speaks. `seen_at`: the last good fix of the
    carried device, by our clock; None before the first. `stayed`: fence id → the longest stay told,
    seconds. `held`: the fences that only the phone's own word says the person is in. `zone`: the time
    zone of the place, where the phone does not say its own. `way` and `told` are kept only where a rule
    asks for approaches: the way walked of late, and the approaches told.
    """

    inside: Mapping[str, datetime] = {}
    pending: Mapping[str, Run] = {}
    devices: Mapping[str, Trail] = {}
    carried: str = ""
    seen_at: datetime | None = None
    stayed: Mapping[str, float] = {}
    held: tuple[str, ...] = ()
    zone: str = ""
    way: Way = ()
    told: Told = NOBODY

    def __repr__(self) -> str:
        return "Presence(…)"


class Transition(msgspec.Struct, frozen=True, gc=False):
    """The person entered or left a fence, at the fix's time by our clock; has been there for so long,
    or will be there in so long (`span`). `since` is the entry of the stay."""

    kind: Literal["enter", "exit", "dwell", "approach"]
    fence: str
    at: datetime
    since: datetime | None = None
    span: timedelta | None = None


class Step(msgspec.Struct, frozen=True, gc=False):
    """What a fix did. `ignored`: why it changed nothing. `inaccurate_for`: fences that are too
    small for its accuracy, for which it changed nothing. Exits come first, then by fence id."""

    presence: Presence
    transitions: tuple[Transition, ...] = ()
    ignored: Ignored | None = None
    inaccurate_for: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Step({len(self.transitions)} transitions, ignored={self.ignored!r})"


def is_known(presence: Presence, now: datetime, silence: timedelta = SILENCE) -> bool:
    """Whether the last fix is recent enough for `presence.inside` to be believed at `now`."""
    return presence.seen_at is not None and now - presence.seen_at <= silence


def step(
    presence: Presence,
    fix: Fix,
    index: FenceIndex,
    silence: timedelta = SILENCE,
    interest: Interest = NO_INTEREST,
) -> Step:
    """The presence after one fix. Total: every fix gives a step, none an error.

    Fences that the index no longer has drop out of the presence without an exit.
    """
    followed = follow(presence.devices.get(fix.device_id), fix)
    if isinstance(followed, Ignored):
        return Step(presence, (), followed)
    if followed.ignored is not None:
        return Step(_keeping_trail(presence, fix.device_id, followed.trail), (), followed.ignored)
    carried = fix.device_id == presence.carried or not presence.devices
    if not carried and not _takes_over(presence, fix.device_id, followed, silence):
        trail_only = _keeping_trail(presence, fix.device_id, followed.trail)
        return Step(trail_only, (), Ignored.NOT_CARRIED)

    around = index.containing(fix.latitude, fix.longitude)
    if fix.floor is not None and around:
        around = tuple(fence for fence in around if not _on_another_floor(index, fence, fix.floor))
    coarse = fix.accuracy_meters > COARSE_METERS
    when = followed.trail.when
    if coarse and not around and not presence.inside and not presence.pending:
        return Step(presence, (), Ignored.INACCURATE)
    inside: Mapping[str, datetime] = presence.inside
    settled = not (coarse or presence.pending or presence.held) and inside.keys() == {*around}
    if settled and not (inside and interest.stays):  # nearly every fix: nothing is entered or left
        devices = _devices(presence, fix.device_id, followed.trail)
        after = Presence(inside, {}, devices, fix.device_id, when)
        return _approached(Step(after), presence, followed, fix, interest, silence)

    concerned = sorted([f for f in {*around, *presence.inside, *presence.pending} if f in index])
    too_small = (
        tuple(fence for fence in concerned if index.radius_meters(fence) < fix.accuracy_meters)
        if coarse
        else ()
    )
    if coarse and len(too_small) == len(concerned):
        return Step(presence, (), Ignored.INACCURATE, too_small)
    known = is_known(presence, when, silence)
    keeps_runs = known and carried and not followed.clock_set
    inside = {}
    pending: dict[str, Run] = {}
    enters: list[Transition] = []
    exits: list[Transition] = []
    for fence in concerned:
        since = presence.inside.get(fence)
        run = presence.pending.get(fence) if keeps_runs else None
        changes = False
        if fence in too_small:
            pass
        elif (since is not None) == (fence in around):
            run = None
        elif fence in presence.held:
            changes, run = _weigh(fix, index, fence, False, run, known, watched_margin(index, fence))
        else:
            changes, run = _weigh(fix, index, fence, since is None, run, known)
        if changes and since is not None:
            exits.append(Transition("exit", fence, when, since))
        elif changes and len(presence.inside) + len(enters) < MOST_FENCES:
            inside[fence] = when
            enters.append(Transition("enter", fence, when))
        elif not changes:
            if since is not None:
                inside[fence] = since
            if run is not None and len(pending) < MOST_FENCES:
                pending[fence] = run

    for fence, since in presence.inside.items():
        if fence not in index and fence in index.fences:
            inside[fence] = since  # a beacon: only the phone hears it
    devices = _devices(presence, fix.device_id, followed.trail)
    after = Presence(inside, pending, devices, fix.device_id, when)
    if presence.held:
        held = tuple(fence for fence in presence.held if fence in inside and fence not in around)
        after = msgspec.structs.replace(after, held=held)
    long: tuple[Transition, ...] = ()
    if interest.stays and presence.inside:
        stayed, lasted = dwell.lasted(presence, inside, when, interest.stays, silence)
        long = tuple(Transition("dwell", *stay) for stay in lasted)
        if stayed:
            after = msgspec.structs.replace(after, stayed=stayed)
    moved = Step(after, (*long, *exits, *enters), None, too_small)
    return _approached(moved, presence, followed, fix, interest, silence)


def _approached(
    step: Step, before: Presence, followed: Followed, fix: Fix, interest: Interest, silence: timedelta
) -> Step:
    """The step with the approaches that the fix tells of. What was told before a silence is over: where
    they have been since, nobody knows."""
    if not interest.memory:
        return step
    after, when = step.presence, followed.trail.when
    own = before.carried == fix.device_id and not followed.clock_set
    way = recent(before.way, fix, interest.memory) if own else ()
    approaches = interest.approaches
    if approaches is None:
        going = msgspec.structs.replace(step.presence, way=walked(way, fix, interest.memory))
        return msgspec.structs.replace(step, presence=going)
    gap = (when - before.seen_at).total_seconds() if before.seen_at is not None else 0.0
    told_of = before.told if before.told and is_known(before, when, silence) else NOBODY
    told, found = approaching(told_of, way, fix, gap, after.inside, approaches)
    after = msgspec.structs.replace(after, way=walked(way, fix, interest.memory), told=told)
    ahead = tuple(
        Transition("approach", fence, when, None, timedelta(seconds=seconds)) for fence, seconds in found
    )
    return Step(after, (*step.transitions, *ahead), step.ignored, step.inaccurate_for)


def _on_another_floor(index: FenceIndex, fence: str, floor: int) -> bool:
    """Whether the fence states a floor, and it is not this one."""
    stated = index.fences[fence].properties.get("floor")
    return stated is not None and stated != floor


def watched_margin(index: FenceIndex, fence: str) -> float:
    """How far outside of the fence the circle still lies that phones watch in its place, metres."""
    return max(0.0, WATCHED_METERS - index.radius_meters(fence))


def _weigh(
    fix: Fix,
    index: FenceIndex,
    fence: str,
    entering: bool,
    run: Run | None,
    known: bool,
    margin: float = 0.0,
) -> tuple[bool, Run | None]:
    """Whether a fix on the other side of the edge, or of one that lies `margin` metres farther out,
    changes the state, else the run it belongs to."""
    if entering:
        if not known:
            return True, None
        depth = -index.distance_meters(fence, fix.latitude, fix.longitude)
        if depth > fix.accuracy_meters / 2:
            return True, None
    else:
        distance = index.distance_meters(fence, fix.latitude, fix.longitude) - margin
        if distance < 0.0 and not margin:
            distance = fix.accuracy_meters + 1.0  # over or under it, on another floor
        if distance > 3 * fix.accuracy_meters:
            return True, None
        if distance <= fix.accuracy_meters:
            return False, None
        if not known:
            return True, None
    run = Run(fix.at, 1) if run is None else Run(run.since, run.fixes + 1)
    return run.fixes >= RUN_FIXES and fix.at - run.since >= RUN_TIME, run


def _takes_over(presence: Presence, device_id: str, followed: Followed, silence: timedelta) -> bool:
    """Whether the person now carries this device, and not the one carried before."""
    before = presence.devices.get(presence.carried)
    if before is None:
        return True
    if followed.moved:
        return followed.trail.when > before.rest.at
    return device_id not in presence.devices and not is_known(presence, followed.trail.when, silence)


def _keeping_trail(presence: Presence, device_id: str, trail: Trail) -> Presence:
    return msgspec.structs.replace(presence, devices=_devices(presence, device_id, trail))


def _devices(presence: Presence, device_id: str, trail: Trail) -> Mapping[str, Trail]:
    """All trails with this one. The device heard least recently is forgotten for a ninth one."""
    devices = dict(presence.devices)
    devices[device_id] = trail
    if len(devices) > MOST_DEVICES:
        rest = [name for name in devices if name not in (device_id, presence.carried)]
        del devices[min(rest, key=lambda name: (devices[name].when, name))]
    return devices
