"""A scenario as the requests that a phone's SDK would send: who I am, where I am, what I do.

`viewfinder demo` posts them, `viewfinder test` hands them to the same reader that the server has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.domain.people.events import Location
from engine.domain.phones import Phone, Report, regions, reports, watched_fences
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


def calls(scenario: Scenario, fixes: Sequence[TrackFix], rules: RuleSet | None = None) -> Iterator[Call]:
    """All that happens, in order of time. Message ids follow from the scenario, so that a second run
    on the same database is recognised as a repetition. Of a scenario with a phone, `rules` say which
    geofences it watches."""
    start = begins_at(scenario, fixes)
    moments: list[tuple[datetime, int, Call]] = []
    for number, event in enumerate(scenario.events):
        at = start + event.at
        body = _body(scenario, f"event-{number}", at, event.body, from_server=event.from_server)
        moments.append((at, 0, Call(at, event.call, body, event.from_server, event.line)))
    shift = start - fixes[0].time if fixes else None
    if scenario.phone is not None and rules is not None and shift is not None:
        moments += _delivered(scenario, scenario.phone, fixes, shift, rules)
        fixes = ()
    for number, fix in enumerate(fixes):
        assert shift is not None
        at = fix.time + shift
        located = {"event": "Location Updated", "context": {"location": _location(fix)}}
        body = _body(scenario, f"fix-{number}", at, located, from_server=False)
        moments.append((at, 1, Call(at, "track", body)))
    for _, _, one in sorted(moments, key=lambda moment: moment[:2]):
        yield one


def _delivered(
    scenario: Scenario, phone: Phone, fixes: Sequence[TrackFix], shift: timedelta, rules: RuleSet
) -> Iterator[tuple[datetime, int, Call]]:
    """What such a phone sends of the track, as its SDK does: in batches."""
    watched = regions(rules.index, watched_fences(rules))
    sent = reports([location_of(fix, shift) for fix in fixes], watched, phone)
    for at, batch in groupby(enumerate(sent), key=lambda numbered: numbered[1].sent_at):
        events = [
            {"type": "track", **_body(scenario, f"phone-{n}", report.at, reported(report), from_server=False)}
            for n, report in batch
        ]
        for event in events:
            event["sentAt"] = _stamp(at)
        yield at, 1, Call(at, "batch", {"batch": events, "sentAt": _stamp(at)})


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
