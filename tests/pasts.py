"""What must have happened to somebody so that the engine counts of them what a scenario states.

A scenario says `computed: {orders: 9, days_since_order: 20}`; an engine that serves counts itself. So
the numbers are turned back into purchases: as many, at such times, with such properties. Numbers that no
past can give, such as an average that is not the sum over the count, are refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from engine.domain.offers import caps
from engine.domain.offers.rules import Computed, ComputedKind, RuleSet, TriggerKind
from engine.formats.scenario_person import Person

DAY = timedelta(days=1)
_PATH = re.compile(r"event\.properties\.(\w+)")
_OF_EACH = re.compile(r"event\.properties\.(\w+)\.map\((\w+), \2\.(\w+)\)")
_HOUR = "local.hour"


class ImpossiblePast(Exception):
    """No events come to these numbers, or none that this knows to invent."""


class Past(NamedTuple):
    """An event that somebody's server would have told."""

    at: datetime
    event: str
    properties: dict[str, Any]


def past(person: Person, rules: RuleSet, start: datetime) -> list[Past]:
    """The events, oldest first, of a person who is as stated when the story begins.

    Raises:
        ImpossiblePast: there are none.
    """
    stated: dict[str, list[tuple[Computed, Any]]] = defaultdict(list)
    known = {trait.name: trait for trait in rules.workspace.computed}
    for name, value in person.computed.items():
        trait = known[name]
        pattern = trait.pattern
        if pattern is None or pattern.kind is not TriggerKind.EVENT or pattern.condition is not None:
            raise ImpossiblePast(f"{name} counts something else than plain events")
        stated[pattern.name].append((trait, value))
    zone = caps.zone(person.timezone, rules.workspace.timezone)
    found = [one for event, of in stated.items() for one in _events(event, of, start, zone)]
    return sorted(found, key=lambda one: one.at)


def _events(event: str, stated: Sequence[tuple[Computed, Any]], start: datetime, zone: Any) -> list[Past]:
    """Those of one name, newest first."""
    number = _number(stated)
    if not number:
        return []
    rows: list[dict[str, Any]] = [{} for _ in range(number)]
    amounts: dict[str, dict[ComputedKind, Any]] = defaultdict(dict)
    hours: list[int] = []
    for trait, value in stated:
        text = trait.value.text if trait.value is not None else ""
        if trait.kind is ComputedKind.DISTINCT:
            _put_each(rows, text, value)
        elif trait.kind is ComputedKind.MOST_OFTEN and text == _HOUR:
            hours = _shared_out(value, number, trait.at_least)
        elif trait.kind is ComputedKind.MOST_OFTEN:
            for row, one in zip(rows, _shared_out(value, number, trait.at_least), strict=True):
                row[_named(text)] = one
        elif trait.kind not in (ComputedKind.COUNT, ComputedKind.DAYS_SINCE):
            amounts[_named(text)][trait.kind] = value
    for name, wanted in amounts.items():
        for row, amount in zip(rows, _amounts(number, wanted), strict=True):
            row[name] = amount
    return [
        Past(at, event, row) for at, row in zip(_times(stated, number, hours, start, zone), rows, strict=True)
    ]


def _number(stated: Sequence[tuple[Computed, Any]]) -> int:
    """How many events."""
    of = {trait.kind: value for trait, value in stated}
    if (count := of.get(ComputedKind.COUNT)) is not None:
        if not count and any(value for _, value in stated):
            raise ImpossiblePast("nothing happened, and yet something is counted of it")
        return int(count)
    if ComputedKind.SUM in of and of.get(ComputedKind.AVERAGE):
        return round(of[ComputedKind.SUM] / of[ComputedKind.AVERAGE])
    number = 0 if all(value == 0 and trait.kind is ComputedKind.SUM for trait, value in stated) else 1
    for trait, value in stated:
        if trait.kind is ComputedKind.MOST_OFTEN:
            listed = value if isinstance(value, list) else [value]
            number = max(number, sum(trait.at_least + place for place in range(len(listed))))
        elif trait.kind is ComputedKind.DISTINCT and _PATH.fullmatch(trait.value.text if trait.value else ""):
            number = max(number, len(value))
    return number


def _named(text: str) -> str:
    found = _PATH.fullmatch(text)
    if found is None:
        raise ImpossiblePast(f"{text} is more than a property of the event")
    return found[1]


def _put_each(rows: list[dict[str, Any]], text: str, values: Sequence[Any]) -> None:
    """Different values: of one event's list, or of an event each, the last one again and again."""
    if found := _OF_EACH.fullmatch(text):
        rows[0][found[1]] = [{found[3]: value} for value in values]
        return
    if values and len(values) > len(rows):
        raise ImpossiblePast(f"{len(values)} different values of {len(rows)} events")
    for place, row in enumerate(rows if values else ()):
        row[_named(text)] = values[min(place, len(values) - 1)]


def _shared_out(value: Any, number: int, at_least: int) -> list[Any]:
    """So many values, each more often than the one after it."""
    listed = value if isinstance(value, list) else [value]
    counts = [at_least + len(listed) - 1 - place for place in range(len(listed))]
    if sum(counts) > number:
        raise ImpossiblePast(f"{number} events are too few for {listed}")
    counts[0] += number - sum(counts)
    return [one for one, times in zip(listed, counts, strict=True) for _ in range(times)]


def _amounts(number: int, wanted: Mapping[ComputedKind, Any]) -> list[float]:
    """Amounts, the newest first, of which those hold."""
    total = wanted.get(ComputedKind.SUM)
    average = wanted.get(ComputedKind.AVERAGE)
    if total is None:
        total = average * number if average is not None else None
    elif average is not None and abs(total / number - average) > 1e-9:
        raise ImpossiblePast(f"{number} amounts of {total} in all are not {average} each")
    usual = total / number if total is not None else next(iter(wanted.values()))
    amounts = [usual] * number
    fixed: set[int] = set()
    for kind, place in ((ComputedKind.LAST, 0), (ComputedKind.FIRST, number - 1)):
        if kind in wanted:
            amounts[place] = wanted[kind]
            fixed.add(place)
    for kind in (ComputedKind.MIN, ComputedKind.MAX):
        if kind in wanted and wanted[kind] not in [amounts[place] for place in fixed]:
            free = next((place for place in range(number) if place not in fixed), None)
            if free is None:
                raise ImpossiblePast(f"no room for the {kind.value} among {number} amounts")
            amounts[free] = wanted[kind]
            fixed.add(free)
    left = [place for place in range(number) if place not in fixed]
    if total is None:
        return amounts
    rest = total - sum(amounts[place] for place in fixed)
    if not left:
        if abs(rest) > 1e-9:
            raise ImpossiblePast(f"{number} amounts cannot come to {total}")
        return amounts
    for place in left:
        amounts[place] = round(rest / len(left), 2)
    amounts[left[-1]] = round(rest - sum(amounts[place] for place in left[:-1]), 6)
    return amounts


def _times(
    stated: Sequence[tuple[Computed, Any]], number: int, hours: Sequence[int], start: datetime, zone: Any
) -> list[datetime]:
    """When they happened, newest first: within every window, at those hours of the person's clock."""
    since = [value for trait, value in stated if trait.kind is ComputedKind.DAYS_SINCE]
    newest = start - timedelta(days=since[0]) if since else start - 3 * DAY
    windows = [trait.within for trait, _ in stated if trait.within is not None]
    step = DAY
    if windows:
        step = min(step, (min(windows) - (start - newest) - DAY) / number)
    times = [newest - place * step for place in range(number)]
    for place, hour in enumerate(hours):
        if place or not since:
            local = times[place].astimezone(zone).replace(hour=hour, minute=10, second=0, microsecond=0)
            times[place] = local.astimezone(start.tzinfo)
    return times
