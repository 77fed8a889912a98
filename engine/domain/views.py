"""What expressions and messages see of an event, and of the place where it happened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.domain.people.events import Event
from engine.domain.people.outcomes import is_outcome
from engine.domain.places.fence_index import Fence


def event_view(event: Event) -> dict[str, Any]:
    """`event.*` of expressions and messages."""
    view: dict[str, Any] = {
        "name": event.name,
        "kind": event.kind.value,
        "properties": event.properties,
        "context": event.context,
        "traits": event.traits,
        "timestamp": event.timestamp,
        "trusted": event.trusted,
    }
    if is_outcome(event):
        view["offer"], view["rule"] = event.properties.get("offer"), event.properties.get("rule")
    return view


def earlier_view(told: Mapping[str, Any]) -> dict[str, Any]:
    """The view of an event, or of a trip, that a timer has carried along."""
    view = dict(told)
    for moment in ("timestamp", "started_at"):
        if isinstance(view.get(moment), str):
            view[moment] = datetime.fromisoformat(view[moment])
    return view


def fence_view(fence: Fence | None, at: datetime) -> dict[str, Any]:
    """`geofence.*` of expressions and messages: its properties, with its id, a name, and whether it
    is open at that time, unknown where nobody said its hours."""
    if fence is None:
        return {}
    is_open = fence.opening.is_open(at) if fence.opening is not None else None
    return {"name": fence.id, **fence.properties, "id": fence.id, "open": is_open}
