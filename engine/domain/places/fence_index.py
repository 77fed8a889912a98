"""All geofences, found by position.

For each level in use one H3 cell is looked up. Most fixes are near no fence; they find no entry and
are done. In an inner cell no geometry is asked either. Only in a cell that a fence's edge passes
through the exact test decides. What was found in a cell is kept ready in a dictionary, because the
next fix is most often in the same cell or in one that others were in before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import h3.api.basic_int as h3
import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain.places.cell_table import CellLookup, CellTable, table_of
from engine.domain.places.cover import COARSE, FINE, Ladder, cover_areas, cover_circles, level_of
from engine.domain.places.earth import arcs, to_vectors
from engine.domain.places.fences import Fence
from engine.domain.places.inside import Test, plain_inside, ring_around
from engine.domain.places.nearby import Group, chords, groups_of, near
from engine.domain.places.outline import (
    AreaOutline,
    CellsOutline,
    Outline,
    area_outline,
    flat_circle,
    outline,
)
from engine.domain.places.packed_fences import PackedFences, SortedIds
from engine.domain.places.progress import Tell, say_nothing
from engine.domain.places.shapes import Beacon, Circle, Polygon

__all__ = ["Fence", "FenceIndex", "build"]

_RESOLUTION_BITS: Final = 52
_DIGIT_BITS: Final = 3
_FINEST_OF_ALL: Final = 15
_MOST_FINE: Final = 50_000
"""More fences than this are covered with coarse cells."""
_MOST_NUMBERED: Final = 100_000
"""Up to so many a dictionary knows their numbers; of more the memory matters."""
_MOST_CELLS_KEPT: Final = 100_000
_MOST_OUTLINES_KEPT: Final = 20_000
_COVERED: Final = "geofences covered"
_NEAR_METERS: Final = 5_000_000.0
"""Up to here a straight way through the earth says how far it is over the surface."""

Floats = NDArray[np.float64]
Round = tuple[str, float, float, float, float, float, float, float, Test]
"""A fence that is small: its id, its middle and the ground there as in `outline.FlatCircle`, the squared
metres within which one is inside and beyond which one is not, and the test for between them."""
Boxed = tuple[str, float, float, float, float, Test]
"""Any other fence: its id, south, west, north, east, and the test within."""
Ready = tuple[tuple[str, ...], tuple[Round, ...], tuple[Boxed, ...]]
"""What a finest cell holds: ids of fences that it lies in, and fences whose edge may pass through it."""

_NOTHING: Final[Ready] = ((), (), ())


class Arrays(msgspec.Struct, frozen=True, kw_only=True):
    """What the index is made of, by the number of a fence: its place in the order of ids. Middle,
    reach from there to the farthest edge, and radius, that of the circle of the same area, in
    degrees and metres. An entry of the table is twice the number, and one more in an inner cell."""

    levels: tuple[int, ...]
    table: CellTable
    latitudes: Floats
    longitudes: Floats
    circles: NDArray[np.bool_]
    reaches: Floats
    radii: Floats
    vectors: Floats
    groups: tuple[Group, ...]

    def nbytes(self) -> int:
        """The memory that they take."""
        single = (self.latitudes, self.longitudes, self.circles, self.reaches, self.radii, self.vectors)
        grouped = [array for group in self.groups for array in (group.keys, group.numbers)]
        return self.table.nbytes() + sum(array.nbytes for array in (*single, *grouped))


class Outlines(Mapping[str, Outline]):
    """The outlines of fences by id, each made when it is first asked for."""

    __slots__ = ("_fences", "_kept", "_numbers")

    def __init__(self, fences: Mapping[str, Fence], numbers: Mapping[str, int]) -> None:
        self._fences = fences
        self._numbers = numbers
        self._kept: dict[str, Outline] = {}

    def __getitem__(self, fence_id: str) -> Outline:
        found = self._kept.get(fence_id)
        if found is None:
            shape = self._fences[fence_id].shape
            if isinstance(shape, Beacon):
                raise KeyError(fence_id)
            if len(self._kept) >= _MOST_OUTLINES_KEPT:
                self._kept.clear()
            found = self._kept[fence_id] = outline(shape)
        return found

    def __contains__(self, fence_id: object) -> bool:
        return fence_id in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class FenceIndex:
    """Immutable after `build`. Positions are WGS 84 degrees, latitude within ±90, longitude ±180.

    `ids` are those of all fences that have an area, in order; `fences` has them and the others. It is
    pickled as arrays: build it in one process and use it in another.
    """

    __slots__ = (
        "_finest",
        "_levels",
        "_lookup",
        "_numbers",
        "_ready",
        "_tests",
        "arrays",
        "fences",
        "ids",
        "outlines",
    )

    def __init__(self, fences: Mapping[str, Fence], ids: list[str], arrays: Arrays) -> None:
        self.fences = fences
        self.ids = ids
        self.arrays = arrays
        self._numbers: Mapping[str, int] = (
            {fence_id: number for number, fence_id in enumerate(ids)}
            if len(ids) <= _MOST_NUMBERED
            else SortedIds(ids)
        )
        self.outlines = Outlines(fences, self._numbers)
        self._lookup = CellLookup(arrays.table)
        self._ready: dict[int, Ready] = {}
        self._tests: dict[str, Round | Boxed] = {}
        self._finest = max(arrays.levels, default=-1)
        # How to derive a level's cell from the finest: clear the resolution, then set it and fill
        # the digits below with ones (https://h3geo.org/docs/core-library/h3Indexing).
        self._levels = tuple(
            (
                ~(0xF << _RESOLUTION_BITS),
                level << _RESOLUTION_BITS | (1 << _DIGIT_BITS * (_FINEST_OF_ALL - level)) - 1,
            )
            for level in arrays.levels
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return FenceIndex, (self.fences, self.ids, self.arrays)

    def __contains__(self, fence_id: object) -> bool:
        return fence_id in self._numbers

    def __len__(self) -> int:
        return len(self.fences)

    def ids_nbytes(self) -> int:
        """The memory that the ids and their numbers take."""
        strings = sum(map(sys.getsizeof, self.ids))
        if isinstance(self._numbers, SortedIds):
            return sys.getsizeof(self.ids) + strings
        numbers = sum(map(sys.getsizeof, self._numbers.values()))
        return sys.getsizeof(self.ids) + strings + sys.getsizeof(self._numbers) + numbers

    def containing(self, latitude: float, longitude: float) -> tuple[str, ...]:
        """The ids of the fences around a point, edges included, in order of id."""
        if not self._levels:
            return ()
        finest = h3.latlng_to_cell(latitude, longitude, self._finest)
        ready = self._ready.get(finest)
        if ready is None:
            ready = self._prepare(finest)
        found, rounds, others = ready
        for fence_id, at, beside, wide, wider, high, within, beyond, contains in rounds:
            north = latitude - at
            east = longitude - beside
            square = (wide + wider * north) * east * east + high * north * north
            if square <= within or (square <= beyond and contains(latitude, longitude)):
                found += (fence_id,)
        for fence_id, south, west, north, east, contains in others:
            if south <= latitude <= north and west <= longitude <= east and contains(latitude, longitude):
                found += (fence_id,)
        return found if len(found) < 2 else tuple(sorted(found))

    def near(self, latitude: float, longitude: float, meters: float) -> tuple[tuple[float, str], ...]:
        """The fences whose edge is at most `meters` from a point, or that it is inside, nearest first:
        the way to the edge in metres, negative inside, and the id."""
        arrays = self.arrays
        numbers = near(arrays.groups, latitude, longitude, meters)
        away = arcs(chords(arrays.vectors[numbers], latitude, longitude))
        # The way to the middle is good to 0.3 %, and so is the reach.
        close = np.flatnonzero(away * 0.997 <= meters + arrays.reaches[numbers] * 1.003)
        found = []
        for number, at in zip(numbers[close].tolist(), close.tolist(), strict=True):
            if arrays.circles[number] and away[at] < _NEAR_METERS:
                distance = float(away[at] - arrays.radii[number])
            else:
                distance = self.distance_meters(self.ids[number], latitude, longitude)
            if distance <= meters:
                found.append((distance, self.ids[number]))
        return tuple(sorted(found))

    def distance_meters(self, fence_id: str, latitude: float, longitude: float) -> float:
        """The way from a point to the fence's edge, negative inside. KeyError for an unknown id."""
        return self.outlines[fence_id].distance_meters(latitude, longitude)

    def radius_meters(self, fence_id: str) -> float:
        """A circle's radius, or that of the circle of the same area. KeyError for an unknown id."""
        return float(self.arrays.radii[self._numbers[fence_id]])

    def _test(self, number: int) -> Round | Boxed:
        """How to tell whether a point is inside a fence, in the quickest way that there is."""
        arrays, fence_id = self.arrays, self.ids[number]
        at = float(arrays.latitudes[number]), float(arrays.longitudes[number])
        flat = flat_circle(Circle(*at, float(arrays.reaches[number])))
        if flat is not None and arrays.circles[number]:
            return (fence_id, *flat, flat[5], _never)
        shape = self.fences[fence_id].shape
        plain = plain_inside(shape) if isinstance(shape, Polygon) else None
        if plain is None or not isinstance(shape, Polygon):
            edge = self.outlines[fence_id]
            return (fence_id, *edge.box, edge.within if isinstance(edge, AreaOutline) else edge.contains)
        (south, west, north, east), test = plain
        if flat is None:
            return (fence_id, south, west, north, east, test)
        within, beyond = ring_around(shape, *at, flat[2], flat[4])
        if not (south <= at[0] <= north and west <= at[1] <= east and test(*at)):
            within = -1.0  # the middle is outside

        def in_box(latitude: float, longitude: float) -> bool:
            return south <= latitude <= north and west <= longitude <= east and test(latitude, longitude)

        return (fence_id, *flat[:5], within, beyond, in_box)

    def _prepare(self, finest: int) -> Ready:
        """What the levels hold for a finest cell, put together and kept."""
        inner: list[str] = []
        rounds: list[Round] = []
        others: list[Boxed] = []
        for clear, fill in self._levels:
            for entry in self._lookup.entries(finest & clear | fill):
                fence_id = self.ids[entry >> 1]
                if entry & 1:
                    inner.append(fence_id)
                    continue
                test = self._tests.get(fence_id)
                if test is None:
                    test = self._test(entry >> 1)
                    if len(self._tests) >= _MOST_OUTLINES_KEPT:
                        self._tests.clear()
                    self._tests[fence_id] = test
                if len(test) == 6:
                    others.append(test)
                else:
                    rounds.append(test)
        ready: Ready = (tuple(sorted(inner)), tuple(rounds), tuple(others))
        if len(self._ready) >= _MOST_CELLS_KEPT:
            self._ready.clear()
        if ready == _NOTHING:
            ready = _NOTHING
        self._ready[finest] = ready
        return ready


def _joined(pieces: list[NDArray[Any]]) -> NDArray[Any]:
    """The pieces as one, each given up as soon as it is copied: together they are large."""
    joined = np.empty(sum(map(len, pieces)), pieces[0].dtype)
    at = len(joined)
    while pieces:
        piece = pieces.pop()
        at -= len(piece)
        joined[at : at + len(piece)] = piece
    return joined


def _never(_latitude: float, _longitude: float) -> bool:
    return False


def build(fences: Iterable[Fence], ladder: Ladder | None = None) -> FenceIndex:
    """The index of fences whose shapes have been examined. Of two with one id the later stands."""
    return index_of({fence.id: fence for fence in fences}, ladder)


def index_of(
    fences: Mapping[str, Fence], ladder: Ladder | None = None, tell: Tell = say_nothing
) -> FenceIndex:
    """The index of a mapping of fences, which it keeps. Without a `ladder` it goes by their number.
    `tell` hears how many of all are covered."""
    in_order = fences if isinstance(fences, PackedFences) else {word: fences[word] for word in sorted(fences)}
    ids: list[str] = []
    circles = np.zeros(len(fences), np.bool_)
    middles = np.zeros((len(fences), 4))
    areas: dict[int, AreaOutline | CellsOutline] = {}
    for fence_id, fence in in_order.items():
        shape = fence.shape
        if isinstance(shape, Beacon):
            continue
        number = len(ids)
        ids.append(fence_id)
        if isinstance(shape, Circle):
            circles[number] = True
            radius = shape.radius_meters
            middles[number] = shape.latitude, shape.longitude, radius, radius
        else:
            area = areas[number] = area_outline(shape)
            middles[number] = area.latitude, area.longitude, area.reach_meters, area.radius_meters
    if len(ids) == len(fences) and isinstance(fences, PackedFences):
        ids = fences.ids
    circles = circles[: len(ids)]
    latitudes, longitudes, reaches, radii = (np.ascontiguousarray(column) for column in middles[: len(ids)].T)
    del middles
    levels = level_of(reaches, ladder or (FINE if len(ids) <= _MOST_FINE else COARSE))
    finest = int(levels.max(initial=0))
    round_ones = np.flatnonzero(circles)
    cells, entries = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    covered = 0
    for found in cover_circles(
        latitudes[round_ones], longitudes[round_ones], radii[round_ones], levels[round_ones], finest
    ):
        cells.append(found.cells)
        entries.append((round_ones[found.numbers] * 2 + found.inner).astype(np.uint32))
        covered += len(np.unique(found.numbers))
        tell(_COVERED, covered, len(ids))
    for level in set(levels[~circles].tolist()):
        of_level = {number: areas[number] for number in areas if levels[number] == level}
        for found in cover_areas(of_level, level, finest):
            cells.append(found.cells)
            entries.append((found.numbers * 2 + found.inner).astype(np.uint32))
        covered += len(of_level)
        tell(_COVERED, covered, len(ids))
    arrays = Arrays(
        levels=tuple(sorted(set(levels.tolist()))),
        table=table_of(_joined(cells), _joined(entries)),
        latitudes=latitudes,
        longitudes=longitudes,
        circles=circles,
        reaches=reaches,
        radii=radii,
        vectors=to_vectors(latitudes, longitudes),
        groups=groups_of(latitudes, longitudes, reaches),
    )
    return FenceIndex(fences, ids, arrays)
