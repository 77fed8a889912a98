"""Whether a point is inside a flat area, by counting the edges east of it (ray casting).

The area is cut into bands of latitude, each with the few edges that pass through it. A point that
lies on an edge, or level with a corner, is left to GEOS, which compares exactly. Plain Python with
two or three edges a band costs 0.4 µs, a call of GEOS 3 to 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf, sqrt
from typing import Final

import shapely
from shapely.geometry.base import BaseGeometry

from engine.domain.places.planar import on_the_map
from engine.domain.places.shapes import Polygon

Line = tuple[float, float, float, float]
"""An edge as it is: longitude, latitude, to longitude, to latitude."""
Edge = tuple[float, float, float, float]
"""Lower end, upper end, longitude at the lower end, degrees east for each degree north."""
Box = tuple[float, float, float, float]
"""South, west, north, east."""
Squares = tuple[float, float]
Test = Callable[[float, float], bool]
"""Whether the point (latitude, longitude) is inside; the edge is."""

_MOST_EDGES: Final = 20_000
_MOST_IN_A_BAND: Final = 48
_MOST_REPEATED: Final = 12
_ON_THE_EDGE: Final = 1e-12
_PLAIN_EDGES: Final = 2_000
_PLAIN_LONGITUDE: Final = 179.0


def inside_of(edges: Sequence[Line], geometry: Callable[[], BaseGeometry]) -> Test:
    """The test of a flat area in degrees, x from -180 to 180, for points within its bounds. `edges`
    are those of all its rings, `geometry` makes it for GEOS when it is needed.

    A function with its numbers bound, because a method would look each of them up."""
    made: list[BaseGeometry] = []

    def exact(latitude: float, longitude: float) -> bool:
        if not made:
            made.append(geometry())
            shapely.prepare(made[0])
        return bool(shapely.intersects_xy(made[0], longitude, latitude))

    south = min(min(edge[1], edge[3]) for edge in edges)
    north = max(max(edge[1], edge[3]) for edge in edges)
    cut = _bands(edges, south, north) if len(edges) <= _MOST_EDGES else None
    if cut is None:
        return exact
    bands, scale = cut

    def contains(latitude: float, longitude: float) -> bool:
        inside = False
        for low, high, at_low, slope in bands[int((latitude - south) * scale)]:
            if low < latitude < high:
                east = at_low + (latitude - low) * slope - longitude
                if east > _ON_THE_EDGE:
                    inside = not inside
                elif east > -_ON_THE_EDGE:
                    return exact(latitude, longitude)
            elif latitude in (low, high):
                return exact(latitude, longitude)
        return inside

    return contains


def plain_inside(polygon: Polygon) -> tuple[Box, Test] | None:
    """The bounds and the test of a polygon as it stands, in a tenth of the time that its outline takes;
    None for one that is large, or near the antimeridian and the poles, which the map has to cut."""
    edges = [
        (lng, lat, to_lng, to_lat)
        for ring in polygon.rings
        for (lat, lng), (to_lat, to_lng) in pairwise(ring)
    ]
    if len(edges) > _PLAIN_EDGES:
        return None
    longitudes, latitudes = [edge[0] for edge in edges], [edge[1] for edge in edges]
    west, east = min(longitudes), max(longitudes)
    if west < -_PLAIN_LONGITUDE or east > _PLAIN_LONGITUDE or east - west > _PLAIN_LONGITUDE:
        return None
    box = (min(latitudes), west, max(latitudes), east)
    return box, inside_of(edges, lambda: on_the_map(polygon))


def ring_around(polygon: Polygon, latitude: float, longitude: float, wide: float, high: float) -> Squares:
    """Squares of two distances from a point, in metres of flat ground with `wide` and `high` square
    metres to a squared degree: whoever is nearer than the first is on the point's side of every edge,
    whoever is farther than the second is outside. Half a percent is left for the ground's bend."""
    east, north = sqrt(wide), sqrt(high)
    nearest, farthest = inf, 0.0
    for ring in polygon.rings:
        corners = [((lng - longitude) * east, (lat - latitude) * north) for lat, lng in ring]
        for (x, y), (to_x, to_y) in pairwise(corners):
            step_x, step_y = to_x - x, to_y - y
            length = step_x * step_x + step_y * step_y
            along = min(1.0, max(0.0, -(x * step_x + y * step_y) / length)) if length else 0.0
            near_x, near_y = x + along * step_x, y + along * step_y
            nearest = min(nearest, near_x * near_x + near_y * near_y)
            farthest = max(farthest, x * x + y * y)
    return nearest * 0.99, farthest * 1.01


def _bands(
    edges: Sequence[Line], south: float, north: float
) -> tuple[tuple[tuple[Edge, ...], ...], float] | None:
    """Bands so narrow that few edges lie in each, unless that repeats the edges too often, and how
    many there are in a degree. None where too many edges lie in one."""
    sloped = [_upward(edge) for edge in edges if edge[1] != edge[3]]
    count = 2 * len(edges)
    while True:
        scale = count / (north - south) * (1 - 1e-9)  # the topmost point falls into the last band
        spans = [(int((edge[0] - south) * scale), int((edge[1] - south) * scale)) for edge in sloped]
        if count == 1 or sum(last - first + 1 for first, last in spans) <= _MOST_REPEATED * len(edges):
            break
        count //= 2
    bands: list[list[Edge]] = [[] for _ in range(count)]
    for edge, (first, last) in zip(sloped, spans, strict=True):
        for band in range(first, last + 1):
            bands[band].append(edge)
    if max(map(len, bands)) > _MOST_IN_A_BAND:
        return None
    return tuple(map(tuple, bands)), scale


def _upward(line: Line) -> Edge:
    lng, lat, to_lng, to_lat = line
    slope = (to_lng - lng) / (to_lat - lat)
    return (lat, to_lat, lng, slope) if lat < to_lat else (to_lat, lat, to_lng, slope)
