"""Areas on a flat map of longitude and latitude, where GeoJSON's edges are straight.

Rings are unrolled over the antimeridian, closed through the pole that they enclose, and cut back to
the map from -180° to 180°. After that, whether a point lies inside is the plain question, whatever
the shape: no other code needs to know about the antimeridian or the poles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from engine.domain.places.shapes import Area, Polygon, Ring, polygons_of

WORLD = shapely.box(-180.0, -90.0, 180.0, 90.0)


def unrolled(ring: Ring) -> tuple[NDArray[np.float64], int]:
    """The ring as rows (longitude, latitude) with longitudes that run on past ±180°, and how often
    it goes around the earth eastwards (1 or -1: it encloses a pole)."""
    points = np.asarray(ring, dtype=np.float64)[:, ::-1].copy()
    steps = np.diff(points[:, 0])
    wrap = (np.abs(steps) > 180.0) & (np.abs(steps) != 360.0)
    steps[wrap] -= 360.0 * np.sign(steps[wrap])
    points[1:, 0] = points[0, 0] + np.cumsum(steps)
    # A cumulated sum drifts by parts of a nanodegree: a ring that returns must return exactly.
    around = round(float(points[-1, 0] - points[0, 0]) / 360.0)
    original = np.asarray(ring, dtype=np.float64)[:, 1]
    points[:, 0] = original + 360.0 * np.round((points[:, 0] - original) / 360.0)
    return points, around


def flat_ring(ring: Ring) -> BaseGeometry:
    """The inside of one ring, unrolled and not yet cut back to the map."""
    points, around = unrolled(ring)
    if around:
        pole = 90.0 if float(points[:, 1].mean()) >= 0 else -90.0
        over = [[points[-1, 0], pole], [points[0, 0], pole], [points[0, 0], points[0, 1]]]
        points = np.vstack([points, over])
    return shapely.Polygon(points)


def flat_polygon(polygon: Polygon) -> BaseGeometry:
    """The polygon with its holes, unrolled; what `shapely.is_valid` can judge."""
    shell, *holes = polygon.rings
    outside = flat_ring(shell)
    flat_holes = [_beside(flat_ring(hole), outside) for hole in holes]
    west, _, east, _ = outside.bounds
    if east - west >= 360.0 or any(unrolled(hole)[1] for hole in holes):
        turned = [translate(hole, 360.0 * turn) for hole in flat_holes for turn in (-1, 0, 1)]
        return outside.difference(shapely.union_all(turned)) if turned else outside
    return shapely.Polygon(outside.exterior, [hole.exterior for hole in flat_holes])


def on_the_map(shape: Area, snap_degrees: float | None = None) -> BaseGeometry:
    """The whole area as one geometry in degrees, x from -180 to 180. Parts that touch grow together;
    with `snap_degrees` those that miss each other by so little do, too. For shapes that
    `shape_check.examine` found no fault with; GEOS may refuse others."""
    parts = [piece for polygon in polygons_of(shape) for piece in _cut(flat_polygon(polygon))]
    if len(parts) == 1:
        return parts[0]
    return shapely.multipolygons(_polygons(shapely.union_all(parts, grid_size=snap_degrees)))


def _beside(hole: BaseGeometry, shell: BaseGeometry) -> BaseGeometry:
    """The hole moved by whole turns to where the shell was unrolled to."""
    middle = (shell.bounds[0] + shell.bounds[2]) / 2
    turns = round((middle - (hole.bounds[0] + hole.bounds[2]) / 2) / 360.0)
    return translate(hole, 360.0 * turns) if turns else hole


def _cut(flat: BaseGeometry) -> Sequence[BaseGeometry]:
    west, _, east, _ = flat.bounds
    if west >= -180.0 and east <= 180.0:
        return _polygons(flat)
    first, last = int(np.floor((-180.0 - east) / 360.0)), int(np.ceil((180.0 - west) / 360.0))
    turned = [translate(flat, 360.0 * turn).intersection(WORLD) for turn in range(first, last + 1)]
    return [piece for part in turned for piece in _polygons(part)]


def _polygons(geometry: BaseGeometry) -> list[BaseGeometry]:
    """The parts that have an area: cutting along an edge leaves lines and points behind."""
    return [part for part in shapely.get_parts(geometry) if part.geom_type == "Polygon" and part.area > 0]
