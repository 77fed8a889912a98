"""What can happen: the kinds of triggers, and patterns of them that rules and computed traits name."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Final

import msgspec

from engine.domain.offers.cron import Cron
from engine.domain.offers.expressions import Expression


class TriggerKind(StrEnum):
    EVENT = "event"
    PAGE = "page"
    SCREEN = "screen"
    ENTER = "enter"
    EXIT = "exit"
    AUDIENCE = "audience"
    """A person entered or left an audience; the trigger's name is `audience_change(…)`."""
    SCHEDULE = "schedule"
    """A schedule's time has come for one person; the trigger's name is the rule's id."""
    DEFERRED = "deferred"
    """An offer's hour has come; the trigger's name is the rule's id."""
    WAIT = "wait"
    """A rule has waited long enough (`for`); the trigger's name is the rule's id."""
    DWELL = "dwell"
    APPROACH = "approach"
    ARRIVING = "arriving"
    """Somebody on a trip will be there soon; the trigger's name is the trip's, `timed`."""
    ARRIVED = "arrived"


PLACED: Final = frozenset((TriggerKind.ENTER, TriggerKind.EXIT, TriggerKind.DWELL, TriggerKind.APPROACH))
"""What happens at a geofence."""
ON_A_TRIP: Final = frozenset((TriggerKind.ARRIVING, TriggerKind.ARRIVED))


def timed(fence: str, span: timedelta | None) -> str:
    """What a trigger at a fence is filed under: its id, and with it how long a stay, or how long
    before."""
    return fence if span is None else f"{fence}\n{span.total_seconds():g}"


def audience_change(name: str, entered: bool) -> str:
    """The name of the trigger that somebody entered or left an audience."""
    return f"{'entered' if entered else 'left'} {name}"


def changed_audience(name: str) -> tuple[str, bool]:
    """The audience of such a trigger, and whether somebody entered it."""
    word, audience = name.split(" ", 1)
    return audience, word == "entered"


class Schedule(msgspec.Struct, frozen=True):
    """When, by everybody's own clock, and over how long a time people are spread."""

    cron: Cron
    over: timedelta


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """What sets a rule off or is counted by a computed trait.

    `name` is the event's, page's or screen's; `fences` the ids that `fence:` or `tag:` stands for.
    `span` is how long a stay must last, or how long before entering an approach is told. With `wait`
    it sets off that long after the last one, for each value of `by` apart. A `schedule` sets off for
    everybody in the audience of that `name`.
    """

    kind: TriggerKind
    name: str = ""
    fences: frozenset[str] = frozenset()
    span: timedelta | None = None
    condition: Expression | None = None
    wait: timedelta | None = None
    by: Expression | None = None
    schedule: Schedule | None = None

    @property
    def triggers(self) -> tuple[tuple[TriggerKind, str], ...]:
        """The keys under which a rule set files what this pattern sets off."""
        if self.fences:
            return tuple((self.kind, timed(fence, self.span)) for fence in sorted(self.fences))
        return ((self.kind, timed(self.name, self.span)),)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An event that must have happened before (`after`), or must not (`unless`): with the same value
    of the pattern's `by`, and `within` that time, None for ever. `key` stands for the pattern in the
    profiles that remember it; `text` tells it to people."""

    key: str
    pattern: Pattern
    within: timedelta | None = None
    text: str = ""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What profiles remember of a pattern that some rule names. `horizon` is how far back any of them
    looks, None for ever; `stops` are the rules whose waiting it ends, each with its `within`."""

    key: str
    pattern: Pattern
    horizon: timedelta | None = None
    stops: tuple[tuple[str, timedelta | None], ...] = ()
