"""What a label keeps back: traits that nobody may read for any purpose that the person allowed.

Whatever is decided about a person is decided without them, as if they had never been stated. That
an offer's own purpose is among those of every label behind it is proved when a rule set loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.domain.offers.rules import Workspace
from engine.domain.people.consent import permits
from engine.domain.people.profiles import Consent


def kept_back(consent: Mapping[str, Consent], workspace: Workspace) -> frozenset[str]:
    """The traits, stated and computed, that must not be read."""
    return frozenset(
        name
        for name, purposes in workspace.readers.items()
        if not any(permits(consent, purpose) for purpose in purposes)
    )


def readable(
    event: Mapping[str, Any], consent: Mapping[str, Consent], workspace: Workspace
) -> Mapping[str, Any]:
    """The view of an event, without the traits that must not be read."""
    if not workspace.readers or not event["traits"]:
        return event
    hidden = kept_back(consent, workspace)
    return {**event, "traits": {name: v for name, v in event["traits"].items() if name not in hidden}}
