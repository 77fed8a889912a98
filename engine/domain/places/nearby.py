"""The places near a point: sorted arrays of fine cells.

All descendants of a cell follow each other in the order of their numbers. So one sorted array of
the middles' finest cells answers for cells of every size: two searches for each cell of a disk.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Final

import h3.api.basic_int as h3
import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain.places.earth import MEAN_RADIUS_METERS, meters_between, to_vector

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]

_FINEST: Final = 15
_RESOLUTION: Final = 0xF << 52
_FEW: Final = 200
"""So many are measured one and all, without a search."""
_SIZES: Final = (300.0, 2_000.0, 14_000.0, 95_000.0)
"""Places of a like reach are searched together, in metres."""
_RADII: Final = tuple(
    sqrt(4 * pi * MEAN_RADIUS_METERS**2 / h3.get_num_cells(level) / 2.598) for level in range(_FINEST + 1)
)
"""From a cell's middle to its corners, on average, by resolution."""


class Group(msgspec.Struct, frozen=True):
    """Places of a like reach, by the cells of their middles: `numbers` beside ascending `keys`."""

    reach_meters: float
    keys: Numbers
    numbers: Numbers


def groups_of(latitudes: Floats, longitudes: Floats, reaches: Floats) -> tuple[Group, ...]:
    """The places sorted, numbered as they come."""
    places = zip(memoryview(latitudes.data), memoryview(longitudes.data), strict=True)
    cells = (h3.latlng_to_cell(*place, _FINEST) & ~_RESOLUTION for place in places)
    keys = np.fromiter(cells, np.int64, len(latitudes))
    sizes = np.searchsorted(np.array(_SIZES), reaches)
    found = []
    for size in np.unique(sizes).tolist():
        numbers = np.flatnonzero(sizes == size)
        numbers = numbers[np.argsort(keys[numbers], kind="stable")]
        found.append(Group(float(reaches[numbers].max()), keys[numbers], numbers))
    return tuple(found)


def near(groups: tuple[Group, ...], latitude: float, longitude: float, meters: float) -> Numbers:
    """The numbers of all places whose edge can lie within `meters`, and of some that lie farther."""
    found = [_in_group(group, latitude, longitude, meters + group.reach_meters) for group in groups]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def chords(vectors: Floats, latitude: float, longitude: float) -> Floats:
    """The straight ways through the earth from a point to each of some vectors."""
    away = vectors - to_vector(latitude, longitude)
    found: Floats = np.sqrt(np.einsum("ij,ij->i", away, away))
    return found


def _in_group(group: Group, latitude: float, longitude: float, meters: float) -> Numbers:
    level = next((level for level in range(_FINEST, -1, -1) if _RADII[level] >= meters), None)
    if level is None or len(group.keys) <= _FEW:
        return group.numbers
    home = h3.latlng_to_cell(latitude, longitude, level)
    middle = h3.cell_to_latlng(home)
    radius = 1.1 * max(meters_between(*middle, *corner) for corner in h3.cell_to_boundary(home))
    # As far as the point may lie from its cell's middle, and a place from the middle of its own.
    rings = int((meters + 2.15 * radius) / (1.25 * radius))
    disk = np.array(h3.grid_disk(home, rings)) & ~_RESOLUTION
    below = (1 << 3 * (_FINEST - level)) - 1
    starts = np.searchsorted(group.keys, disk & ~below)
    ends = np.searchsorted(group.keys, disk | below, side="right")
    pieces = [
        group.numbers[start:end]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        if end > start
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
