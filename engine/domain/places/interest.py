"""What a rule set asks of presence beyond enter and exit: stays that get long, and approaches.

A workspace that asks for neither pays for neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeVar

import msgspec

from engine.domain.places.approach import Approaches
from engine.domain.places.fence_index import FenceIndex
from engine.domain.places.packed_fences import Tagged
from engine.domain.places.said_of_places import Said, SaidOfPlaces
from engine.domain.places.shapes import Beacon

V = TypeVar("V")


class Interest(msgspec.Struct, frozen=True):
    """`stays`: fence id → how long a stay is told, the shortest first. `approaches` is None where no
    rule has one. `beacons`: a beacon's name → the fence that it is. `memory`: over how many seconds
    the way walked is kept, 0 for not at all."""

    stays: Mapping[str, tuple[timedelta, ...]] = {}
    approaches: Approaches | None = None
    beacons: Mapping[str, str] = {}
    memory: float = 0.0

    def __repr__(self) -> str:
        return f"Interest(stays={bool(self.stays)}, approaches={self.approaches is not None})"


NO_INTEREST: Final = Interest()


def interest(
    index: FenceIndex,
    stays: Iterable[tuple[str | Tagged, timedelta]],
    approaches: Iterable[tuple[str | Tagged, timedelta]],
    memory: float = 0.0,
) -> Interest:
    """From the fences and spans that patterns name; `memory` is what others need of the way."""
    long = [(place, round(span.total_seconds() * 1e6), span) for place, span in stays]
    ahead: list[Said[int]] = []
    for place, span in approaches:
        if isinstance(place, Tagged) or place in index:  # a beacon lies nowhere
            seconds = max(1, round(span.total_seconds()))
            ahead.append((place, -seconds, seconds))
    found = Approaches(index, _by_place(ahead)) if ahead else None
    beacons = len(index.fences) - len(index.ids)
    return Interest(
        _by_place(long),
        found,
        {f.shape.name: f.id for f in index.fences.values() if isinstance(f.shape, Beacon)} if beacons else {},
        max(memory, found.memory if found is not None else 0.0),
    )


def _by_place(said: list[Said[V]]) -> Mapping[str, tuple[V, ...]]:
    """In a plain dictionary, unless something is said of all places with a tag."""
    by_place = SaidOfPlaces(said)
    if any(isinstance(place, Tagged) for place, _, _ in said):
        return by_place
    return dict(by_place.items())
