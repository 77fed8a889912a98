"""A city to decide in: 10,000 geofences, 200 rules, a propensity model, and people who walk."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from engine.adapters.onnx_models import load_model
from engine.app.ruling import Ruling
from engine.domain import decide
from engine.domain.people.events import Device, Event, Kind, Location
from engine.domain.people.profiles import Profile, new_profile
from engine.domain.places.shapes import Polygon
from engine.formats.workspace import load, read_folder
from loadtest.results import LoadtestError
from loadtest.servers import MODELS

CHAINS: Final = 100
SHOPS_PER_CHAIN: Final = 100
RULES_PER_CHAIN: Final = 2
LATITUDE: Final = 52.66
LONGITUDE: Final = -8.62
SIDE_METERS: Final = 10_000.0
RADIUS_METERS: Final = (30, 80)
PEOPLE: Final = 512
STEP_SECONDS: Final = 5
WALKING_METERS_PER_SECOND: Final = 1.4
START: Final = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)

_METERS_PER_DEGREE: Final = 111_195.0
_METERS_PER_LONGITUDE: Final = _METERS_PER_DEGREE * math.cos(math.radians(LATITUDE))

WORKSPACE: Final = b"""
timezone: Europe/Dublin
currency: EUR
caps:
  - {channel: push, times: 6, per: day}
  - {purpose: marketing, times: 3, per: 2h}
traits:
  first_name: {type: string}
computed:
  orders: {count: Order Completed}
  lifetime_value: {sum: event.properties.revenue, of: Order Completed}
  last_order_value: {last: event.properties.revenue, of: Order Completed}
  days_since_order: {days_since: Order Completed}
"""


class Place(msgspec.Struct, frozen=True):
    """A circle: degrees and metres."""

    latitude: float
    longitude: float
    radius_meters: float


def _at(east: float, north: float) -> tuple[float, float]:
    """Latitude and longitude of a point so many metres from the city's south-west corner."""
    half = SIDE_METERS / 2
    return (
        LATITUDE + (north - half) / _METERS_PER_DEGREE,
        LONGITUDE + (east - half) / _METERS_PER_LONGITUDE,
    )


def shops(chance: random.Random) -> list[list[Place]]:
    """The shops of each chain; those of one chain are of one size."""
    chains = []
    for _ in range(CHAINS):
        radius = float(chance.randint(*RADIUS_METERS))
        spots = (
            _at(chance.uniform(0, SIDE_METERS), chance.uniform(0, SIDE_METERS))
            for _ in range(SHOPS_PER_CHAIN)
        )
        chains.append([Place(latitude, longitude, radius) for latitude, longitude in spots])
    return chains


def outline_of(place: Place, corners: int) -> Polygon:
    """A regular polygon in the circle."""
    ring = [
        (
            place.latitude + place.radius_meters * math.cos(angle) / _METERS_PER_DEGREE,
            place.longitude + place.radius_meters * math.sin(angle) / _METERS_PER_LONGITUDE,
        )
        for angle in (2 * math.pi * corner / corners for corner in range(corners))
    ]
    return Polygon(((*ring, ring[0]),))


def ruling(chains: list[list[Place]]) -> Ruling:
    """The workspace of the city, with the sample model."""
    models = read_folder(MODELS)
    files = {"workspace.yaml": WORKSPACE, "rules.yaml": _rules(chains)}
    files |= {f"places/chain-{number:02}.geojson": _geojson(chain) for number, chain in enumerate(chains)}
    loaded = load(files, models)
    if loaded.rule_set is None:
        raise LoadtestError(f"the city's workspace is faulty: {loaded.problems[0].message}")
    cards = loaded.rule_set.models
    return Ruling(
        loaded.rule_set,
        {
            name: load_model(MODELS / card.file, inputs=len(card.inputs), output=card.output)
            for name, card in cards.items()
        },
    )


def _geojson(chain: list[Place]) -> bytes:
    features = [
        {
            "type": "Feature",
            "id": f"{round(shop.latitude * 1e6)}-{round(shop.longitude * 1e6)}",
            "properties": {"name": f"Shop {number}"},
            "geometry": {"type": "Point", "coordinates": [shop.longitude, shop.latitude]},
        }
        for number, shop in enumerate(chain)
    ]
    return msgspec.json.encode({"type": "FeatureCollection", "features": features})


def _rules(chains: list[list[Place]]) -> bytes:
    """Two rules a chain: one weighed by the model for those who have ordered, one for everyone."""
    places, offers, rules = ["geofences:"], ["offers:"], ["rules:"]
    for number, chain in enumerate(chains):
        name = f"chain-{number:02}"
        radius = chain[0].radius_meters
        places.append(
            f"  {name}: {{file: places/{name}.geojson, id: id, radius: {radius:.0f}, tags: [{name}]}}"
        )
        push = f'{{push: {{title: "Hi", body: "{{{{ geofence.name }}}} {number}"}}}}'
        offers.append(
            f"  {name}-a: {{purpose: marketing, value: 0.5 * profile.last_order_value, cost: 1.2, "
            f"propensity: {{model: buy_again, at_least: 0.02}}, message: {push}}}"
        )
        offers.append(
            f"  {name}-b: {{purpose: marketing, value: 2.4, cost: 0.6, propensity: 0.1, message: {push}}}"
        )
        enter = f"when: {{enter: {{tag: {name}}}}}"
        rules.append(f"  {name}-a: {{{enter}, if: profile.orders > 0, offer: {name}-a}}")
        rules.append(
            f"  {name}-b: {{{enter}, if: local.hour < 18, offer: {name}-b, cap: {{times: 1, per: 12h}}}}"
        )
    return "\n".join([*places, *offers, *rules, ""]).encode()


def people(given: Ruling) -> list[Profile]:
    """Everyone, known with their phone and what they bought; they may be sent offers."""
    known = []
    for number in range(PEOPLE):
        person = new_profile(("user_id", f"walker-{number}"), b"city", START)
        hello = Event(
            kind=Kind.IDENTIFY,
            message_id=f"hello-{number}",
            received_at=START,
            timestamp=START,
            user_id=f"walker-{number}",
            traits={"first_name": "Aoife"},
            consent={"marketing": True, "location": True},
            device=Device(id=f"phone-{number}", type="android", token=f"token-{number}"),
        )
        order = Event(
            kind=Kind.TRACK,
            name="Order Completed",
            message_id=f"order-{number}",
            received_at=START,
            timestamp=START - timedelta(days=1 + number % 60),
            properties={"revenue": 5.0 + number % 40},
        )
        for event in (hello, order):
            person = decide.observe(given.rules, person, event, START).profile
        known.append(person)
    return known


def walk(chance: random.Random, steps: int) -> Iterator[list[Event]]:
    """Step by step everyone's next fix, 7 m further in a direction that changes now and then."""
    spots = [
        (chance.uniform(0, SIDE_METERS), chance.uniform(0, SIDE_METERS), chance.uniform(0, 2 * math.pi))
        for _ in range(PEOPLE)
    ]
    meters = WALKING_METERS_PER_SECOND * STEP_SECONDS
    for step in range(1, steps + 1):
        at = START + timedelta(seconds=step * STEP_SECONDS)
        events = []
        for number, (east, north, heading) in enumerate(spots):
            heading += chance.gauss(0, 0.2)
            east = (east + meters * math.sin(heading)) % SIDE_METERS
            north = (north + meters * math.cos(heading)) % SIDE_METERS
            spots[number] = (east, north, heading)
            latitude, longitude = _at(east, north)
            events.append(
                Event(
                    kind=Kind.TRACK,
                    name="Location Updated",
                    message_id=f"{step}-{number}",
                    received_at=at,
                    timestamp=at,
                    user_id=f"walker-{number}",
                    device=Device(id=f"phone-{number}", type="android"),
                    location=Location(latitude=latitude, longitude=longitude, accuracy=8.0, speed=1.4, at=at),
                )
            )
        yield events
