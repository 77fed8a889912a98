"""The weather where people are, known before it is asked for.

A reading belongs to an H3 cell of about 10 km and is good for a quarter of an hour. Decisions take
what is here and never wait: a cell that nobody was in lately is unknown for the moment that its first
answer takes. Cells that people are in are read again before they grow old.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

import h3.api.basic_int as h3
import msgspec
import structlog

from engine.adapters.weather import MOST_PLACES, OpenMeteo, WeatherError
from engine.app import metrics
from engine.domain.observation import Observation
from engine.domain.offers.rules import RuleSet
from engine.domain.places.presence import is_known
from engine.domain.places.sun import daylight

RESOLUTION: Final = 5
GOOD_SECONDS: Final = 900.0
RENEWED_SECONDS: Final = 600.0
"""A cell that is asked for when its reading is so old is read again, while the old one serves on."""
AGAIN_SECONDS: Final = 30.0
"""After a request that failed."""
MOST_CELLS: Final = 20_000

log = structlog.get_logger()


class _Cell(msgspec.Struct):
    """`read_at` is monotonic seconds, None before the first answer."""

    reading: Mapping[str, float] = {}
    read_at: float | None = None
    waiting: bool = False


class Weather:
    """Readings by cell, and the task that keeps them fresh."""

    def __init__(self, source: OpenMeteo, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._clock = clock
        self._cells: dict[int, _Cell] = {}
        self._wanted: dict[int, None] = {}
        self._asked = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many cells are asked for."""
        return len(self._wanted)

    def at(self, latitude: float, longitude: float) -> Mapping[str, float]:
        """The reading of the place, empty where there is none. Never waits."""
        number = h3.latlng_to_cell(latitude, longitude, RESOLUTION)
        cell = self._cells.get(number)
        if cell is None:
            cell = self._cells[number] = _Cell()
            if len(self._cells) > MOST_CELLS:
                self._forget()
        age = self._clock() - cell.read_at if cell.read_at is not None else None
        if not cell.waiting and (age is None or age >= RENEWED_SECONDS):
            cell.waiting = True
            self._wanted[number] = None
            self._asked.set()
        if age is None or age >= GOOD_SECONDS:
            return {}
        return cell.reading

    async def run(self) -> None:
        """Answers what was asked for, one request at a time."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._wanted:
                if not await self.renew():
                    await asyncio.sleep(AGAIN_SECONDS)

    async def renew(self) -> bool:
        """One request for what is wanted. False where it failed: it is wanted still."""
        numbers = list(self._wanted)[:MOST_PLACES]
        try:
            readings = await self._source.current([h3.cell_to_latlng(number) for number in numbers])
        except WeatherError as fault:
            metrics.WEATHER.labels("failed").inc()
            log.warning("weather_unknown", fault=str(fault), cells=len(numbers))
            return False
        metrics.WEATHER.labels("read").inc()
        for number, reading in zip(numbers, readings, strict=True):
            self._wanted.pop(number, None)
            if (cell := self._cells.get(number)) is not None:
                cell.reading, cell.read_at, cell.waiting = reading, self._clock(), False
        return True

    def _forget(self) -> None:
        """The older half of the cells, those never read first; what is wanted stays."""
        by_age = sorted(self._cells, key=lambda number: self._cells[number].read_at or 0.0)
        for number in by_age[: MOST_CELLS // 2]:
            if number not in self._wanted:
                del self._cells[number]


class Readings(Protocol):
    """Where the weather is read: the service's, or as it was recorded."""

    def at(self, latitude: float, longitude: float) -> Mapping[str, float]:
        """The reading of a place, empty where there is none."""


def sky(rules: RuleSet, seen: Observation, now: datetime, weather: Readings | None) -> Mapping[str, Any]:
    """`weather` of expressions where the person is, as far as that is known: the sun's times, and the
    reading. Empty where no rule reads it. A fix asks for its cell even if nothing is decided on it, so
    that the reading is here when something is."""
    if not rules.reads_weather:
        return {}
    sets_off = False
    for trigger in seen.triggers:
        sets_off = sets_off or (trigger.kind, trigger.name) in rules.by_trigger
    if not sets_off and weather is None:
        return {}
    location = seen.event.location
    if location is not None:
        latitude, longitude = location.latitude, location.longitude
    else:
        presence = seen.profile.presence
        trail = presence.devices.get(presence.carried)
        if trail is None or not is_known(presence, now, rules.silence):
            return {}
        latitude, longitude = trail.last.latitude, trail.last.longitude
    reading = weather.at(latitude, longitude) if weather is not None else {}
    if not sets_off:
        return {}
    light = daylight(latitude, longitude, now)
    found = {"sunrise": light.sunrise, "sunset": light.sunset, "is_day": light.is_day, **reading}
    return {name: value for name, value in found.items() if value is not None}
