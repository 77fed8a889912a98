"""A line with a width as an area: the way widened to both sides, on the ellipsoid.

The way is laid out on a plane that touches the earth in its middle, keeping distance and direction
from there, widened on the plane and taken back. The plane's scale is off by 0.1 % at the ends of the
longest line allowed, and by less than a millionth within 15 km.
"""

from __future__ import annotations

from math import acos, ceil, cos, pi, radians, sin, sqrt
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from engine.domain.places.earth import (
    EQUATORIAL_RADIUS_METERS,
    FLATTENING,
    MEAN_RADIUS_METERS,
    to_vectors,
)
from engine.domain.places.geodesics import between
from engine.domain.places.shapes import Line, MultiPolygon, Polygon, Ring, Strand

Array = NDArray[np.float64]

_STEP_METERS: Final = 1_000.0
_LONGEST_EDGE_METERS: Final = 500.0
_SHORTEST_EDGE_METERS: Final = 0.5
_FLATTER_METERS: Final = 0.01
_FLATTER_SHARE: Final = 0.0003
"""How much flatter than round an end may be: a centimetre, or that share of its radius."""
_E2: Final = FLATTENING * (2 - FLATTENING)


class Plane:
    """The plane that touches the earth at a point: x east, y north, in metres."""

    __slots__ = ("_axes", "_scale")

    def __init__(self, latitude: float, longitude: float) -> None:
        phi, lam = radians(latitude), radians(longitude)
        up = (cos(phi) * cos(lam), cos(phi) * sin(lam), sin(phi))
        north = (-sin(phi) * cos(lam), -sin(phi) * sin(lam), cos(phi))
        self._axes = np.array([(-sin(lam), cos(lam), 0.0), north, up])
        curve = sqrt(1 - _E2 * sin(phi) ** 2)
        self._scale = np.array(
            [EQUATORIAL_RADIUS_METERS / curve, EQUATORIAL_RADIUS_METERS * (1 - _E2) / curve**3]
        )

    def lay(self, degrees: Array) -> Array:
        """Rows (latitude, longitude) as rows (x, y)."""
        phi, lam = np.radians(degrees[:, 0]), np.radians(degrees[:, 1])
        units = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)
        along = units @ self._axes.T
        aside = np.hypot(along[:, 0], along[:, 1])
        angle = np.arctan2(aside, along[:, 2])
        stretch = np.divide(angle, aside, out=np.ones_like(angle), where=aside > 0)
        laid: Array = along[:, :2] * stretch[:, None] * self._scale
        return laid

    def lift(self, points: Array) -> Array:
        """Rows (x, y) as rows (latitude, longitude)."""
        angles = points / self._scale
        angle = np.hypot(angles[:, 0], angles[:, 1])
        shrink = np.sinc(angle / np.pi)
        along = np.column_stack([angles * shrink[:, None], np.cos(angle)])
        units = along @ self._axes
        latitudes = np.degrees(np.arctan2(units[:, 2], np.hypot(units[:, 0], units[:, 1])))
        return np.column_stack([latitudes, np.degrees(np.arctan2(units[:, 1], units[:, 0]))])


def middle_of(strands: tuple[Strand, ...]) -> tuple[float, float, float]:
    """(latitude, longitude) amid all points, and how far the farthest is from there in metres."""
    points = np.array([point for strand in strands for point in strand])
    vectors = to_vectors(points[:, 0], points[:, 1])
    x, y, z = vectors.mean(axis=0)
    away = float(np.linalg.norm(vectors - (x, y, z), axis=1).max())
    latitude = float(np.degrees(np.arctan2(z, np.hypot(x, y) * (1 - _E2))))
    return latitude, float(np.degrees(np.arctan2(y, x))), away


def widened(line: Line) -> Polygon | MultiPolygon:
    """The area of a line that `shape_check.examine` has no objection to."""
    latitude, longitude, _ = middle_of(line.strands)
    plane = Plane(latitude, longitude)
    ways = [shapely.LineString(plane.lay(_dense(strand))) for strand in line.strands]
    radius = line.width_meters / 2
    corner = 2 * acos(1 - min(1.0, max(_FLATTER_METERS / radius, _FLATTER_SHARE)))
    wide = shapely.buffer(shapely.MultiLineString(ways), radius, quad_segs=ceil(pi / 2 / corner))
    polygons = tuple(
        Polygon(tuple(_ring(plane, ring) for ring in (part.exterior, *part.interiors)))
        for part in shapely.get_parts(shapely.orient_polygons(wide))
    )
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


def _dense(strand: Strand) -> Array:
    """The strand with points at most a kilometre apart, on the shortest way (rows of degrees)."""
    corners = np.array(strand)
    vectors = to_vectors(corners[:, 0], corners[:, 1])
    lengths = np.linalg.norm(np.diff(vectors, axis=0), axis=1)
    legs = [
        between(start, end, ceil(length / _STEP_METERS)) if length > _STEP_METERS else np.array([start])
        for start, end, length in zip(strand[:-1], strand[1:], lengths.tolist(), strict=True)
    ]
    return np.vstack([*legs, corners[-1:]])


def _ring(plane: Plane, ring: shapely.LinearRing) -> Ring:
    """The ring in degrees, with edges short enough to be straight in degrees to within a
    centimetre: half a kilometre, and less towards a pole, where degrees bend."""
    points = shapely.get_coordinates(ring)
    to_pole = (90.0 - np.abs(plane.lift(points)[:, 0])) * np.pi / 180 * MEAN_RADIUS_METERS
    longest = np.clip(np.sqrt(0.08 * to_pole), _SHORTEST_EDGE_METERS, _LONGEST_EDGE_METERS)
    longest = np.minimum(longest[:-1], longest[1:])
    steps = np.diff(points, axis=0)
    counts = np.maximum(1, np.ceil(np.hypot(steps[:, 0], steps[:, 1]) / longest)).astype(np.int64)
    whole = np.repeat(np.arange(len(steps)), counts)
    share = (np.arange(len(whole)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[whole]
    dense = points[whole] + steps[whole] * share[:, None]
    lifted = plane.lift(dense)
    return tuple(map(tuple, np.vstack([lifted, lifted[:1]]).tolist()))
