"""The weather of many places at once, in the shape of Open-Meteo's API: one request, one answer.

https://open-meteo.com/en/docs: `/v1/forecast` with comma-separated coordinates gives a list in their
order, or for a single place its object alone. Whoever hosts the same API gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec

PATH: Final = "/v1/forecast"
MOST_PLACES: Final = 100
"""In one request: the API's URLs are not to get longer than some kilobytes."""
FIELDS: Final[Mapping[str, str]] = {
    "temperature_2m": "temp_c",
    "apparent_temperature": "feels_like_c",
    "relative_humidity_2m": "humidity",
    "precipitation": "precipitation_mm",
    "rain": "rain_mm",
    "snowfall": "snow_cm",
    "cloud_cover": "cloud_cover",
    "wind_speed_10m": "wind_kmh",
    "wind_gusts_10m": "gusts_kmh",
    "weather_code": "code",
}
"""What is asked for, by the API's names, and what `weather` calls it in rules. Percent, millimetres,
kilometres an hour; `code` is the WMO's."""
_READ_BYTES: Final = 1_000_000

Reading = Mapping[str, float]


class WeatherError(Exception):
    """No reading was to be had; it says why, without the places."""


class OpenMeteo:
    """A connection to one server."""

    def __init__(self, url: str, timeout_seconds: float = 5.0) -> None:
        self._url = url.rstrip("/") + PATH if urlsplit(url).path in ("", "/") else url
        self._client = httpx.AsyncClient(timeout=timeout_seconds)

    async def close(self) -> None:
        await self._client.aclose()

    async def current(self, places: Sequence[tuple[float, float]]) -> list[Reading]:
        """The weather now at each place, (latitude, longitude), at most `MOST_PLACES`. What the answer
        lacks, or what is no number, is left out of its reading.

        Raises:
            WeatherError: there was no answer, or none that can be read.
        """
        asked = {
            "latitude": ",".join(f"{latitude:.2f}" for latitude, _ in places),
            "longitude": ",".join(f"{longitude:.2f}" for _, longitude in places),
            "current": ",".join(FIELDS),
        }
        try:
            response = await self._client.get(self._url, params=asked)
        except (httpx.HTTPError, httpx.InvalidURL) as fault:
            raise WeatherError(type(fault).__name__) from None  # its text may hold the URL
        if response.status_code != 200:
            raise WeatherError(f"status {response.status_code}")
        if len(response.content) > _READ_BYTES:
            raise WeatherError("the answer is too long")
        try:
            answer = msgspec.json.decode(response.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise WeatherError("the answer is no JSON") from None
        found = answer if isinstance(answer, list) else [answer]
        if len(found) != len(places):
            raise WeatherError(f"{len(found)} answers for {len(places)} places")
        return [_reading(one) for one in found]


def _reading(answer: Any) -> Reading:
    current = answer.get("current") if isinstance(answer, Mapping) else None
    if not isinstance(current, Mapping):
        return {}
    return {
        ours: value
        for theirs, ours in FIELDS.items()
        if isinstance(value := current.get(theirs), int | float) and not isinstance(value, bool)
    }
