"""Distances on the earth, good to 0.3 % everywhere: the ellipsoid, not a sphere.

A sphere is wrong by up to 0.56 % for short ways near the equator and by 0.45 % near the poles. The
straight line through the earth between two points of the WGS 84 ellipsoid has no special places
(no pole, no antimeridian) and bends into an arc with one correction, so everything near is measured
with it. Only ways of more than about 6,000 km take Lambert's formula.
"""

from __future__ import annotations

from math import asin, atan, atan2, cos, degrees, dist, hypot, pi, radians, sin, sqrt, tan
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
"""A point in metres from the earth's centre: x towards 0° 0°, y towards 0° 90° E, z north."""

EQUATORIAL_RADIUS_METERS: Final = 6378137.0
FLATTENING: Final = 1 / 298.257223563
MEAN_RADIUS_METERS: Final = 6371008.8
METERS_PER_DEGREE_AT_MOST: Final = 111_700.0
"""No degree of latitude or longitude is longer than this anywhere."""
METERS_PER_DEGREE_AT_LEAST: Final = 110_500.0
"""No degree of latitude, and none of longitude on the equator, is shorter than this."""

_E2: Final = FLATTENING * (2 - FLATTENING)
_CHORD_LIMIT_METERS: Final = 6_000_000.0
"""Up to this chord one mean radius is enough to bend it (within 0.1 %)."""


def to_vector(latitude: float, longitude: float) -> Vector:
    """The point of the ellipsoid at `latitude`, `longitude` in degrees."""
    phi = radians(latitude)
    lam = radians(longitude)
    s = sin(phi)
    normal = EQUATORIAL_RADIUS_METERS / sqrt(1 - _E2 * s * s)
    level = normal * cos(phi)
    return level * cos(lam), level * sin(lam), normal * (1 - _E2) * s


def to_vectors(latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """`to_vector` for many points: rows (x, y, z)."""
    phi, lam = np.radians(latitudes), np.radians(longitudes)
    s = np.sin(phi)
    normal = EQUATORIAL_RADIUS_METERS / np.sqrt(1 - _E2 * s * s)
    level = normal * np.cos(phi)
    return np.stack([level * np.cos(lam), level * np.sin(lam), normal * (1 - _E2) * s], axis=-1)


def to_degrees(vector: Vector) -> tuple[float, float]:
    """(latitude, longitude) below which `vector` lies; for points within some metres of the surface."""
    x, y, z = vector
    return degrees(atan2(z, hypot(x, y) * (1 - _E2))), degrees(atan2(y, x))


def arc_meters(chord_meters: float) -> float:
    """The way over the surface between two points `chord_meters` apart through the earth. Within
    0.3 % up to 10,000 km; beyond that take `meters_between`."""
    return 2 * MEAN_RADIUS_METERS * asin(min(1.0, chord_meters / (2 * MEAN_RADIUS_METERS)))


def arcs(chords: NDArray[np.float64]) -> NDArray[np.float64]:
    """`arc_meters` of many."""
    found: NDArray[np.float64] = (
        2 * MEAN_RADIUS_METERS * np.arcsin(np.minimum(1.0, chords / (2 * MEAN_RADIUS_METERS)))
    )
    return found


def chord_meters(arc: float) -> float:
    """The inverse of `arc_meters`; more than half way round is as far as one can get."""
    return 2 * MEAN_RADIUS_METERS * sin(min(pi / 2, arc / (2 * MEAN_RADIUS_METERS)))


def meters_between(latitude: float, longitude: float, to_latitude: float, to_longitude: float) -> float:
    """The shortest way between two points in metres, within 0.3 % wherever they are."""
    chord = dist(to_vector(latitude, longitude), to_vector(to_latitude, to_longitude))
    if chord <= _CHORD_LIMIT_METERS:
        return arc_meters(chord)
    return _far(latitude, longitude, to_latitude, to_longitude)


def _far(latitude: float, longitude: float, to_latitude: float, to_longitude: float) -> float:
    """Lambert's formula for long lines: the great circle over reduced latitudes, corrected for the
    flattening. Its correction is undefined at antipodes, where half a meridian is the answer."""
    a = atan((1 - FLATTENING) * tan(radians(latitude)))
    b = atan((1 - FLATTENING) * tan(radians(to_latitude)))
    half = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(radians(to_longitude - longitude) / 2) ** 2
    sigma = 2 * asin(min(1.0, sqrt(half)))
    p, q = (a + b) / 2, (b - a) / 2
    near, far = cos(sigma / 2) ** 2, sin(sigma / 2) ** 2
    half_meridian = 20_003_931.5
    if near < 1e-4:
        return min(EQUATORIAL_RADIUS_METERS * sigma, half_meridian)
    x = (sigma - sin(sigma)) * (sin(p) * cos(q)) ** 2 / near
    y = (sigma + sin(sigma)) * (cos(p) * sin(q)) ** 2 / far
    return min(EQUATORIAL_RADIUS_METERS * (sigma - FLATTENING / 2 * (x + y)), half_meridian)
