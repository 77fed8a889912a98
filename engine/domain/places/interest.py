"""What a rule set asks of presence beyond enter and exit: stays that get long, and approaches.

A workspace that asks for neither pays for neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.places.approach import Approaches
from engine.domain.places.fence_index import FenceIndex
from engine.domain.places.shapes import Beacon


class Interest(msgspec.Struct, frozen=True):
    """`stays`: fence id → how long a stay is told, the shortest first. `approaches` is None where no
    rule has one. `beacons`: a beacon's name → the fence that it is. `memory`: over how many seconds
    the way walked is kept, 0 for not at all."""

    stays: Mapping[str, tuple[timedelta, ...]] = {}
    approaches: Approaches | None = None
    beacons: Mapping[str, str] = {}
    memory: float = 0.0

    def __repr__(self) -> str:
        return f"Interest({len(self.stays)} stays, approaches={self.approaches is not None})"


NO_INTEREST: Final = Interest()


def interest(
    index: FenceIndex,
    stays: Iterable[tuple[str, timedelta]],
    approaches: Iterable[tuple[str, timedelta]],
    memory: float = 0.0,
) -> Interest:
    """From the fences and spans that patterns name; `memory` is what others need of the way."""
    long: dict[str, set[timedelta]] = {}
    for fence, span in stays:
        long.setdefault(fence, set()).add(span)
    ahead: dict[str, set[int]] = {}
    for fence, span in approaches:
        if fence not in index:
            continue  # a beacon lies nowhere
        ahead.setdefault(fence, set()).add(max(1, round(span.total_seconds())))
    found = Approaches(index, ahead) if ahead else None
    return Interest(
        {fence: tuple(sorted(spans)) for fence, spans in long.items()},
        found,
        {f.shape.name: f.id for f in index.fences.values() if isinstance(f.shape, Beacon)},
        max(memory, found.memory if found is not None else 0.0),
    )
