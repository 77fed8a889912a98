"""A scenario as the requests that a phone's SDK would send: who I am, where I am, what I do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from engine.formats.gpx import TrackFix
from engine.formats.scenario import Scenario, offset

DEMO_ACCURACY_METERS = 8.0
"""What phones report outdoors; the track was recorded without it."""


class Call(msgspec.Struct, frozen=True):
    """One request: sent at the event's own time, by the app or by the business's server."""

    sent_at: datetime
    path: str
    body: dict[str, Any]
    from_server: bool = False

    def __repr__(self) -> str:
        return f"Call({self.path!r})"


def calls(scenario: Scenario, fixes: tuple[TrackFix, ...], device_token: str) -> Iterator[Call]:
    """All requests in order of time. Message ids follow from the scenario, so that a second ride on
    the same database is recognised as a repetition."""
    start = fixes[0].time
    user_id = str(scenario.profile["user_id"])
    device = {**scenario.profile.get("device", {}), "id": f"{user_id}-phone", "token": device_token}
    who = {"userId": user_id, "anonymousId": f"{user_id}-app"}

    def call(kind: str, number: str, at: datetime, body: dict[str, Any], from_server: bool) -> Call:
        stamp = at.isoformat().replace("+00:00", "Z")
        context = {"device": device, "locale": scenario.profile.get("locale", "en")}
        whole = {
            **({"userId": user_id} if from_server else who),
            **body,
            "messageId": f"{scenario.name}/{number}",
            "timestamp": stamp,
            "sentAt": stamp,
            "context": {**({} if from_server else context), **body.get("context", {})},
        }
        return Call(at, f"/v1/{kind}", whole, from_server)

    traits = {**scenario.profile.get("traits", {}), "consent": scenario.profile.get("consent", {})}
    moments: list[tuple[datetime, int, Call]] = [
        (start, 0, call("identify", "identify", start, {"traits": traits}, False))
    ]
    for number, event in enumerate(scenario.events):
        at = start + offset(str(event["at"]))
        body = {name: value for name, value in event.items() if name not in ("at", "type", "from")}
        moments.append(
            (at, 1, call(event["type"], f"event-{number}", at, body, event.get("from") == "server"))
        )
    for number, fix in enumerate(fixes):
        location = {
            "latitude": fix.latitude,
            "longitude": fix.longitude,
            "accuracy": fix.accuracy_meters or DEMO_ACCURACY_METERS,
        }
        body = {"event": "Location Updated", "context": {"location": location}}
        moments.append((fix.time, 2, call("track", f"fix-{number}", fix.time, body, False)))
    for _, _, one in sorted(moments, key=lambda moment: moment[:2]):
        yield one
