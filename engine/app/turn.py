"""What all decisions of one tick share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.app.weather import Readings
from engine.domain.offers.decisions import Decision
from engine.domain.offers.rules import RuleSet
from engine.domain.places.presence import SILENCE


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What all decisions of one tick share. `providers` are those that this engine can send by;
    `is_rehearsed` where nothing is written, so that no rows of events are made; `facts` follow from the
    others, what each event's row says of the tick."""

    rules: RuleSet
    now: datetime
    lease: str
    providers: frozenset[str]
    is_kept: Callable[[Decision], bool]
    weather: Readings | None = None
    is_rehearsed: bool = False
    facts: Mapping[str, Any] = {}

    def __post_init__(self) -> None:
        rules = self.rules
        facts: dict[str, Any] = {"now": self.now, "revision": rules.revision}
        if rules.silence != SILENCE:
            facts["silence"] = rules.silence.total_seconds()
        if rules.paused:
            facts["paused"] = rules.paused.pauses
        msgspec.structs.force_setattr(self, "facts", facts)
