"""The shapes that a place can have, as the workspace's author wrote them. WGS 84 degrees, metres.

A polygon's edges are straight in longitude and latitude, as GeoJSON has them: an edge between two
points of the same latitude runs along the parallel. An edge that spans more than 180° of longitude
goes the short way, over the antimeridian (an edge of exactly 360° is the whole parallel). A ring
that goes once around a pole encloses the pole that it is nearer to.

Lines, beacons and fences of H3 cells will be further members of `Shape`.
"""

from __future__ import annotations

from typing import Final

import msgspec

Ring = tuple[tuple[float, float], ...]
"""Points (latitude, longitude) in degrees, the last one equal to the first."""

MOST_VERTICES: Final = 100_000
LARGEST_RADIUS_METERS: Final = 5_000_000.0


class Circle(msgspec.Struct, frozen=True, tag="circle"):
    """Everything within `radius_meters` of a point, measured over the surface."""

    latitude: float
    longitude: float
    radius_meters: float


class Polygon(msgspec.Struct, frozen=True, tag="polygon"):
    """The first ring without the others, which are its holes. The edge belongs to it."""

    rings: tuple[Ring, ...]


class MultiPolygon(msgspec.Struct, frozen=True, tag="multipolygon"):
    """Several polygons as one place; where they touch there is no edge."""

    polygons: tuple[Polygon, ...]


Shape = Circle | Polygon | MultiPolygon


def polygons_of(shape: Polygon | MultiPolygon) -> tuple[Polygon, ...]:
    """The parts of an area."""
    return shape.polygons if isinstance(shape, MultiPolygon) else (shape,)
