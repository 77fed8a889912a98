"""Which H3 cells a shape touches, and which of them lie wholly inside.

A fix's cell is computed once, at the finest level; coarser cells are derived from it by their
digits. A coarse cell therefore stands for all fixes whose fine cell has it as an ancestor, an area
that bulges over the hexagon's corners by up to 5.2 % of its radius. Every cell counts as that much
larger, and a little more.
"""

from __future__ import annotations

from typing import Final

import h3.api.basic_int as h3
import msgspec
import numpy as np

from engine.domain.places.earth import meters_between
from engine.domain.places.outline import Outline

LEVELS: Final = (1, 3, 5, 7, 9, 11)
"""The resolutions in use, coarsest first. Few, because each one costs a lookup per fix."""

# Up to this reach in metres a shape is covered at the level beside it: then at most some 200 cells.
_LEVEL_BY_REACH: Final = ((300.0, 11), (2_000.0, 9), (14_000.0, 7), (95_000.0, 5), (700_000.0, 3))
_BULGE: Final = 1.15


class Cover(msgspec.Struct, frozen=True):
    """Cells of one level. A fix in an `inner` cell is inside, in an `edge` cell it may be."""

    level: int
    inner: tuple[int, ...]
    edge: tuple[int, ...]


def cover(outline: Outline) -> Cover:
    """The cells that a shape touches; none is missing, a few may be too many."""
    level = next((level for reach, level in _LEVEL_BY_REACH if outline.reach_meters < reach), None)
    if level is None:
        level = LEVELS[0]
        cells = [cell for base in h3.get_res0_cells() for cell in h3.cell_to_children(base, level)]
        middles = np.array([h3.cell_to_latlng(cell) for cell in cells])
        # Cells differ by a factor of two in area over the earth, so that each is measured.
        radii = np.array([_radius_meters(cell) for cell in cells])
    else:
        middle = h3.latlng_to_cell(outline.latitude, outline.longitude, level)
        radius = _radius_meters(middle) * 1.1
        # Rings of neighbours lie at least 1.5 radii apart, less where the grid is stretched.
        rings = int((outline.reach_meters + 2 * radius) / (1.2 * radius)) + 1
        cells = h3.grid_disk(middle, rings)
        middles = np.array([h3.cell_to_latlng(cell) for cell in cells])
        radii = np.full(len(cells), radius)
    distances = outline.distances_meters(middles[:, 0], middles[:, 1])
    inner = distances < -radii * _BULGE
    edge = ~inner & (distances <= radii * _BULGE)
    return Cover(level, _chosen(cells, inner), _chosen(cells, edge))


def _chosen(cells: list[int], mask: np.typing.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(sorted(cells[at] for at in np.flatnonzero(mask)))


def _radius_meters(cell: int) -> float:
    """From a cell's middle to its farthest corner."""
    latitude, longitude = h3.cell_to_latlng(cell)
    return max(meters_between(latitude, longitude, *corner) for corner in h3.cell_to_boundary(cell))
