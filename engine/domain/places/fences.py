"""A place: what rules call it, where it is, and when it is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.domain.places.opening import Opening
from engine.domain.places.shapes import Shape


class Fence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place. `opening` is None where nobody said its hours."""

    id: str
    shape: Shape
    tags: frozenset[str] = frozenset()
    properties: Mapping[str, Any] = {}
    opening: Opening | None = None
