"""Which regions a phone watches for one person at one moment: what `POST /v1/geofences` answers, and
what a simulated phone goes by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.domain.people.consent import location_precision
from engine.domain.people.profiles import Address, Profile
from engine.domain.places.watching import REFRESH_SECONDS, Moving, Watch, watch
from engine.domain.stakes import Stakes

COARSE_METERS: Final = 500.0
"""A fix less exact than this comes from a phone that gives no precise positions away."""


class Said(msgspec.Struct, frozen=True):
    """What the phone says of its permissions as it asks, None for nothing; and how exact its fix is."""

    location: str | None = None
    precise: bool | None = None
    accuracy: float | None = None

    def __repr__(self) -> str:
        return "Said(…)"


def monitored(
    rules: RuleSet,
    profile: Profile,
    address: Address | None,
    phone: Moving,
    said: Said,
    limit: int,
    now: datetime,
    scores: Mapping[str, float | None],
) -> tuple[Watch, str | None]:
    """The regions, or why there are none to watch. `address` is the phone as the profile knows it, `scores`
    what the models say of the person."""
    reason = _no_regions(rules, profile, address, said)
    if reason is not None:
        return Watch((), 0.0, REFRESH_SECONDS[1]), reason
    stakes = Stakes(rules, profile, now, scores)
    return watch(rules.index, phone, stakes.at, limit, stakes.awaited), None


def _no_regions(rules: RuleSet, profile: Profile, address: Address | None, said: Said) -> str | None:
    """Why the phone is to watch nothing: regions are exact positions, and need that permission."""
    known = address.permissions if address is not None else {}
    location = said.location or known.get("location")
    precise = said.precise if said.precise is not None else known.get("precise")
    if location == "denied":
        return "no_permission"
    if precise is False or (precise is None and said.accuracy is not None and said.accuracy > COARSE_METERS):
        return "imprecise"
    if location_precision(profile.consent, address, rules.workspace) != "exact":
        return "no_consent"
    return None
