"""What expressions and messages see of an event, and of the place where it happened."""

from __future__ import annotations

from typing import Any

from engine.domain.people.events import Event
from engine.domain.places.fence_index import Fence


def event_view(event: Event) -> dict[str, Any]:
    """`event.*` of expressions and messages."""
    return {
        "name": event.name,
        "kind": event.kind.value,
        "properties": event.properties,
        "context": event.context,
        "traits": event.traits,
        "timestamp": event.timestamp,
        "trusted": event.trusted,
    }


def fence_view(fence: Fence | None) -> dict[str, Any]:
    """`geofence.*` of expressions and messages: its properties, with its id, and a name."""
    if fence is None:
        return {}
    return {"name": fence.id, **fence.properties, "id": fence.id}
