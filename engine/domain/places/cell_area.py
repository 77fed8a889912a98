"""A fence made of H3 cells as an area, for distances and pictures.

Whether a point is inside is asked of H3 itself; only the way to the edge is measured on this area.
"""

from __future__ import annotations

from math import ceil
from typing import Final

import h3.api.basic_int as h3
import numpy as np

from engine.domain.places.earth import to_degrees, to_vector
from engine.domain.places.shapes import Cells, MultiPolygon, Polygon

_LONGEST_EDGE_METERS: Final = 2_000.0


def area_of(shape: Cells) -> MultiPolygon:
    """The cells side by side, each with edges that follow the earth."""
    return MultiPolygon(tuple(Polygon((_ring(cell),)) for cell in sorted(set(shape.cells))))


def _ring(cell: int) -> tuple[tuple[float, float], ...]:
    corners = h3.cell_to_boundary(cell)
    ring: list[tuple[float, float]] = []
    for start, end in zip(corners, (*corners[1:], corners[0]), strict=True):
        a, b = np.array(to_vector(*start)), np.array(to_vector(*end))
        count = max(1, ceil(float(np.linalg.norm(b - a)) / _LONGEST_EDGE_METERS))
        # From the smaller corner to the larger, so that neighbours draw their common edge alike.
        turned = end < start
        low, high = (b, a) if turned else (a, b)
        between = [low + (high - low) * (k / count) for k in range(1, count)]
        if turned:
            between.reverse()
        ring.append(start)
        ring += [to_degrees((float(x), float(y), float(z))) for x, y, z in between]
    return (*ring, ring[0])
