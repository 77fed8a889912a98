"""Shapes made ready for questions: is a point inside, and how far is it from the edge.

Made once when a rule set loads, asked with every fix. Distances are signed: negative inside.
"""

from __future__ import annotations

from math import asin, cos, degrees, inf, pi, radians, sin, sqrt

import h3.api.basic_int as h3
import numpy as np
import shapely
from numpy.typing import NDArray

from engine.domain.places.cell_area import area_of
from engine.domain.places.earth import (
    EQUATORIAL_RADIUS_METERS,
    FLATTENING,
    MEAN_RADIUS_METERS,
    METERS_PER_DEGREE_AT_LEAST,
    METERS_PER_DEGREE_AT_MOST,
    arc_meters,
    arcs,
    chord_meters,
    meters_between,
    to_degrees,
    to_vector,
    to_vectors,
)
from engine.domain.places.inside import inside_of
from engine.domain.places.lines import widened
from engine.domain.places.planar import on_the_map
from engine.domain.places.shapes import Area, Cells, Circle, Extended, Line

Array = NDArray[np.float64]

# An edge is measured in straight pieces through the earth. At 1 km a piece lies 2 cm deep at most;
# at a fifth of a degree it leaves its parallel by less than 20 cm even beside the pole.
_PIECE_METERS = 1_000.0
_PIECE_DEGREES = 0.2
_MOST_PIECES = 400_000
_BLOCK = 64
_SNAP_DEGREES = 1e-9
"""Neighbouring cells of H3 agree on their common corners to within this."""
_BEND_DEGREES = 0.001
_MATRIX = 500_000
_FLAT_METERS = 5_000.0
_FLAT_DEGREES = 75.0


FlatCircle = tuple[float, float, float, float, float, float]
"""Middle's latitude and longitude; square metres of a squared degree east there, and how that grows
with each degree north of it; of a squared degree north; the squared radius."""


class CircleOutline:
    """A circle, compared through the earth: one subtraction per axis. `flat` is the same for a circle
    so small that the ground may be taken for flat, None for others."""

    __slots__ = (
        "_limit",
        "_x",
        "_y",
        "_z",
        "box",
        "flat",
        "latitude",
        "longitude",
        "radius_meters",
        "reach_meters",
    )

    def __init__(self, circle: Circle) -> None:
        self.latitude = circle.latitude
        self.longitude = circle.longitude
        self.radius_meters = circle.radius_meters
        self.reach_meters = circle.radius_meters
        self._x, self._y, self._z = to_vector(circle.latitude, circle.longitude)
        self._limit = chord_meters(circle.radius_meters) ** 2
        self.box = _box(circle)
        self.flat = flat_circle(circle)

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether the point is inside; the edge is."""
        south, west, north, east = self.box
        if not (south <= latitude <= north and west <= longitude <= east):
            return False
        if self.flat is not None:
            at, beside, wide, wider, high, limit = self.flat
            up, aside = latitude - at, longitude - beside
            return (wide + wider * up) * aside * aside + high * up * up <= limit
        x, y, z = to_vector(latitude, longitude)
        x -= self._x
        y -= self._y
        z -= self._z
        return x * x + y * y + z * z <= self._limit

    def distance_meters(self, latitude: float, longitude: float) -> float:
        """The way to the edge, negative inside."""
        return meters_between(latitude, longitude, self.latitude, self.longitude) - self.radius_meters

    def distances_meters(self, latitudes: Array, longitudes: Array) -> Array:
        """The same for many points, within 0.3 % up to 10,000 km."""
        away = to_vectors(latitudes, longitudes) - (self._x, self._y, self._z)
        return arcs(np.linalg.norm(away, axis=1)) - self.radius_meters


class AreaOutline:
    """A polygon or several. `latitude`, `longitude` are a middle, `reach_meters` the farthest that
    an edge lies from it, `radius_meters` the radius of a circle of the same area."""

    __slots__ = (
        "_block_middles",
        "_block_reaches",
        "_geometry",
        "_squares",
        "_starts",
        "_steps",
        "box",
        "latitude",
        "longitude",
        "radius_meters",
        "reach_meters",
        "within",
    )

    def __init__(self, shape: Area, snap_degrees: float | None = None) -> None:
        geometry = on_the_map(shape, snap_degrees)
        edges = _edges(geometry)
        self._geometry = geometry
        west, south, east, north = geometry.bounds
        self.box = (south, west, north, east)
        self.within = inside_of(edges.tolist(), lambda: geometry)
        """Whether a point within the box is inside; the edge is."""
        self.radius_meters = sqrt(_area_square_meters(edges) / pi)
        starts, ends = _pieces(geometry, edges)
        self._starts = starts
        self._steps = ends - starts
        self._squares = np.einsum("ij,ij->i", self._steps, self._steps)
        self._block_middles, self._block_reaches = _blocks(starts, ends)
        middle = ends.mean(axis=0) if len(ends) else np.array(to_vector(0.0, 0.0))
        self.latitude, self.longitude = to_degrees((float(middle[0]), float(middle[1]), float(middle[2])))
        away = ends - to_vector(self.latitude, self.longitude)
        self.reach_meters = float(arcs(np.linalg.norm(away, axis=1)).max()) if len(ends) else inf

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether the point is inside; the edge is."""
        south, west, north, east = self.box
        return south <= latitude <= north and west <= longitude <= east and self.within(latitude, longitude)

    def distance_meters(self, latitude: float, longitude: float) -> float:
        """The way to the nearest edge, negative inside, -inf where there is no edge (the whole
        earth)."""
        point = np.array(to_vector(latitude, longitude))
        near = self._near(point)
        starts, steps = self._starts[near], self._steps[near]
        if not len(starts):
            return -inf
        away = point - starts
        along = np.clip(np.einsum("ij,ij->i", away, steps) / self._squares[near], 0.0, 1.0)
        away -= along[:, None] * steps
        squares = np.einsum("ij,ij->i", away, away)
        nearest = int(squares.argmin())
        distance = arc_meters(sqrt(float(squares[nearest])))
        if distance > 1_000_000.0:
            x, y, z = starts[nearest] + along[nearest] * steps[nearest]
            distance = meters_between(latitude, longitude, *to_degrees((float(x), float(y), float(z))))
        return -distance if self.contains(latitude, longitude) else distance

    def distances_meters(self, latitudes: Array, longitudes: Array) -> Array:
        """The same for many points, within 0.3 % up to 10,000 km."""
        inside = shapely.intersects_xy(self._geometry, longitudes, latitudes)
        if not len(self._starts):
            return np.full(len(latitudes), -inf)
        if len(self._starts) > _MATRIX // 50:
            pairs = zip(latitudes.tolist(), longitudes.tolist(), strict=True)
            return np.array([self.distance_meters(*pair) for pair in pairs])
        points = to_vectors(latitudes, longitudes)
        at_once = max(1, _MATRIX // len(self._starts))
        chords = [self._chords(points[k : k + at_once]) for k in range(0, len(points), at_once)]
        distances = arcs(np.concatenate(chords))
        return np.where(inside, -distances, distances)

    def _near(self, point: Array) -> slice | NDArray[np.int64]:
        """The pieces that can be the nearest: those in blocks not farther than the nearest block's
        far side. Few pieces are all taken."""
        if len(self._starts) <= 4 * _BLOCK:
            return slice(None)
        away = np.linalg.norm(self._block_middles - point, axis=1)
        limit = (away + self._block_reaches).min()
        blocks = np.flatnonzero(away - self._block_reaches <= limit)
        rows: NDArray[np.int64] = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        return rows[rows < len(self._starts)]

    def _chords(self, points: Array) -> Array:
        """For each point the straight way to the nearest piece."""
        away = points[:, None, :] - self._starts[None, :, :]
        along = np.clip(np.einsum("kij,ij->ki", away, self._steps) / self._squares, 0.0, 1.0)
        away -= along[:, :, None] * self._steps
        nearest: Array = np.sqrt(np.einsum("kij,kij->ki", away, away).min(axis=1))
        return nearest


class CellsOutline:
    """H3 cells: H3 says what is inside, the way to the edge is measured on their area."""

    __slots__ = (
        "_area",
        "_cells",
        "_levels",
        "box",
        "latitude",
        "longitude",
        "radius_meters",
        "reach_meters",
    )

    def __init__(self, shape: Cells) -> None:
        self._cells = frozenset(shape.cells)
        self._levels = sorted({h3.get_resolution(cell) for cell in shape.cells})
        self._area = AreaOutline(area_of(shape), _SNAP_DEGREES)
        south, west, north, east = self._area.box
        # Edges that are straight on the earth bend on the map, at most by a piece's sagitta.
        self.box = (south - _BEND_DEGREES, west - _BEND_DEGREES, north + _BEND_DEGREES, east + _BEND_DEGREES)
        self.latitude, self.longitude = self._area.latitude, self._area.longitude
        self.radius_meters, self.reach_meters = self._area.radius_meters, self._area.reach_meters

    def contains(self, latitude: float, longitude: float) -> bool:
        """Whether the point's cell is one of these."""
        return any(h3.latlng_to_cell(latitude, longitude, level) in self._cells for level in self._levels)

    def distance_meters(self, latitude: float, longitude: float) -> float:
        """The way to the edge, negative inside."""
        distance = abs(self._area.distance_meters(latitude, longitude))
        return -distance if self.contains(latitude, longitude) else distance

    def distances_meters(self, latitudes: Array, longitudes: Array) -> Array:
        """The same for many points, within 0.3 % up to 10,000 km."""
        return self._area.distances_meters(latitudes, longitudes)


Outline = CircleOutline | AreaOutline | CellsOutline


def outline(shape: Extended) -> Outline:
    """The shape made ready. It must be one that `shape_check.examine` has no objection to."""
    return CircleOutline(shape) if isinstance(shape, Circle) else area_outline(shape)


def area_outline(shape: Area | Line | Cells) -> AreaOutline | CellsOutline:
    """The same for what is no circle."""
    if isinstance(shape, Cells):
        return CellsOutline(shape)
    return AreaOutline(widened(shape) if isinstance(shape, Line) else shape)


def flat_circle(circle: Circle) -> FlatCircle | None:
    """The circle on flat ground, good to a few millionths of the radius; None for one that is large, near
    a pole, or over the antimeridian."""
    latitude, longitude, radius = circle.latitude, circle.longitude, circle.radius_meters
    if radius > _FLAT_METERS or abs(latitude) > _FLAT_DEGREES or abs(longitude) > 179.0:
        return None
    # https://en.wikipedia.org/wiki/Earth_radius#Principal_radii_of_curvature
    phi, degree = radians(latitude), radians(1.0)
    curve = 1 - FLATTENING * (2 - FLATTENING) * sin(phi) ** 2
    east = EQUATORIAL_RADIUS_METERS / sqrt(curve) * degree
    north = EQUATORIAL_RADIUS_METERS * (1 - FLATTENING) ** 2 / curve**1.5 * degree
    # Degrees east are as wide as half way between: the square falls by sin 2φ a radian, halved.
    wider = -(east**2) * sin(phi) * cos(phi) * degree
    return latitude, longitude, (east * cos(phi)) ** 2, wider, north**2, radius * radius


def _box(circle: Circle) -> tuple[float, float, float, float]:
    """South, west, north, east of what can be inside, in degrees: it spares most sines and roots.
    Over a pole or the antimeridian all longitudes can."""
    up = circle.radius_meters / METERS_PER_DEGREE_AT_LEAST
    south, north = circle.latitude - up, circle.latitude + up
    if south <= -89.0 or north >= 89.0:
        return south, -inf, north, inf
    aside = degrees(asin(min(1.0, sin(radians(up)) / cos(radians(circle.latitude))))) if up < 90 else 180.0
    west, east = circle.longitude - aside, circle.longitude + aside
    return (south, -inf, north, inf) if west < -180.0 or east > 180.0 else (south, west, north, east)


def _edges(geometry: shapely.Geometry) -> Array:
    """All edges of all rings, shells counterclockwise and holes clockwise: rows (longitude,
    latitude, to longitude, to latitude) in degrees."""
    rings = []
    for part in shapely.get_parts(shapely.orient_polygons(geometry)):
        for ring in (part.exterior, *part.interiors):
            points = shapely.get_coordinates(ring)
            rings.append(np.hstack([points[:-1], points[1:]]))
    return np.concatenate(rings)


def _area_square_meters(edges: Array) -> float:
    """Exact on the sphere for edges that are straight in longitude and latitude: the area between
    an edge and the equator is the integral of sin(latitude) over the longitude."""
    east = np.radians(edges[:, 2] - edges[:, 0])
    low, high = np.radians(edges[:, 1]), np.radians(edges[:, 3])
    # sinc is the finite quotient (cos low - cos high) / (high - low) = sin(middle) sinc(half).
    mean_sine = np.sin((low + high) / 2) * np.sinc((high - low) / 2 / pi)
    return abs(float((east * mean_sine).sum())) * MEAN_RADIUS_METERS**2


def _pieces(geometry: shapely.Geometry, edges: Array) -> tuple[Array, Array]:
    """Start and end of each straight piece of real edge, as vectors. Lines that only the flat map
    has (a pole drawn as a line, the cut along the antimeridian) are no edges."""
    edges = edges[~((np.abs(edges[:, 1]) == 90.0) & (np.abs(edges[:, 3]) == 90.0))]
    east, north = np.abs(edges[:, 2] - edges[:, 0]), np.abs(edges[:, 3] - edges[:, 1])
    widest = np.cos(np.radians(np.minimum(np.abs(edges[:, 1]), np.abs(edges[:, 3]))))
    lengths = np.hypot(north, east * widest) * METERS_PER_DEGREE_AT_MOST
    coarser = max(1.0, float((lengths / _PIECE_METERS + east / _PIECE_DEGREES).sum()) / _MOST_PIECES)
    counts = np.maximum(lengths / _PIECE_METERS, east / _PIECE_DEGREES) / coarser
    counts = np.maximum(1, np.ceil(counts)).astype(np.int64)
    whole = np.repeat(edges, counts, axis=0)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    index, of = np.arange(len(whole)) - first, np.repeat(counts, counts)
    span = whole[:, 2:] - whole[:, :2]
    starts = whole[:, :2] + span * (index / of)[:, None]
    ends = whole[:, :2] + span * ((index + 1) / of)[:, None]
    seam = (np.abs(starts[:, 0]) == 180.0) & (np.abs(ends[:, 0]) == 180.0)
    if seam.any():
        across = -np.sign(starts[:, 0]) * (180.0 - 1e-9)
        seam &= shapely.intersects_xy(geometry, across, (starts[:, 1] + ends[:, 1]) / 2)
    a = to_vectors(starts[~seam, 1], starts[~seam, 0])
    b = to_vectors(ends[~seam, 1], ends[~seam, 0])
    long = ((b - a) ** 2).sum(axis=1) > 0
    return a[long], b[long]


def _blocks(starts: Array, ends: Array) -> tuple[Array, Array]:
    """A ball around each run of neighbouring pieces: middles and radii."""
    cuts = np.arange(0, len(starts), _BLOCK)
    if not len(cuts):
        return np.empty((0, 3)), np.empty(0)
    sizes = np.diff(np.append(cuts, len(starts)))
    middles = np.add.reduceat(starts, cuts) / sizes[:, None]
    spread = np.repeat(middles, sizes, axis=0)
    far = np.maximum(np.linalg.norm(starts - spread, axis=1), np.linalg.norm(ends - spread, axis=1))
    return middles, np.maximum.reduceat(far, cuts)
