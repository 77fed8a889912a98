"""A track on a map: the places along it, every fix with its accuracy, and what each fix set off.

The track is played as the engine would take it, by a person who allowed everything and has a phone,
in memory. The page needs no network: all that it shows is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import resources
from typing import Final

import msgspec

from engine.app.rehearsal import Rehearsal, Told
from engine.app.ruling import Ruling
from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.places.fence_index import FenceIndex
from engine.domain.places.fences import Fence
from engine.domain.places.picture import rings_of
from engine.domain.places.shapes import Beacon
from engine.formats.gpx import TrackFix

WALKER: Final = "walker"
MOST_FENCES: Final = 2_000
_BESIDE_METERS: Final = 400.0
_LOOKS: Final = 60
"""Spots of the track around which places are looked for."""
_REST: Final = timedelta(minutes=30)
"""How long time passes after the last fix: stays end, and waiting rules fire."""
_DATA: Final = "/*DATA*/"


class Drawn(msgspec.Struct, frozen=True):
    """A place: its parts as rings of [latitude, longitude]."""

    id: str
    name: str
    tags: list[str]
    parts: tuple[tuple[tuple[tuple[float, float], ...], ...], ...]


class Spot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fix; `ignored` is why it changed nothing."""

    latitude: float
    longitude: float
    accuracy: float
    at: datetime
    ignored: str | None = None


class Made(msgspec.Struct, frozen=True):
    """A decision, in as many words as fit beside a place."""

    outcome: str
    rule: str | None
    offer: str | None
    reason: str | None


class Happened(msgspec.Struct, frozen=True):
    """A transition: at which fix, by its place in the list, and what was decided on it."""

    kind: str
    fence: str
    name: str
    at: datetime
    fix: int
    decisions: list[Made]


class Picture(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that the page shows. `left_out` places were too many to draw."""

    title: str
    timezone: str
    fences: list[Drawn]
    fixes: list[Spot]
    happened: list[Happened]
    left_out: int = 0


def picture_of(title: str, track: Sequence[TrackFix], ruling: Ruling) -> Picture:
    """The track played, and what there is to see of it."""
    rules = ruling.rules
    rehearsal = Rehearsal(ruling)
    rehearsal.tell([_introduction(ruling, track[0].time)], track[0].time)
    fixes: list[Spot] = []
    happened: list[Happened] = []
    for number, fix in enumerate(track):
        told = [*rehearsal.advance(fix.time), *rehearsal.tell([_event(number, fix)], fix.time)]
        fixes.append(_spot(fix, told[-1]))
        happened += [one for each in told for one in _happened(each, number)]
    last = track[-1].time
    for told_later in rehearsal.advance(last + _REST):
        happened += _happened(told_later, len(track) - 1)
    near = _along(rules.index, track)
    seen = {one.fence for one in happened}
    wanted = sorted(near, key=lambda fence_id: (fence_id not in seen, near[fence_id], fence_id))
    drawn = [_drawn(rules.fences[fence_id]) for fence_id in wanted[:MOST_FENCES]]
    left_out = len(wanted) - len(drawn)
    return Picture(title, rules.workspace.timezone, drawn, fixes, happened, left_out)


def page_of(picture: Picture) -> str:
    """The picture as a page of HTML."""
    template = resources.files("engine.app").joinpath("pages", "track_map.html").read_text("utf-8")
    # Text of others must not end the script that carries it.
    data = msgspec.json.encode(picture).decode().replace("<", "\\u003c")
    before, _, after = template.partition(_DATA)
    return before + data + after


def _introduction(ruling: Ruling, at: datetime) -> Event:
    return Event(
        kind=Kind.IDENTIFY,
        message_id="hello",
        received_at=at,
        timestamp=at,
        user_id=WALKER,
        consent=dict.fromkeys(ruling.rules.workspace.purposes, True),
        device=Device(id="phone", type="android", token="token"),
    )


def _event(number: int, fix: TrackFix) -> Event:
    location = Location(
        latitude=fix.latitude,
        longitude=fix.longitude,
        accuracy=fix.accuracy_meters if fix.accuracy_meters is not None else 25.0,
        speed=fix.speed,
        heading=fix.heading,
        at=fix.time,
    )
    return Event(
        kind=Kind.TRACK,
        name="Location Updated",
        message_id=f"fix-{number}",
        received_at=fix.time,
        timestamp=fix.time,
        user_id=WALKER,
        device=Device(id="phone", type="android"),
        location=location,
    )


def _spot(fix: TrackFix, told: Told) -> Spot:
    notes = told.seen.notes if told.seen is not None else ()
    ignored = next((note.removeprefix("fix: ") for note in notes if note.startswith("fix: ")), None)
    accuracy = fix.accuracy_meters if fix.accuracy_meters is not None else 25.0
    return Spot(round(fix.latitude, 7), round(fix.longitude, 7), accuracy, fix.time, ignored)


def _happened(told: Told, fix: int) -> list[Happened]:
    """The transitions of one event. Its decisions stand with the transition that they name, and those
    that name none with the first."""
    triggers = [t for t in (told.seen.triggers if told.seen is not None else ()) if t.fence is not None]
    rest = list(told.decisions)
    found = []
    for trigger in triggers:
        fence = trigger.fence
        assert fence is not None
        own = [d for d in rest if d.geofence in (fence.id, None) and d.trigger in (trigger.kind.value, None)]
        rest = [d for d in rest if d not in own]
        made = [Made(d.outcome.value, d.rule, d.offer, d.reason.value if d.reason else None) for d in own]
        found.append(Happened(trigger.kind.value, fence.id, _name(fence), trigger.at, fix, made))
    return found


def _along(index: FenceIndex, track: Sequence[TrackFix]) -> dict[str, float]:
    """The places beside the track, with the way to the nearest of the spots looked from."""
    found: dict[str, float] = {}
    step = max(1, len(track) // _LOOKS)
    reach = _BESIDE_METERS
    for fix in [*track[::step], track[-1]]:
        for away, fence_id in index.near(fix.latitude, fix.longitude, reach):
            found[fence_id] = min(away, found.get(fence_id, away))
    return found


def _drawn(fence: Fence) -> Drawn:
    assert not isinstance(fence.shape, Beacon)
    parts = tuple(
        tuple(tuple((round(lat, 7), round(lng, 7)) for lat, lng in ring) for ring in part)
        for part in rings_of(fence.shape)
    )
    return Drawn(fence.id, _name(fence), sorted(fence.tags), parts)


def _name(fence: Fence) -> str:
    return str(fence.properties.get("name", fence.id))
