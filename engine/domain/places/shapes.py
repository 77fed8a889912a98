"""The shapes that a place can have, as the workspace's author wrote them. WGS 84 degrees, metres.

A polygon's edges are straight in longitude and latitude, as GeoJSON has them: an edge between two
points of the same latitude runs along the parallel. An edge that spans more than 180° of longitude
goes the short way, over the antimeridian (an edge of exactly 360° is the whole parallel). A ring
that goes once around a pole encloses the pole that it is nearer to.
"""

from __future__ import annotations

from typing import Final

import msgspec

Ring = tuple[tuple[float, float], ...]
"""Points (latitude, longitude) in degrees, the last one equal to the first."""

MOST_VERTICES: Final = 100_000
LARGEST_RADIUS_METERS: Final = 5_000_000.0
SMALLEST_WIDTH_METERS: Final = 0.5
LARGEST_WIDTH_METERS: Final = 10_000.0
LONGEST_LINE_METERS: Final = 500_000.0
"""From a line's middle to its farthest point."""
MOST_CELLS: Final = 10_000
COARSEST_CELLS: Final = 2
"""The coarsest H3 resolution that a fence may be made of: cells of some 180 km."""


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


Strand = tuple[tuple[float, float], ...]
"""Points (latitude, longitude) in degrees, one after the other along a way."""


class Line(msgspec.Struct, frozen=True, tag="line"):
    """Everything within half of `width_meters` of a street or a walkway, with round ends. Between
    two points the way is the shortest one, a geodesic. Several strands are one place."""

    strands: tuple[Strand, ...]
    width_meters: float


class Cells(msgspec.Struct, frozen=True, tag="cells"):
    """Everything whose H3 cell, at the resolution of one of these, is one of these."""

    cells: tuple[int, ...]


class Beacon(msgspec.Struct, frozen=True, tag="beacon"):
    """No area at all: a phone says that it hears the beacon of this name."""

    name: str


Area = Polygon | MultiPolygon
Shape = Circle | Polygon | MultiPolygon | Line | Cells | Beacon
Extended = Circle | Polygon | MultiPolygon | Line | Cells
"""A shape with an inside."""


def polygons_of(shape: Polygon | MultiPolygon) -> tuple[Polygon, ...]:
    """The parts of an area."""
    return shape.polygons if isinstance(shape, MultiPolygon) else (shape,)
