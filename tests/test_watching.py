"""What a phone should watch: the promise that nothing is entered unlisted, and whose places they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from math import cos, radians
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.domain.people.profiles import Address, Consent, Contact
from engine.domain.places.earth import meters_between
from engine.domain.places.fence_index import Fence, FenceIndex, build
from engine.domain.places.shapes import Circle, Line
from engine.domain.places.trips import Trip
from engine.domain.places.watching import Moving, Stake, Watch, watch
from engine.domain.stakes import Stakes
from loadtest.regions import simulate
from tests import served
from tests.served import SERVER_KEY, Served
from tests.story import BEFORE, NOON, rule_set, someone

HERE = (52.66, -8.62)
ENTER = Stake(True, False, False, 1.0)


def at(north: float, east: float) -> tuple[float, float]:
    return HERE[0] + north / 111_250, HERE[1] + east / (111_400 * cos(radians(HERE[0])))


def town(*places: tuple[float, float]) -> FenceIndex:
    """Circles of 50 m, so many metres north and east of here; named by their number."""
    return build(Fence(str(number), Circle(*at(*place), 50)) for number, place in enumerate(places))


def everywhere(_: str) -> Stake:
    return ENTER


def test_nearly_everything_entered_is_in_the_list_and_the_rest_is_explained() -> None:
    """1,000 people and an hour each: `python -m loadtest regions`."""
    report = simulate(people=10, seconds=1800)
    assert report.enters > 50
    assert report.kept_share >= 0.99
    assert report.missed == report.crowded + report.between
    assert report.changed_by_10_meters < 0.05


def test_the_nearest_are_listed_and_the_next_one_says_how_far_is_safe() -> None:
    index = town(*((400.0 * step, 0.0) for step in range(1, 8)))
    found = watch(index, Moving(*HERE, 10.0, 1.0), everywhere, 3)
    assert [region.id for region in found.regions] == ["0", "1", "2"]
    assert all(region.radius == 100 and region.on_enter and not region.on_exit for region in found.regions)
    assert found.refresh_radius == pytest.approx(4 * 400 - 50 - 10 - 15, abs=5)
    assert found.refresh_after == round(found.refresh_radius / 1.5)
    assert found.crowded == 0
    moved = watch(index, Moving(*at(5, 5), 10.0, 1.0), everywhere, 3)
    assert [region.id for region in moved.regions] == ["0", "1", "2"]


def test_of_those_equally_near_the_ones_worth_most_come_first() -> None:
    ring = [(0.0, 600.0), (600.0, 0.0), (0.0, -600.0), (-600.0, 0.0)]
    index = town(*ring)
    stakes = {str(n): msgspec.structs.replace(ENTER, value=value) for n, value in enumerate((1, 9, 1, 8))}
    found = watch(index, Moving(*HERE), stakes.get, 2)
    assert {region.id for region in found.regions} == {"1", "3"}


def test_where_no_rule_waits_nothing_is_watched_and_the_phone_may_go_far() -> None:
    index = town(*((30.0 * step, 0.0) for step in range(40)))
    found = watch(index, Moving(*HERE), lambda _: None, 19)
    assert found.regions == ()
    assert found.refresh_radius > 50_000
    assert found.refresh_after == 3600


def test_more_places_close_by_than_fit_are_told_as_crowded() -> None:
    index = town(*((4.0 * step, 0.0) for step in range(40)))
    found = watch(index, Moving(*HERE), everywhere, 19)
    assert len(found.regions) == 19
    assert found.crowded == 9  # those within 60 m of the phone
    assert found.refresh_radius == 60


def test_an_approach_widens_its_circle_by_the_way_and_the_delay() -> None:
    index = town((9_000.0, 0.0))
    ahead = Stake(True, False, False, 1.0, lead_seconds=90.0)

    def radius(speed: float | None, delay: float) -> float:
        return watch(index, Moving(*HERE, 10.0, speed, delay), lambda _: ahead, 19).regions[0].radius

    assert radius(None, 180.0) == pytest.approx(50 + 270 * 1.5)
    assert radius(None, 120.0) == pytest.approx(50 + 210 * 1.5)
    assert radius(9.0, 180.0) == pytest.approx(50 + 270 * 14)
    assert radius(30.0, 180.0) == pytest.approx(50 + 270 * 30)


def test_within_a_widened_circle_the_place_itself_is_watched() -> None:
    """Whoever is in there already would not be told of the place by it; so the phone asks again on the
    way, before it can be there."""
    index = town((2_000.0, 0.0))
    ahead = Stake(True, False, False, 1.0, lead_seconds=90.0)

    def asked(north: float) -> Watch:
        return watch(index, Moving(*at(north, 0), 10.0, 1.4), lambda _: ahead, 19)

    outside, within = asked(1_000), asked(1_700)
    assert outside.regions[0].radius > 400
    assert within.regions[0].radius == 100
    assert outside.refresh_radius < 950 < within.refresh_radius


def test_a_long_place_is_covered_whole() -> None:
    street = Line((((at(0, 300)), (at(0, 1300))),), 12)
    (region,) = watch(build([Fence("street", street)]), Moving(*HERE), everywhere, 19).regions
    for end in (at(0, 300), at(0, 1300)):
        away = meters_between(region.latitude, region.longitude, *end)
        assert away + 6 == pytest.approx(region.radius, abs=3)


def test_no_place_outside_the_list_is_nearer_than_the_refresh() -> None:
    chance = random.Random(4)
    index = town(*((chance.gauss(0, 1500), chance.gauss(0, 1500)) for _ in range(300)))
    for _ in range(30):
        here = at(chance.gauss(0, 800), chance.gauss(0, 800))
        found = watch(index, Moving(*here, 10.0, 1.2), everywhere, 19)
        listed = {region.id for region in found.regions}
        unlisted = [way for way, name in index.near(*here, 5_000) if name not in listed]
        assert found.crowded or found.refresh_radius <= unlisted[0]


TOWN = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}, tags: [cafe], properties: {city: Limerick}}
  gate: {circle: {lat: 52.67, lng: -8.62, radius: 60}, open: {daily: "20:00-21:00"}}
  shop: {circle: {lat: 52.68, lng: -8.62, radius: 60}}
  park: {circle: {lat: 52.69, lng: -8.62, radius: 60}}
offers:
  latte: {purpose: marketing, value: 3, cost: 1, propensity: 0.5, MESSAGE}
  loss: {purpose: marketing, value: 1, cost: 3, propensity: 0.5, MESSAGE}
  tip: {purpose: marketing, MESSAGE}
  ready: {purpose: service, MESSAGE}
rules:
  latte: {when: {enter: {tag: cafe}}, if: profile.orders == 0, offer: latte, cap: {times: 1, per: 7d}}
  ahead: {when: {approach: {fence: gate}, within: 90s}, if: geofence.open && weather.temp_c < 10, offer: tip}
  stay: {when: {dwell: {fence: shop}, for: 5m}, offer: ready}
  gone: {when: {exit: {fence: shop}}, if: 'geofence.name == "elsewhere"', offer: ready}
  never: {when: {enter: {fence: park}}, offer: loss}
""".replace("MESSAGE", "message: {push: {title: t, body: b}}")
RULES = rule_set(
    TOWN,
    "consent: {purposes: {marketing: {}, service: {basis: contract}}}\n"
    "computed: {orders: {count: Order Completed}}\n",
)


def stakes(**person: Any) -> dict[str, Stake | None]:
    found = Stakes(RULES, someone(**person), NOON, {})
    return {fence: found.at(fence) for fence in RULES.fences}


def test_a_place_is_worth_watching_while_one_of_its_rules_may_still_fire() -> None:
    assert stakes() == {
        "cafe": Stake(True, False, False, 1.0),
        "gate": Stake(True, False, False, None, 90.0),  # closed, and the weather unknown: that may change
        "shop": Stake(False, False, True),
        "park": None,  # never worth its cost
    }


def test_what_stops_a_rule_for_good_makes_its_place_not_worth_watching() -> None:
    assert stakes(consent={})["cafe"] is None
    assert stakes(consent={})["shop"] == Stake(False, False, True)
    assert stakes(computed={"orders": 3})["cafe"] is None
    offered = Contact(NOON - timedelta(days=1), "latte", "latte", "push", "marketing", "d")
    assert stakes(contacts=(offered,))["cafe"] is None
    denied = Address(type="android", token="t", seen_at=BEFORE, permissions={"push": "denied"})
    assert stakes(devices={"phone": denied})["cafe"] is None
    assert stakes(consent={"marketing": Consent(False, BEFORE, "marketing")})["gate"] is None


TRIPS = """
geofences:
  far: {circle: {lat: 52.9, lng: -8.62, radius: 40}, properties: {store_id: s9}}
  shop: {circle: {lat: 52.661, lng: -8.62, radius: 40}}
  cafe: {circle: {lat: 52.662, lng: -8.62, radius: 40}}
actions:
  tell: {purpose: service, webhook: kitchen, body: {order: "{{ trip.order_id }}"}}
offers:
  ready: {purpose: service, message: {push: {title: t, body: b}}}
rules:
  kitchen: {when: {arriving: pickup, within: 3m}, do: tell}
  here: {when: {enter: {fence: shop}}, offer: ready}
  there: {when: {enter: {fence: cafe}}, offer: ready}
trips:
  pickup: {starts: {event: Order Placed}, to: event.properties.store_id, ends: [Order Cancelled], expires: 2h}
"""


def test_where_somebody_waits_for_the_person_is_watched_however_far() -> None:
    rules = rule_set(TRIPS, "consent: {purposes: {service: {basis: contract}}}\n")

    def found(trips: dict[str, Trip], now: datetime = NOON) -> list[str]:
        stakes = Stakes(rules, someone(trips=trips), now, {})
        regions = watch(rules.index, Moving(*HERE, 10.0, 1.0), stakes.at, 2, stakes.awaited).regions
        return [region.id for region in regions]

    trip = Trip("pickup", "far", NOON - timedelta(minutes=10))
    assert found({}) == ["shop", "cafe"]
    assert found({"pickup\n": trip}) == ["shop", "far"]
    assert found({"pickup\n": msgspec.structs.replace(trip, arrived=True)}) == ["shop", "cafe"]
    assert found({"pickup\n": trip}, NOON + timedelta(hours=2)) == ["shop", "cafe"]  # over by then
    stakes = Stakes(rules, someone(trips={"pickup\n": trip}), NOON, {})
    assert stakes.at("far") == Stake(True, False, False, None, 180.0, True)
    (region,) = watch(rules.index, Moving(*HERE, 10.0, 1.0), stakes.at, 1, stakes.awaited).regions
    assert region.radius == pytest.approx(40 + 360 * 1.5)


@pytest.fixture(scope="module")
def engine(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("watching")
    workspace = (
        b"timezone: Europe/Dublin\n"
        b"consent: {purposes: {marketing: {}, location: {}, service: {basis: contract}}}\n"
        b"computed: {orders: {count: Order Completed}}\n"
    )
    served.write_workspace(folder / "rules", workspace, TOWN.encode())
    with served.database(postgres, "test_watching") as dsn, served.serve(folder, dsn) as running:
        yield running


def arrive(engine: Served, user: str, **permissions: Any) -> None:
    event = {
        "type": "identify",
        "userId": user,
        "messageId": f"hello-{user}",
        "traits": {"consent": {"marketing": "granted", "location": "granted"}},
        "context": {
            "device": {"id": f"{user}-phone", "type": "ios", "token": "t"},
            "permissions": permissions,
        },
    }
    with engine.client() as client:
        assert client.post("/v1/batch", json={"batch": [event]}).json()["accepted"] == 1


def asked(engine: Served, key: str | None = served.WRITE_KEY, **body: Any) -> Any:
    location = {"latitude": 52.66, "longitude": -8.62, "accuracy": 20}
    with engine.client(key) as client:
        return client.post("/v1/geofences", json={"location": location, **body})


def test_a_phone_is_told_what_to_watch(engine: Served) -> None:
    arrive(engine, "ada", location="always", precise=True)
    response = asked(engine, userId="ada", device={"id": "ada-phone"})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"regions", "refreshRadius", "refreshAfter"}
    assert [region["id"] for region in answer["regions"]] == ["cafe", "gate", "shop"]
    assert answer["regions"][0] == {
        "id": "cafe",
        "latitude": 52.66,
        "longitude": -8.62,
        "radius": 100.0,
        "onEnter": True,
        "onExit": False,
        "onDwell": False,
    }
    assert answer["regions"][1]["radius"] == pytest.approx(60 + 270 * 1.5)
    assert answer["regions"][2] | {"onEnter": True, "onExit": True, "onDwell": True} == answer["regions"][2]
    assert answer["refreshRadius"] > 1_000
    assert 60 <= answer["refreshAfter"] <= 3600
    fewer = asked(engine, SERVER_KEY, userId="ada", limit=1).json()
    assert [region["id"] for region in fewer["regions"]] == ["cafe"]
    assert fewer["refreshRadius"] < 1_100
    assert asked(engine, None, userId="ada", writeKey=served.WRITE_KEY).status_code == 200


def test_without_precise_permission_there_are_no_regions(engine: Served) -> None:
    arrive(engine, "bob", location="always", precise=False)
    vague = asked(engine, userId="bob", device={"id": "bob-phone"}).json()
    assert vague == {"regions": [], "refreshRadius": 0.0, "refreshAfter": 3600, "reason": "imprecise"}
    arrive(engine, "cyd", location="denied")
    assert asked(engine, userId="cyd", device={"id": "cyd-phone"}).json()["reason"] == "no_permission"
    arrive(engine, "dan")
    said = asked(engine, userId="dan", permissions={"location": "always", "precise": False}).json()
    assert said["reason"] == "imprecise"
    coarse = {"latitude": 52.66, "longitude": -8.62, "accuracy": 3000}
    assert asked(engine, userId="dan", location=coarse).json()["reason"] == "imprecise"
    assert asked(engine, userId="nobody-knows").json()["reason"] == "no_consent"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"userId": "ada", "location": {"latitude": 91, "longitude": 0}}, 400),
        ({"userId": "ada", "location": {"latitude": "x"}}, 400),
        ({"userId": "ada", "limit": 0}, 400),
    ],
)
def test_what_is_asked_wrongly_is_a_400(engine: Served, body: dict[str, Any], status: int) -> None:
    assert asked(engine, **body).status_code == status


def test_a_key_is_needed(engine: Served) -> None:
    assert asked(engine, "wrong", userId="ada").status_code == 401
    assert asked(engine, None, userId="ada").status_code == 401
