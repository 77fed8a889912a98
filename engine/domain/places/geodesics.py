"""Points along the shortest way between two points of the WGS 84 ellipsoid.

T. Vincenty, "Direct and inverse solutions of geodesics on the ellipsoid", Survey Review 23 (1975):
with reduced latitudes a geodesic is a great circle, on which the longitude runs a little faster.
Good to a millimetre up to several thousand kilometres; not for points nearly opposite each other.
"""

from __future__ import annotations

from math import atan, atan2, cos, hypot, radians, sin, tan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.domain.places.earth import FLATTENING

Array = NDArray[np.float64]

_ROUNDS: Final = 20
_CLOSE_ENOUGH: Final = 1e-12


def between(start: tuple[float, float], end: tuple[float, float], count: int) -> Array:
    """`count` points at equal distances to within 0.1 %, from `start` on and without `end`: rows of
    (latitude, longitude) in degrees, longitudes within ±180."""
    low, high = _reduced(start[0]), _reduced(end[0])
    gap = radians((end[1] - start[1] + 180.0) % 360.0 - 180.0)
    turn = gap
    for _ in range(_ROUNDS):
        way = hypot(cos(high) * sin(turn), cos(low) * sin(high) - sin(low) * cos(high) * cos(turn))
        over = sin(low) * sin(high) + cos(low) * cos(high) * cos(turn)
        sigma = atan2(way, over)
        if not way:
            return np.tile(np.array([start]), (count, 1))
        sine = cos(low) * cos(high) * sin(turn) / way
        square = 1 - sine * sine
        first = atan2(sin(low) * way, sin(high) - sin(low) * over) if square > 1e-15 else 0.0
        slow = _slowness(sine, square, first, np.array([sigma]))
        before, turn = turn, gap + float(slow[0])
        if abs(turn - before) < _CLOSE_ENOUGH:
            break
    sigmas = sigma * np.arange(count) / count
    a = np.array([cos(low), 0.0, sin(low)])
    b = np.array([cos(high) * cos(turn), cos(high) * sin(turn), sin(high)])
    along = np.sin(sigma - sigmas)[:, None] * a + np.sin(sigmas)[:, None] * b
    reduced = np.arctan2(along[:, 2], np.hypot(along[:, 0], along[:, 1]))
    latitudes = np.degrees(np.arctan2(np.sin(reduced), (1 - FLATTENING) * np.cos(reduced)))
    turns = np.arctan2(along[:, 1], along[:, 0]) - _slowness(sine, square, first, sigmas)
    longitudes = (start[1] + np.degrees(turns) + 180.0) % 360.0 - 180.0
    return np.column_stack([latitudes, longitudes])


def _reduced(latitude: float) -> float:
    if abs(latitude) == 90.0:
        return radians(latitude)
    return atan((1 - FLATTENING) * tan(radians(latitude)))


def _slowness(sine: float, square: float, first: float, sigmas: Array) -> Array:
    """By how much the longitude on the ellipsoid lags behind that on the sphere, after `sigmas`.
    `sine` is that of the azimuth on the equator, `first` the start's angle from the equator."""
    c = FLATTENING / 16 * square * (4 + FLATTENING * (4 - 3 * square))
    middle = np.cos(2 * first + sigmas)
    inner = middle + c * np.cos(sigmas) * (2 * middle**2 - 1)
    lag: Array = (1 - c) * FLATTENING * sine * (sigmas + c * np.sin(sigmas) * inner)
    return lag
