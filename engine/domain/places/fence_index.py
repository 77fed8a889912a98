"""All geofences, found by position: one H3 cell and a dictionary lookup for each level in use.

Most fixes are near no fence; they find no entry and are done. In an inner cell no geometry is asked
either. Only in a cell that a fence's edge passes through the exact test decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import h3.api.basic_int as h3
import msgspec

from engine.domain.places.cover import cover
from engine.domain.places.opening import Opening
from engine.domain.places.outline import Outline, outline
from engine.domain.places.shapes import Beacon, Shape

_RESOLUTION_BITS: Final = 52
_DIGIT_BITS: Final = 3
_FINEST_OF_ALL: Final = 15

Entry = tuple[str, Outline | None]
"""A fence in a cell: its id, and its outline where the edge passes through the cell."""


class Fence(msgspec.Struct, frozen=True):
    """A place: what rules call it, where it is, and when it is open (None where nobody said)."""

    id: str
    shape: Shape
    tags: frozenset[str] = frozenset()
    properties: Mapping[str, Any] = {}
    opening: Opening | None = None


class FenceIndex:
    """Immutable after `build`. Positions are WGS 84 degrees, latitude within ±90, longitude ±180."""

    __slots__ = ("_finest", "_levels", "fences", "outlines")

    def __init__(
        self,
        fences: Mapping[str, Fence],
        outlines: Mapping[str, Outline],
        cells: Mapping[int, Mapping[int, tuple[Entry, ...]]],
    ) -> None:
        self.fences = fences
        self.outlines = outlines
        self._finest = max(cells, default=0)
        # How to derive a level's cell from the finest: clear the resolution, then set it and fill
        # the digits below with ones (https://h3geo.org/docs/core-library/h3Indexing).
        self._levels = tuple(
            (
                ~(0xF << _RESOLUTION_BITS),
                level << _RESOLUTION_BITS | (1 << _DIGIT_BITS * (_FINEST_OF_ALL - level)) - 1,
                cells[level],
            )
            for level in sorted(cells)
        )

    def __contains__(self, fence_id: object) -> bool:
        return fence_id in self.outlines

    def __len__(self) -> int:
        return len(self.fences)

    def containing(self, latitude: float, longitude: float) -> tuple[str, ...]:
        """The ids of the fences around a point, edges included, in order of id."""
        if not self._levels:
            return ()
        finest = h3.latlng_to_cell(latitude, longitude, self._finest)
        found: list[str] | None = None
        for clear, fill, cells in self._levels:
            entries = cells.get(finest & clear | fill)
            if entries is not None:
                for fence_id, edge in entries:
                    if edge is None or edge.contains(latitude, longitude):
                        if found is None:
                            found = [fence_id]
                        else:
                            found.append(fence_id)
        if found is None:
            return ()
        if len(found) > 1:
            found.sort()
        return tuple(found)

    def distance_meters(self, fence_id: str, latitude: float, longitude: float) -> float:
        """The way from a point to the fence's edge, negative inside. KeyError for an unknown id."""
        return self.outlines[fence_id].distance_meters(latitude, longitude)

    def radius_meters(self, fence_id: str) -> float:
        """A circle's radius, or that of the circle of the same area. KeyError for an unknown id."""
        return self.outlines[fence_id].radius_meters


def build(fences: Iterable[Fence]) -> FenceIndex:
    """The index of fences whose shapes have been examined. Of two with one id the later stands."""
    by_id = {fence.id: fence for fence in fences}
    outlines: dict[str, Outline] = {}
    cells: dict[int, dict[int, list[Entry]]] = {}
    for fence_id, fence in by_id.items():
        if isinstance(fence.shape, Beacon):
            continue
        edge = outlines[fence_id] = outline(fence.shape)
        covered = cover(edge)
        level = cells.setdefault(covered.level, defaultdict(list))
        inside: Entry = (fence_id, None)
        beside: Entry = (fence_id, edge)
        for cell in covered.inner:
            level[cell].append(inside)
        for cell in covered.edge:
            level[cell].append(beside)
    frozen = {
        level: {cell: tuple(entries) for cell, entries in found.items()} for level, found in cells.items()
    }
    return FenceIndex(by_id, outlines, frozen)
