"""Which H3 cells shapes touch, and which of those lie wholly inside; many shapes at once.

A fix's cell is computed once, at the finest level; coarser cells are derived from it by their
digits. A coarse cell therefore stands for all fixes whose fine cell has it as an ancestor, an area
that bulges over the hexagon's corners by up to 5.2 % of its radius. Every cell but the finest counts
as that much larger, and a little more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import h3.api.basic_int as h3
import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain.places.earth import arcs, to_vectors
from engine.domain.places.outline import AreaOutline, CellsOutline

Floats = NDArray[np.float64]
Cells = NDArray[np.int64]
Numbers = NDArray[np.int64]

Ladder = tuple[tuple[float, int], ...]
"""Reaches in metres, ascending, each with the resolution that covers shapes below it. Few levels,
because each one costs a lookup per fix."""

FINE: Final[Ladder] = ((300.0, 11), (2_000.0, 9), (14_000.0, 7), (95_000.0, 5), (700_000.0, 3))
"""At most some 200 cells a shape, small ones up to 30: few candidates in each."""
COARSE: Final[Ladder] = ((170.0, 10), (1_200.0, 8), (8_500.0, 6), (60_000.0, 4), (400_000.0, 2))
"""3 to 13 cells a shape, for more shapes than the fine cells of would fit into memory."""
WHOLE_EARTH_LEVEL: Final = 1
"""For shapes that reach farther than the ladder."""

_BULGE: Final = 1.15
_EVEN_FROM_LEVEL: Final = 7
"""From here on the cells around a place are of one size to within 2 %, before that to 10 %."""
_CHUNK: Final = 20_000


class Cover(msgspec.Struct, frozen=True):
    """Pairs of a cell and a shape's number. A fix in an `inner` pair's cell is inside the shape, in
    another's it may be; in a cell that has no pair with the shape it is outside."""

    cells: Cells
    numbers: Numbers
    inner: NDArray[np.bool_]


def level_of(reaches: Floats, ladder: Ladder) -> NDArray[np.int64]:
    """The resolution for each shape."""
    steps = np.array([reach for reach, _ in ladder])
    levels = np.array([*(level for _, level in ladder), WHOLE_EARTH_LEVEL])
    chosen: NDArray[np.int64] = levels[np.searchsorted(steps, reaches, side="right")]
    return chosen


def cover_circles(
    latitudes: Floats, longitudes: Floats, radii: Floats, levels: Numbers, finest: int
) -> Iterator[Cover]:
    """The cells of circles, numbered as they come; none is missing, a few may be too many. `finest` is
    the finest level of the index. One chunk after the other, so that a million fit into memory."""
    for level in np.unique(levels).tolist():
        of_level = np.flatnonzero(levels == level)
        for start in range(0, len(of_level), _CHUNK):
            numbers = of_level[start : start + _CHUNK]
            middles = to_vectors(latitudes[numbers], longitudes[numbers])
            cells, owners, cell_radii = _around(
                latitudes[numbers], longitudes[numbers], radii[numbers], level
            )
            ways = arcs(np.linalg.norm(_vectors(cells) - middles[owners], axis=1)) - radii[numbers][owners]
            yield _sorted_out(cells, numbers[owners], ways, cell_radii * _swelling(level, finest))


def cover_areas(areas: Mapping[int, AreaOutline | CellsOutline], level: int, finest: int) -> Iterator[Cover]:
    """The cells of areas that are covered at one level, by number."""
    numbers = list(areas)
    latitudes = np.array([area.latitude for area in areas.values()])
    longitudes = np.array([area.longitude for area in areas.values()])
    reaches = np.array([area.reach_meters for area in areas.values()])
    cells, owners, cell_radii = _around(latitudes, longitudes, reaches, level)
    cell_radii *= _swelling(level, finest)
    middles = _middles(cells)
    ends = np.searchsorted(owners, np.arange(len(numbers)), side="right").tolist()
    for number, start, end in zip(numbers, [0, *ends], ends, strict=False):
        ways = areas[number].distances_meters(middles[start:end, 0], middles[start:end, 1])
        yield _sorted_out(cells[start:end], owners[start:end] * 0 + number, ways, cell_radii[start:end])


def _around(
    latitudes: Floats, longitudes: Floats, reaches: Floats, level: int
) -> tuple[Cells, Numbers, Floats]:
    """Every cell that comes into question for a place of that reach, the place's position, and the
    cell's radius from its middle to its farthest corner."""
    if level == WHOLE_EARTH_LEVEL:
        everywhere = [c for base in h3.get_res0_cells() for c in h3.cell_to_children(base, level)]
        owners = np.repeat(np.arange(len(latitudes)), len(everywhere))
        # Cells differ by a factor of two in area over the earth, so that each is measured.
        radii = _radii(everywhere)
        return np.tile(np.array(everywhere), len(latitudes)), owners, np.tile(radii, len(latitudes))
    homes = [
        h3.latlng_to_cell(*place, level)
        for place in zip(latitudes.tolist(), longitudes.tolist(), strict=True)
    ]
    radii = _radii(homes) * (1.02 if level >= _EVEN_FROM_LEVEL else 1.1)
    # Rings of neighbours lie at least 1.5 radii apart, less where the grid is stretched.
    rings = ((reaches + (1 + _BULGE) * radii) / (1.25 * radii)).astype(np.int64)
    cells: list[int] = []
    counts: list[int] = []
    for home, ring in zip(homes, rings.tolist(), strict=True):
        disk = h3.grid_disk(home, ring)
        cells += disk
        counts.append(len(disk))
    return np.array(cells), np.repeat(np.arange(len(homes)), counts), np.repeat(radii, counts)


def _swelling(level: int, finest: int) -> float:
    """How much larger than its hexagon a cell counts; the ways are good to 0.3 %, too."""
    return 1.02 if level == finest else _BULGE


def _sorted_out(cells: Cells, numbers: Numbers, ways: Floats, cell_radii: Floats) -> Cover:
    """Those that the shape touches, by the way from each cell's middle to the shape's edge."""
    inner = ways < -cell_radii
    touched = inner | (ways <= cell_radii)
    return Cover(cells[touched], numbers[touched], inner[touched])


def _vectors(cells: Cells) -> Floats:
    middles = _middles(cells)
    return to_vectors(middles[:, 0], middles[:, 1])


def _middles(cells: Cells) -> Floats:
    """Rows (latitude, longitude); each distinct cell is computed once."""
    distinct, place = np.unique(cells, return_inverse=True)
    middles: Floats = np.array([h3.cell_to_latlng(cell) for cell in distinct.tolist()])[place]
    return middles


def _radii(cells: list[int]) -> Floats:
    """From each cell's middle to its farthest corner."""
    distinct, place = np.unique(np.array(cells), return_inverse=True)
    corners: list[tuple[float, float]] = []
    counts = []
    for cell in distinct.tolist():
        ring = h3.cell_to_boundary(cell)
        corners += ring
        counts.append(len(ring))
    points = np.array(corners)
    away = to_vectors(points[:, 0], points[:, 1]) - np.repeat(_vectors(distinct), counts, axis=0)
    firsts = (np.cumsum(counts) - counts).astype(np.intp)
    farthest = np.maximum.reduceat(np.linalg.norm(away, axis=1), firsts)
    return arcs(farthest)[place]
