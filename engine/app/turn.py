"""What all decisions of one tick share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from engine.app.weather import Readings
from engine.domain.offers.decisions import Decision
from engine.domain.offers.rules import RuleSet


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What all decisions of one tick share. `providers` are those that this engine can send by;
    `is_rehearsed` where nothing is written, so that no rows of events are made."""

    rules: RuleSet
    now: datetime
    lease: str
    providers: frozenset[str]
    is_kept: Callable[[Decision], bool]
    weather: Readings | None = None
    is_rehearsed: bool = False
