"""Shapes as rings to draw: straight pieces in degrees, no more of them than an eye can tell apart."""

from __future__ import annotations

from typing import Final

import numpy as np
import shapely

from engine.domain.places.cell_area import area_of
from engine.domain.places.lines import Plane, widened
from engine.domain.places.shapes import Cells, Circle, Extended, Line, Ring, polygons_of

_CIRCLE_CORNERS: Final = 72
_MOST_POINTS: Final = 1_000
_FINEST_SHARE: Final = 1 / 2_000


def rings_of(shape: Extended) -> tuple[tuple[Ring, ...], ...]:
    """Each part of a shape: its outer ring, and those of its holes."""
    if isinstance(shape, Circle):
        turns = np.linspace(0, 2 * np.pi, _CIRCLE_CORNERS + 1)
        on_the_plane = shape.radius_meters * np.column_stack([np.cos(turns), np.sin(turns)])
        lifted = Plane(shape.latitude, shape.longitude).lift(on_the_plane)
        return ((tuple(map(tuple, lifted.tolist())),),)
    area = (
        widened(shape) if isinstance(shape, Line) else area_of(shape) if isinstance(shape, Cells) else shape
    )
    return tuple(tuple(map(_thinned, polygon.rings)) for polygon in polygons_of(area))


def _thinned(ring: Ring) -> Ring:
    if len(ring) <= _MOST_POINTS:
        return ring
    points = np.array(ring)
    extent = float(np.ptp(points, axis=0).max())
    thin = shapely.simplify(shapely.LineString(points), extent * _FINEST_SHARE)
    return tuple(map(tuple, shapely.get_coordinates(thin).tolist()))
