"""What the phones of a measurement say: their requests, numbered, each with a body of its own.

People ride the sample workspace's bus line up and down; request n is by person n modulo PEOPLE.
Two clients send this, so that texts are printf formats: `%` fills them here, string.format in
wrk.lua.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Final

import msgspec

from engine.domain.places.earth import meters_between
from engine.formats.gpx import TrackFix, read_gpx

PEOPLE: Final = 2_000
STEP_SECONDS: Final = 5
"""Between two events of one person, by the phone's clock. By ours far less, so that the phones' clocks
seem to run fast; the engine goes by differences of either and takes no harm."""
BEHIND_SECONDS: Final = 3600
"""The phones' clocks start this far behind ours."""
PLAIN_EVERY: Final = 5
"""Every fifth event of a person is not a position."""
PLACES_APART: Final = 37
"""How far along the line, in places, the next person starts."""

WRITE_KEY: Final = "load-app"

EVENT: Final = (
    '{"type":"track","messageId":"%08x-%04x-4000-8000-%012x","userId":"rider-%04d","timestamp":"%s",%s,'
    '"context":{"device":{"id":"phone-%04d","type":"android"},"app":{"name":"Limerick Go","version":"4.2.0"},'
    '"os":{"name":"Android","version":"15"},"locale":"en-IE","timezone":"Europe/Dublin"}}'
)
"""Message id of run, person and number; person; time; event and properties; person."""
POSITION: Final = (
    '"event":"Location Updated","properties":'
    '{"latitude":%.6f,"longitude":%.6f,"accuracy":%.1f,"altitude":%.1f,"speed":%.2f}'
)
PRODUCT: Final = (
    '"event":"Product Viewed","properties":'
    '{"product_id":"p-%d","name":"Flat white","category":"coffee","price":3.8,"currency":"EUR"}'
)
MENU: Final = '"event":"Coffee Menu Viewed","properties":{"section":"coffee","store":"s01","position":1}'
IDENTIFY: Final = (
    '{"type":"identify","messageId":"%08x-%04x-4000-8000-%012x","userId":"rider-%04d","timestamp":"%s",'
    '"traits":{"first_name":"Aoife","favourite_drink":"flat white"},'
    '"context":{"device":{"id":"phone-%04d","type":"android","token":"token-%04d"},'
    '"consent":{"categoryPreferences":{"C0004":true,"location":true}},"locale":"en-IE"}}'
)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one measurement. `run` leads their message ids; `first` is the number of each
    person's first event, `epoch` the second at which the phones' clocks showed number 0."""

    run: int
    first: int
    epoch: int
    events_per_request: int
    places: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def head(self) -> str:
        """Request line and headers, up to the length of the body."""
        call = "track" if self.events_per_request == 1 else "batch"
        credentials = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
        return (
            f"POST /v1/{call} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Basic {credentials}\r\nContent-Length: "
        )

    def after(self, requests: int) -> int:
        """The first number that none of so many requests has used."""
        return self.first + (requests // PEOPLE + 1) * self.events_per_request


def places(rules: Path) -> tuple[str, ...]:
    """The line, there and back, as texts of position events some 30 m apart."""
    track = read_gpx((rules / "tracks" / "bus-304.gpx").read_bytes(), "bus-304.gpx")
    fixes = track.fixes[::STEP_SECONDS]  # nearly all are a second apart
    there = [_position(fix, after) for fix, after in pairwise(fixes)]
    return (*there, *reversed(there))


def _position(fix: TrackFix, after: TrackFix) -> str:
    meters = meters_between(fix.latitude, fix.longitude, after.latitude, after.longitude)
    accuracy = 6.0 + meters % 9.0
    speed = meters / STEP_SECONDS
    return POSITION % (fix.latitude, fix.longitude, accuracy, fix.elevation or 12.0, speed)


def others() -> tuple[str, ...]:
    """Events without a position; the rule `menu` of the sample workspace reads one of them."""
    return (*(PRODUCT % number for number in range(9)), MENU)


def requests(traffic: Traffic) -> Iterator[bytes]:
    """All requests, without an end."""
    head = traffic.head.encode()
    for body in bodies(traffic):
        yield b"%s%d\r\n\r\n%s" % (head, len(body), body)


def bodies(traffic: Traffic) -> Iterator[bytes]:
    """The bodies of all requests, without an end."""
    for number in count():
        yield _body(traffic, number % PEOPLE, number // PEOPLE).encode()


def _body(traffic: Traffic, person: int, turn: int) -> str:
    events = traffic.events_per_request
    numbers = range(traffic.first + turn * events, traffic.first + (turn + 1) * events)
    texts = [_event(traffic, person, number) for number in numbers]
    sent_at = _clock(traffic.epoch, numbers[-1])
    if events == 1:
        return f'{texts[0][:-1]},"sentAt":"{sent_at}"}}'
    return f'{{"batch":[{",".join(texts)}],"sentAt":"{sent_at}"}}'


def _event(traffic: Traffic, person: int, number: int) -> str:
    which = person + number
    if which % PLAIN_EVERY == 0:
        what = traffic.others[which // PLAIN_EVERY % len(traffic.others)]
    else:
        what = traffic.places[(person * PLACES_APART + number) % len(traffic.places)]
    at = _clock(traffic.epoch, number)
    return EVENT % (traffic.run, person, number, person, at, what, person)


@cache
def _clock(epoch: int, number: int) -> str:
    moment = time.gmtime(epoch + number * STEP_SECONDS)
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", moment)


def introductions(traffic: Traffic, per_request: int = 100) -> Iterator[bytes]:
    """Bodies of batches in which everyone says who they are and allows offers and their position."""
    at = _clock(traffic.epoch, 0)
    for start in range(0, PEOPLE, per_request):
        people = range(start, start + per_request)
        items = ",".join(IDENTIFY % (traffic.run, p, 0, p, at, p, p) for p in people)
        yield f'{{"batch":[{items}],"sentAt":"{at}"}}'.encode()


def lua_plan(traffic: Traffic) -> str:
    """The same as a Lua table, for wrk.lua."""
    values: dict[str, int | str | tuple[str, ...]] = {
        "run": traffic.run,
        "first": traffic.first,
        "epoch": traffic.epoch,
        "events": traffic.events_per_request,
        "people": PEOPLE,
        "step": STEP_SECONDS,
        "plain_every": PLAIN_EVERY,
        "apart": PLACES_APART,
        "head": traffic.head,
        "event": EVENT,
        "places": traffic.places,
        "others": traffic.others,
    }
    return "return {\n" + "".join(f"{name} = {_lua(value)},\n" for name, value in values.items()) + "}\n"


def _lua(value: int | str | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return "{" + ",\n".join(map(_lua, value)) + "}"
    # JSON's text of plain ASCII is Lua's, too.
    return str(value) if isinstance(value, int) else msgspec.json.encode(value).decode()
