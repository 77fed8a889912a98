"""What can happen: the kinds of triggers, and patterns of them that rules and computed traits name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from datetime import timedelta
from enum import StrEnum
from typing import Final

import msgspec

from engine.domain.offers.cron import Cron
from engine.domain.offers.expressions import Expression
from engine.domain.places.packed_fences import Tagged


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


TriggerKey = tuple[TriggerKind, str]
"""What something is filed under: what happened, and the name of the event or of the place."""


def timed(fence: str, span: timedelta | None) -> str:
    """What a trigger at a fence is filed under: its id, and with it how long a stay, or how long
    before."""
    return fence if span is None else f"{fence}\n{span_text(span)}"


def span_text(span: timedelta | None) -> str:
    """The second part of a `timed` name, "" where there is none."""
    return "" if span is None else f"{span.total_seconds():g}"


def split_timed(name: str) -> tuple[str, str]:
    """The fence's id and the second part of a `timed` name."""
    fence, _, span = name.partition("\n")
    return fence, span


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
    fences: Set[str] = frozenset()
    span: timedelta | None = None
    condition: Expression | None = None
    wait: timedelta | None = None
    by: Expression | None = None
    schedule: Schedule | None = None

    @property
    def triggers(self) -> Collection[TriggerKey]:
        """The keys under which a rule set files what this pattern sets off."""
        if isinstance(self.fences, Tagged):
            return _TaggedTriggers(self.kind, self.fences, self.span)
        if self.fences:
            return tuple((self.kind, timed(fence, self.span)) for fence in sorted(self.fences))
        return ((self.kind, timed(self.name, self.span)),)


class _TaggedTriggers(Collection[TriggerKey]):
    """The keys of a pattern that names the tag of packed fences, in order."""

    __slots__ = ("_fences", "_kind", "_span")

    def __init__(self, kind: TriggerKind, fences: Tagged, span: timedelta | None) -> None:
        self._kind, self._fences, self._span = kind, fences, span

    def __contains__(self, trigger: object) -> bool:
        if not isinstance(trigger, tuple) or trigger[0] is not self._kind:
            return False
        fence, span = split_timed(trigger[1])
        return span == span_text(self._span) and fence in self._fences

    def __iter__(self) -> Iterator[TriggerKey]:
        return ((self._kind, timed(fence, self._span)) for fence in self._fences)

    def __len__(self) -> int:
        return len(self._fences)


def meet(one: Pattern, other: Pattern) -> bool:
    """Whether something can set off both."""
    if one.kind is not other.kind or one.span != other.span:
        return False
    if not one.fences or not other.fences:
        return bool(one.fences) is bool(other.fences) and one.name == other.name
    if isinstance(other.fences, Tagged):
        one, other = other, one
    return not one.fences.isdisjoint(other.fences)


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
