"""Where a trait's value comes from, and which of two statements stands.

A statement's party is what the workspace declares of the trait, or what an import says of its file. An
operator's correction stands above all of them; then the person's own word (zero-party), what the business
saw itself (first-party), what a partner told (second-party), what was bought (third-party). Within one
party the newest stands. Party and origin are one small number, because every trait of every document
carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.domain.offers.rules import TraitDeclaration
from engine.domain.people.events import Event, Sender

PARTIES: Final = ("third_party", "second_party", "first_party", "zero_party")
"""The weakest first."""
CORRECTION: Final = "correction"
ORIGINS: Final = ("app", "server", "import", "operator")

_SHIFT: Final = 4
_RANKS: Final = {party: rank << _SHIFT for rank, party in enumerate(PARTIES, 2)}
_FIRST: Final = _RANKS["first_party"]
_CORRECTED: Final = (len(PARTIES) + 2) << _SHIFT | ORIGINS.index("operator")
_TAKEN_AWAY: Final = 1 << _SHIFT | ORIGINS.index("operator")
"""Of what an operator took away: whoever states it next is heard."""


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Who stated a value: `source` is the party, `origin` the way that it came."""

    source: str
    origin: str
    at: datetime


def origin_of(event: Event) -> int:
    """The way that the event's statements came, as the low half of a source."""
    if event.sender is Sender.IMPORT:
        return 2
    if event.sender is Sender.ENGINE:
        return 3
    return 1 if event.trusted else 0


def source_of(
    name: str, value: Any, event: Event, origin: int, declared: Mapping[str, TraitDeclaration]
) -> int:
    """The number that says who states the trait `name` with the event."""
    if origin == 3:
        return _CORRECTED if value is not None else _TAKEN_AWAY
    if event.party:
        return _RANKS[event.party] | origin
    declaration = declared.get(name)
    return (_RANKS[declaration.source] if declaration is not None else _FIRST) | origin


def rank(source: int) -> int:
    """How much a source counts against others. What was stored without one is the business's own."""
    return (source or _FIRST) >> _SHIFT


def provenance(source: int, at: datetime) -> Provenance:
    """A stored source in words."""
    party = rank(source)
    named = PARTIES[party - 2] if 0 <= party - 2 < len(PARTIES) else CORRECTION
    return Provenance(source=named, origin=ORIGINS[source & 3] if source else "", at=at)
