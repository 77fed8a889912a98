"""`eventType` and the names that events have here: those of Segment's specifications for commerce,
applications and regions. What has no such name is a track event by the name of its type.

A record without a type is what it measures: `commerce.purchases.value` above 0 is a purchase.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.domain.people.events import Event, Kind
from engine.formats.xdm_fields import at, number_at, text_at
from engine.formats.xdm_places import interaction

PAGE_VIEWED: Final = "web.webpagedetails.pageViews"
UNTYPED: Final = "ExperienceEvent"
"""The name of an event of which nothing says what it is."""

_NAMES: Final = {
    "commerce.purchases": "Order Completed",
    "commerce.checkouts": "Checkout Started",
    "commerce.productListAdds": "Product Added",
    "commerce.productListRemovals": "Product Removed",
    "commerce.productListViews": "Cart Viewed",
    "commerce.productViews": "Product Viewed",
    "commerce.saveForLaters": "Product Added to Wishlist",
    "application.launch": "Application Opened",
    "application.close": "Application Backgrounded",
    "application.installs": "Application Installed",
    "application.upgrades": "Application Updated",
    "application.crashes": "Application Crashed",
    "location.entry": "Geofence Entered",
    "location.exit": "Geofence Exited",
    "pushTracking.applicationOpened": "Push Notification Tapped",
}
_FOLDED: Final = {
    **{kind.casefold(): name for kind, name in _NAMES.items()},
    "placecontext.poiinteraction.poientries": "Geofence Entered",
    "placecontext.poiinteraction.poiexits": "Geofence Exited",
    "commerce.order": "Order Completed",
}
_TYPES: Final = {name: kind for kind, name in _NAMES.items()}
_MEASURES: Final = (
    (("commerce", "purchases"), "commerce.purchases"),
    (("commerce", "checkouts"), "commerce.checkouts"),
    (("commerce", "productListAdds"), "commerce.productListAdds"),
    (("commerce", "productListRemovals"), "commerce.productListRemovals"),
    (("commerce", "saveForLaters"), "commerce.saveForLaters"),
    (("commerce", "productViews"), "commerce.productViews"),
    (("commerce", "productListViews"), "commerce.productListViews"),
    (("application", "installs"), "application.installs"),
    (("application", "upgrades"), "application.upgrades"),
    (("application", "crashes"), "application.crashes"),
    (("application", "launches"), "application.launch"),
    (("application", "applicationCloses"), "application.close"),
    (("web", "webPageDetails", "pageViews"), PAGE_VIEWED),
)
"""Where a record has its measures; the one that stands first says what it is."""


def named(event_type: Any, record: Mapping[str, Any]) -> tuple[Kind, str]:
    """The kind and the name of a record's event."""
    stated = event_type if isinstance(event_type, str) and event_type else _measured(record)
    if stated.casefold() == PAGE_VIEWED.casefold():
        return Kind.PAGE, text_at(record, "web", "webPageDetails", "name") or ""
    return Kind.TRACK, _FOLDED.get(stated.casefold(), stated)


def type_of(event: Event) -> str:
    """The `eventType` of an event that came by another protocol."""
    if event.kind is Kind.PAGE:
        return PAGE_VIEWED
    if event.kind is Kind.TRACK:
        return _TYPES.get(event.name, event.name)
    return event.kind.value


def measure_of(event_type: str) -> tuple[str, ...] | None:
    """Where the measure of a type stands."""
    return next((path for path, kind in _MEASURES if kind == event_type), None)


def _measured(record: Mapping[str, Any]) -> str:
    for path, kind in _MEASURES:
        if (number_at(record, *path, "value") or 0) > 0:
            return kind
    for measure, kind in (("poiEntries", "location.entry"), ("poiExits", "location.exit")):
        if (number_at(interaction(record), measure, "value") or 0) > 0:
            return kind
    return PAGE_VIEWED if at(record, "web", "webPageView") is not None else UNTYPED
