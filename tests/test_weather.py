"""The weather through a stand-in that speaks Open-Meteo's API over a real socket, and the sun."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.adapters.weather import OpenMeteo, WeatherError
from engine.app.weather import GOOD_SECONDS, RENEWED_SECONDS, Weather
from engine.domain.people.events import Device, Kind
from engine.domain.places.sun import daylight
from tests import lanes
from tests.lanes import fetch
from tests.story import CAFE, FAR, rule_set

DUBLIN, CORK, OSLO = (53.35, -6.26), (51.90, -8.47), (59.91, 10.75)


class Sky:
    """What the stand-in answers, and what it was asked. The temperature is the latitude."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.status = 200
        self.body: bytes | None = None
        self.degrees = 0.0
        self.url = ""
        self.current: dict[str, float] | None = None
        """What it says of every place, where it is not by the latitude."""

    def answer(self, query: dict[str, list[str]]) -> bytes:
        places = zip(query["latitude"][0].split(","), query["longitude"][0].split(","), strict=True)
        found = [self._one(float(north), float(east)) for north, east in places]
        return json.dumps(found[0] if len(found) == 1 else found).encode()

    def _one(self, north: float, east: float) -> dict[str, Any]:
        current: dict[str, Any] = self.current or {
            "time": "2026-03-02T10:00", "interval": 900, "temperature_2m": round(north + self.degrees, 2),
            "apparent_temperature": 3, "rain": None, "weather_code": 61,
        }  # fmt: skip
        units = {"time": "iso8601", "temperature_2m": "°C"}
        return {"latitude": north, "longitude": east, "current_units": units, "current": current}


@contextmanager
def stand_in() -> Iterator[Sky]:
    sky = Sky()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            sky.asked.append(query)
            found = parts.path == "/v1/forecast" and sky.status == 200
            body = sky.body if sky.body is not None else sky.answer(query) if found else b"{}"
            self.send_response(sky.status if parts.path == "/v1/forecast" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    sky.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield sky
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def sky() -> Iterator[Sky]:
    with stand_in() as found:
        yield found


async def test_readings_of_one_place_and_of_several(sky: Sky) -> None:
    for url in (sky.url, sky.url + "/", sky.url + "/v1/forecast"):
        source = OpenMeteo(url)
        assert await source.current([DUBLIN]) == [{"temp_c": 53.35, "feels_like_c": 3, "code": 61}]
        assert [one["temp_c"] for one in await source.current([CORK, OSLO])] == [51.9, 59.91]
        await source.close()
    assert "temperature_2m" in sky.asked[0]["current"][0]


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, None), (429, None), (200, b"<html>"), (200, b"[]"), (200, b"[1,2]"), (200, b" " * 1_000_001)],
)
async def test_an_answer_that_is_none(sky: Sky, status: int, body: bytes | None) -> None:
    sky.status, sky.body = status, body
    source = OpenMeteo(sky.url)
    with pytest.raises(WeatherError) as caught:
        await source.current([DUBLIN])
    assert "53" not in str(caught.value)
    await source.close()


async def test_nobody_answers() -> None:
    source = OpenMeteo("http://127.0.0.1:9", timeout_seconds=1.0)
    with pytest.raises(WeatherError, match="ConnectError"):
        await source.current([DUBLIN])
    await source.close()


async def test_a_reading_is_there_after_its_answer_and_renewed_before_it_is_old(sky: Sky) -> None:
    now = 1000.0
    source = OpenMeteo(sky.url)
    weather = Weather(source, clock=lambda: now)
    assert weather.at(*DUBLIN) == {}
    assert weather.at(*DUBLIN) == {}
    assert weather.at(*OSLO) == {}
    assert await weather.renew()
    assert len(sky.asked) == 1  # both places in one request, each once
    dublin = weather.at(*DUBLIN)
    assert abs(dublin["temp_c"] - 53.35) < 0.2
    assert weather.at(53.3501, -6.2601) == dublin  # the same cell
    sky.degrees = 10.0
    now += RENEWED_SECONDS - 1
    assert weather.at(*DUBLIN) == dublin
    assert not weather.waiting
    now += 1
    assert weather.at(*DUBLIN) == dublin  # the old one, while the new one is asked for
    assert weather.waiting == 1
    assert await weather.renew()
    assert weather.at(*DUBLIN)["temp_c"] == pytest.approx(dublin["temp_c"] + 10)
    now += GOOD_SECONDS
    assert weather.at(*DUBLIN) == {}
    sky.status = 503
    assert not await weather.renew()
    assert weather.at(*DUBLIN) == {}
    sky.status = 200
    assert await weather.renew()
    assert weather.at(*DUBLIN) != {}
    await source.close()


RULES = """
geofences:
  cafe: {circle: {lat: 52.66, lng: -8.62, radius: 60}}
offers:
  latte: {purpose: marketing, message: {push: {title: Latte, body: "{{ weather.temp_c }}"}}}
rules:
  cold: {when: {enter: {fence: cafe}}, if: weather.temp_c > 50, offer: latte}
  dark: {when: Wish, if: 'has(weather.sunset) && !weather.is_day', offer: latte}
  sure: {when: Check, if: has(weather.temp_c), offer: latte}
"""


async def test_decisions_take_what_is_known_and_say_so(postgres_dsn: str, sky: Sky) -> None:
    source = OpenMeteo(sky.url)
    weather = Weather(source)
    async with lanes.engine(postgres_dsn, rule_set(RULES), weather=weather) as engine:
        phone = Device(id="p", type="android", token="t")

        def told(name: str, minute: int, **fields: Any) -> Any:
            engine.now = lanes.NOW + timedelta(minutes=minute)
            return lanes.event(Kind.TRACK, name, user="ada", device=phone, at=engine.now, **fields)

        async def result(event: Any) -> list[str]:
            return [d.reason or d.outcome for d in (await engine.send(event)).decisions]

        await engine.send(lanes.arrival("ada", "p"))
        assert await result(told("Check", 0)) == ["condition_false"]  # nobody knows where she is
        assert await result(told("Location Updated", 1, location=CAFE)) == ["condition_unknown"]
        assert await weather.renew()
        assert await result(told("Location Updated", 2, location=FAR)) == []
        assert await result(told("Location Updated", 3, location=CAFE)) == ["offered"]
        assert await result(told("Check", 4)) == ["offered"]  # where she was last
        assert await result(told("Wish", 5)) == ["condition_false"]  # ten in the morning
        own = {"weather": {"temp_c": 1.0}}
        await result(told("Location Updated", 6, location=FAR))
        assert await result(told("Location Updated", 7, location=CAFE, context=own)) == ["condition_false"]
        rows = await fetch(postgres_dsn, "SELECT facts FROM events ORDER BY seq")
    facts = [json.loads(row[0]).get("weather", {}) for row in rows]
    assert [round(f["temp_c"]) if "temp_c" in f else None for f in facts][3:6] == [None, 53, 53]
    await source.close()


async def test_a_workspace_that_does_not_ask_reads_none(postgres_dsn: str, sky: Sky) -> None:
    source = OpenMeteo(sky.url)
    weather = Weather(source)
    async with lanes.engine(postgres_dsn, weather=weather) as engine:
        await engine.send(lanes.event(Kind.TRACK, "Location Updated", user="ada", location=CAFE))
        assert not weather.waiting
    await source.close()


@pytest.mark.parametrize(
    ("place", "day", "sunrise", "sunset"),
    [
        # Of almanacs: Dublin and Oslo at midsummer, Sydney in winter, Quito at an equinox.
        ((53.35, -6.26), "2026-06-21", "03:57", "20:57"),
        ((59.91, 10.75), "2026-12-21", "08:18", "14:12"),
        ((-33.87, 151.21), "2026-07-01", "21:01", "06:57"),
        ((-0.18, -78.47), "2026-03-20", "11:19", "23:25"),
    ],
)
def test_sunrise_and_sunset(place: tuple[float, float], day: str, sunrise: str, sunset: str) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00+00:00") - timedelta(hours=place[1] / 15)
    found = daylight(*place, noon)
    assert found.sunrise is not None
    assert found.sunset is not None
    for moment, expected in ((found.sunrise, sunrise), (found.sunset, sunset)):
        hours, minutes = expected.split(":")
        apart = moment.hour * 60 + moment.minute - int(hours) * 60 - int(minutes)
        assert abs(apart) <= 3
    assert found.is_day
    assert not daylight(*place, noon + timedelta(hours=11)).is_day


def test_where_the_sun_stays_up_or_down() -> None:
    assert daylight(78.2, 15.6, datetime(2026, 6, 21, tzinfo=UTC)) == daylight(
        78.2, 15.6, datetime(2026, 6, 21, 20, tzinfo=UTC)
    )
    for month, is_day in ((6, True), (12, False)):
        found = daylight(78.2, 15.6, datetime(2026, month, 21, 12, tzinfo=UTC))
        assert (found.sunrise, found.sunset, found.is_day) == (None, None, is_day)
