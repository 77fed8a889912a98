"""A scenario as the requests that a phone's SDK would send: who I am, where I am, what I do.

`viewfinder demo` posts them, `viewfinder test` hands them to the same reader that the server has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count, groupby
from typing import Any

import msgspec

from engine.domain.people.events import Location
from engine.domain.phones import Ask, Phone, Report, delivered
from engine.formats.gpx import TrackFix
from engine.formats.scenario import Scenario

OUTDOOR_ACCURACY_METERS = 8.0
"""What phones report under the sky; for tracks that were recorded without it."""
_LONGEST_NAME = 80


class Call(msgspec.Struct, frozen=True):
    """One request: sent at the event's own time, by the app or by the business's server. `line` is
    the event's in the scenario's file, 0 for a fix."""

    sent_at: datetime
    call: str
    body: dict[str, Any]
    from_server: bool = False
    line: int = 0

    def __repr__(self) -> str:
        return f"Call({self.call!r})"


def begins_at(scenario: Scenario, fixes: Sequence[TrackFix]) -> datetime:
    """When the story begins: as it says, else with its track."""
    if scenario.now is not None:
        return scenario.now
    return fixes[0].time


def introduction(scenario: Scenario, at: datetime) -> Call:
    """Who the person is, as their app states it."""
    person = scenario.profile
    traits = {**person.traits, "consent": person.consent}
    return Call(at, "identify", _body(scenario, "identify", at, {"traits": traits}, from_server=False))


def calls(scenario: Scenario, fixes: Sequence[TrackFix], ask: Ask | None = None) -> Iterator[Call]:
    """All that happens, in order of time. Message ids follow from the scenario, so that a second run
    on the same database is recognised as a repetition. In a scenario with a phone, that asks what to
    watch; whoever tells the engine each call before taking the next is asked at the right moment."""
    start = begins_at(scenario, fixes)
    moments: list[tuple[datetime, int, Call]] = []
    for number, event in enumerate(scenario.events):
        at = start + event.at
        body = _body(scenario, f"event-{number}", at, event.body, from_server=event.from_server)
        moments.append((at, 0, Call(at, event.call, body, event.from_server, event.line)))
    shift = start - fixes[0].time if fixes else None
    if scenario.phone is not None and ask is not None and shift is not None:
        yield from _through_phone(scenario, scenario.phone, fixes, shift, ask, moments)
        return
    for number, fix in enumerate(fixes):
        assert shift is not None
        at = fix.time + shift
        located = {"event": "Location Updated", "context": {"location": _location(fix)}}
        body = _body(scenario, f"fix-{number}", at, located, from_server=False)
        moments.append((at, 1, Call(at, "track", body)))
    for _, _, one in sorted(moments, key=lambda moment: moment[:2]):
        yield one


def _through_phone(
    scenario: Scenario,
    phone: Phone,
    fixes: Sequence[TrackFix],
    shift: timedelta,
    ask: Ask,
    moments: list[tuple[datetime, int, Call]],
) -> Iterator[Call]:
    """What such a phone sends of the track, as its SDK does, among what else happens at its `moments`."""
    track = [location_of(fix, shift) for fix in fixes]
    waiting = [(at, 0, number, one) for number, (at, _, one) in enumerate(moments)]
    heapify(waiting)
    numbers = count()
    steps = delivered(track, ask, phone)
    for fix in [*track, None]:
        while waiting and (fix is None or fix.at is None or waiting[0][0] < fix.at):
            yield heappop(waiting)[3]
        _, sent = next(steps, (None, []))
        for at, batch in groupby(sent, key=lambda report: report.sent_at):
            own = [_in_batch(scenario, next(numbers), report, at) for report in batch]
            heappush(waiting, (at, 1, next(numbers), Call(at, "batch", {"batch": own, "sentAt": _stamp(at)})))
    while waiting:
        yield heappop(waiting)[3]


def _in_batch(scenario: Scenario, number: int, report: Report, sent_at: datetime) -> dict[str, Any]:
    body = _body(scenario, f"phone-{number}", report.at, reported(report), from_server=False)
    return {"type": "track", **body, "sentAt": _stamp(sent_at)}


def location_of(fix: TrackFix, shift: timedelta = timedelta(0)) -> Location:
    """A fix of a track, at its own time or moved by `shift`."""
    return Location(
        latitude=fix.latitude,
        longitude=fix.longitude,
        accuracy=fix.accuracy_meters or OUTDOOR_ACCURACY_METERS,
        speed=fix.speed,
        heading=fix.heading,
        at=fix.time + shift,
    )


def reported(report: Report) -> dict[str, Any]:
    """The fields of the event that a phone reports."""
    location = report.location
    stated = {"speed": location.speed, "heading": location.heading}
    where = {
        "latitude": location.latitude,
        "longitude": location.longitude,
        "accuracy": location.accuracy,
        **{word: value for word, value in stated.items() if value is not None},
    }
    if report.region is None:
        return {"event": "Location Updated", "context": {"location": where}}
    name = "Geofence Entered" if report.entered else "Geofence Exited"
    return {"event": name, "properties": {"geofence": report.region}, "context": {"location": where}}


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _location(fix: TrackFix) -> dict[str, float]:
    stated = {"speed": fix.speed, "heading": fix.heading}
    return {
        "latitude": fix.latitude,
        "longitude": fix.longitude,
        "accuracy": fix.accuracy_meters or OUTDOOR_ACCURACY_METERS,
        **{word: value for word, value in stated.items() if value is not None},
    }


def _body(
    scenario: Scenario, number: str, at: datetime, own: dict[str, Any] | Any, *, from_server: bool
) -> dict[str, Any]:
    person = scenario.profile
    who = {"userId": person.user_id, "anonymousId": person.anonymous_id}
    context: dict[str, Any] = {}
    if not from_server:
        if person.anonymous_id is None:
            who["anonymousId"] = f"{person.user_id}-app"
        for word, value in (("locale", person.locale), ("timezone", person.timezone)):
            if value is not None:
                context[word] = value
        if person.device is not None:
            own_id = person.user_id or person.anonymous_id
            stated = {word: value for word, value in person.device.items() if word != "permissions"}
            context["device"] = {"id": f"{own_id}-phone", "token": f"{own_id}-token", **stated}
            if "permissions" in person.device:
                context["permissions"] = person.device["permissions"]
    if scenario.weather:
        context["weather"] = scenario.weather
    stamp = _stamp(at)
    return {
        **{word: value for word, value in who.items() if value is not None},
        "messageId": f"{scenario.name[:_LONGEST_NAME]}/{number}",
        "timestamp": stamp,
        "sentAt": stamp,
        **own,
        "context": {**context, **own.get("context", {})},
    }
