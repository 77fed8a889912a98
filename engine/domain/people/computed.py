"""Computed traits: what is counted with every event, and how it reads at a given moment.

State is kept in the profile by trait name, as `tallies` describes it: the time for `days_since`,
else a cell, or a window of cells where the trait looks back only so far. `last` keeps `[at, value]`
also with a window. `steps` and `ratio` keep nothing, they read other traits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import Computed, ComputedKind, Workspace
from engine.domain.offers.scope import UNKNOWN, Scope, is_number
from engine.domain.people import tallies
from engine.domain.people.counting import whole
from engine.domain.people.labels import kept_back
from engine.domain.people.profiles import Profile
from engine.domain.people.traits import typed

MOST_VALUE_BYTES = 4096
"""Of what `first` and `last` keep, encoded: the document is written with every event."""
HIDDEN = "$"
"""How the names of traits begin that only other traits read. A name with a dot is a member of a map."""
_SECONDS_PER_DAY = 86400.0
_DERIVED = (ComputedKind.RATIO, ComputedKind.STEPS)
_NUMERIC = (ComputedKind.SUM, ComputedKind.AVERAGE, ComputedKind.MIN, ComputedKind.MAX)
_KEPT = (ComputedKind.FIRST, ComputedKind.LAST)
_LISTED = (ComputedKind.DISTINCT, ComputedKind.MOST_OFTEN)
_encode = msgspec.msgpack.Encoder().encode


def count_in(
    state: dict[str, Any], traits: Iterable[Computed], scope: Scope, at: datetime, workspace: Workspace
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The state after one occurrence of what `traits` count, and notes on what was left out.
    `scope.now` is when it is counted."""
    changed = dict(state)
    notes: list[str] = []
    for trait in traits:
        if trait.of:
            scope.profile = _since(state, trait)
        condition = trait.pattern.condition if trait.pattern else None
        if condition is not None and condition.evaluate(scope) is not True:
            continue
        cell, note = _cell(trait, scope, at, workspace)
        if cell is not None:
            name = trait.name
            known = changed.get(name)
            if _is_window(trait):
                window, fits = tallies.put(trait, known, cell, at, scope.now)
                if window is not None:
                    changed[name] = window
                note = note if fits else "too many different values: the oldest are let go"
            elif known is None:
                changed[name] = cell
            else:
                together = tallies.unite(trait.kind, known, cell)
                if trait.kind in _LISTED and len(together) > tallies.MOST_VALUES:
                    together = _bounded(trait.kind, known, together)
                    note = "too many different values: new ones are left out"
                if trait.kind in _NUMERIC and not _is_finite(together):
                    note = "beyond all numbers"
                else:
                    changed[name] = together
        if note is not None:
            notes.append(f"{trait.name}: {note}")
    return changed, tuple(notes)


def _since(state: Mapping[str, Any], trait: Computed) -> dict[str, Any]:
    """What a sum over spans of time reads of what was kept before."""
    kept = {"since": state.get(trait.of), "until": state.get(trait.over)}
    return {name: cell[1] for name, cell in kept.items() if cell is not None}


def _is_window(trait: Computed) -> bool:
    return trait.within is not None and trait.kind is not ComputedKind.LAST


def _is_finite(cell: Any) -> bool:
    return is_number(cell[0] if isinstance(cell, list) else cell)


def _bounded(kind: ComputedKind, known: Any, together: Any) -> Any:
    """As many new values as there is room for."""
    new = sorted((key for key in together if key not in known), key=tallies.order)
    left_out = set(new[len(new) - (len(together) - tallies.MOST_VALUES) :])
    if kind is ComputedKind.DISTINCT:
        return [key for key in together if key not in left_out]
    return {key: number for key, number in together.items() if key not in left_out}


def _cell(trait: Computed, scope: Scope, at: datetime, workspace: Workspace) -> tuple[Any, str | None]:
    """What one occurrence comes to, None where it says nothing; and a note on what was left out."""
    kind = trait.kind
    if kind is ComputedKind.COUNT:
        return 1, None
    if kind is ComputedKind.DAYS_SINCE:
        return at, None
    value = trait.value.evaluate(scope) if trait.value else UNKNOWN
    if kind in _NUMERIC:
        if not is_number(value):
            return None, "not a number"
        rate = _rate(scope.event, workspace)
        if rate is None:
            return None, "currency without a rate"
        amount = round(value * rate, tallies.MONEY_DECIMALS)
        if not is_number(amount):
            return None, "beyond all numbers"
        return ([amount, 1] if kind is ComputedKind.AVERAGE else amount), None
    if value is UNKNOWN or value is None:
        return None, None
    if kind in _KEPT:
        if not _is_small(value):
            return None, "a value too large: not kept"
        return [at, value], None
    values = value if isinstance(value, list | tuple | frozenset | set) else (value,)
    keys = [key for each in values if each is not None and (key := tallies.key_of(each)) is not None]
    note = None if len(keys) == sum(each is not None for each in values) else "a value that cannot be counted"
    if not keys:
        return None, note
    if kind is ComputedKind.DISTINCT:
        return sorted(set(keys), key=tallies.order), note
    return {key: keys.count(key) for key in keys[: tallies.MOST_VALUES]}, note


def _is_small(value: Any) -> bool:
    try:
        return len(_encode(value)) <= MOST_VALUE_BYTES
    except (OverflowError, RecursionError, TypeError, ValueError):  # a number beyond 64 bits
        return False


def merged(one: Mapping[str, Any], other: Mapping[str, Any], computed: Iterable[Computed]) -> dict[str, Any]:
    """The state over the events of both, of which none is in both. The order does not matter. What is
    not declared any more is let go."""
    together: dict[str, Any] = {}
    for trait in computed:
        a, b = one.get(trait.name), other.get(trait.name)
        if a is None or b is None:
            if (known := b if a is None else a) is not None:
                together[trait.name] = known
        elif _is_window(trait):
            together[trait.name] = tallies.united(trait, a, b)
        else:
            together[trait.name] = tallies.unite(trait.kind, a, b)
    return together


def taken_in(
    state: Mapping[str, Any], cells: Mapping[str, Any], traits: Iterable[Computed], now: datetime
) -> dict[str, Any]:
    """The state with what was counted elsewhere, as states by the digest of their definition; what is
    not declared any more is left out."""
    changed = dict(state)
    for trait in traits:
        cell = cells.get(trait.digest.hex()) if trait.digest else None
        if cell is None:
            continue
        known = changed.get(trait.name)
        if _is_window(trait):
            window = tallies.taken_in(trait, known, cell, now)
            if window is not None:
                changed[trait.name] = window
        elif known is None:
            changed[trait.name] = cell
        else:
            together = tallies.unite(trait.kind, known, cell)
            if trait.kind in _LISTED and len(together) > tallies.MOST_VALUES:
                together = _bounded(trait.kind, known, together)
            changed[trait.name] = together
    return changed


def taken_off(
    state: Mapping[str, Any], cells: Mapping[str, Any], traits: Iterable[Computed]
) -> dict[str, Any]:
    """The state without the second of two copies of what was counted elsewhere, as `count_out`."""
    changed = dict(state)
    for trait in traits:
        added, known = cells.get(trait.digest.hex()), changed.get(trait.name)
        if added is None or known is None:
            continue
        if _is_window(trait):
            left = tallies.taken_out(trait, known, added)
        else:
            left = tallies.take_out(trait.kind, known, added)
        changed[trait.name] = left
        if left is None:
            del changed[trait.name]
    return changed


def count_out(
    state: dict[str, Any], traits: Iterable[Computed], scope: Scope, at: datetime, workspace: Workspace
) -> dict[str, Any]:
    """The state without one of two occurrences of the same event: what `count_in` added is taken off
    again. What an event cannot change a second time stays."""
    once, _ = count_in({}, traits, scope, at, workspace)
    changed = dict(state)
    for trait in traits:
        added, known = once.get(trait.name), changed.get(trait.name)
        if added is None or known is None:
            continue
        if _is_window(trait):
            changed[trait.name] = tallies.taken_out(trait, known, added)
        else:
            changed[trait.name] = tallies.take_out(trait.kind, known, added)
        if changed[trait.name] is None:
            del changed[trait.name]
    return changed


def _rate(event: Mapping[str, Any], workspace: Workspace) -> float | None:
    """What to multiply an amount of this event by; None for a currency without a rate."""
    currency = event.get("properties", {}).get("currency")
    if not isinstance(currency, str) or currency.upper() == workspace.currency:
        return 1.0
    return workspace.rates.get(currency.upper())


def read(state: Mapping[str, Any], computed: Iterable[Computed], now: datetime) -> dict[str, Any]:
    """Every computed trait's value at `now`; those that are unknown are left out."""
    values: dict[str, Any] = {}
    derived: list[Computed] = []
    seconds = now.timestamp()
    for trait in computed:
        kind = trait.kind
        if kind is ComputedKind.STEPS or kind is ComputedKind.RATIO:
            derived.append(trait)
            continue
        known = state.get(trait.name)
        if known is not None and trait.within is not None:
            if kind is not ComputedKind.LAST:
                known = tallies.live(trait, known, seconds)
            elif not tallies.is_live(trait.within, known[0], seconds):
                known = None
        if kind is ComputedKind.COUNT or kind is ComputedKind.SUM:
            values[trait.name] = 0 if known is None else known
        elif known is not None:
            value = _value(trait, known, now)
            if value is not UNKNOWN:
                if (dot := trait.name.find(".")) < 0:
                    values[trait.name] = value
                elif not trait.name.startswith(HIDDEN):
                    values.setdefault(trait.name[:dot], {})[trait.name[dot + 1 :]] = value
    for trait in derived:
        if trait.kind is ComputedKind.RATIO:
            above, below = values.get(trait.of), values.get(trait.over)
            if above is not None and below:
                values[trait.name] = above / below
    for trait in derived:
        if trait.kind is ComputedKind.STEPS:
            values[trait.name] = _step(values.get(trait.of), trait.steps)
    return values


def _value(trait: Computed, known: Any, now: datetime) -> Any:
    match trait.kind:
        case ComputedKind.DAYS_SINCE:
            return max(0.0, (now - known).total_seconds() / _SECONDS_PER_DAY)
        case ComputedKind.AVERAGE:
            return known[0] / known[1]
        case ComputedKind.FIRST | ComputedKind.LAST:
            if trait.value is not None and trait.value.type is Type.DURATION and isinstance(known[1], str):
                return msgspec.convert(known[1], timedelta)  # documents hold it as text
            return known[1]
        case ComputedKind.DISTINCT:
            return [tallies.value_of(key) for key in known]
        case ComputedKind.MOST_OFTEN:
            ranked = known if trait.within is not None else tallies.most_often(trait, known)
            if not ranked:
                return UNKNOWN
            found = [tallies.value_of(key) for key in ranked]
            return found[0] if trait.top is None else found
    return known


def next_change(trait: Computed, state: Mapping[str, Any], now: datetime) -> datetime | None:
    """When the trait's value changes next if nothing happens, other than by growing steadily."""
    known = state.get(trait.name)
    if trait.kind is ComputedKind.STEPS:
        since = state.get(trait.of)
        return _next_step(since, trait.steps, now) if isinstance(since, datetime) else None
    if known is None:
        return None
    if trait.kind is ComputedKind.DAYS_SINCE:
        return known if known > now else None  # a device's clock ran ahead: it stands at 0 till then
    return tallies.next_slide(trait, known, now) if trait.within is not None else None


def _next_step(since: datetime, steps: tuple[tuple[float, str], ...], now: datetime) -> datetime | None:
    """When the days since then reach the next threshold."""
    for threshold, _ in steps:
        reached = since + timedelta(days=min(max(threshold, 0.0), _LONGEST_STEP))
        while (reached - since).total_seconds() / _SECONDS_PER_DAY < min(threshold, _LONGEST_STEP):
            reached += timedelta(microseconds=1)
        if reached > now:
            return reached
    return None


_LONGEST_STEP = 100_000.0
"""Days."""


def _step(value: Any, steps: tuple[tuple[float, str], ...]) -> str:
    reached = steps[0][1]
    if isinstance(value, int | float):
        for threshold, label in steps:
            if value >= threshold:
                reached = label
    return reached


def profile_view(profile: Profile, workspace: Workspace, now: datetime) -> dict[str, Any]:
    """What expressions and messages see as `profile`: declared traits, computed traits and the
    built-in ones. Unknown ones are left out, and those that must not be read."""
    view: dict[str, Any] = {"last_seen": profile.last_seen}
    for name, trait in profile.traits.items():
        declaration = workspace.traits.get(name)
        if declaration is not None:
            value = typed(trait.value, declaration)
            if value is not UNKNOWN:
                view[name] = value
    view.update(read(profile.computed, whole(profile, workspace), now))
    if workspace.readers:
        for name in kept_back(profile.consent, workspace):
            view.pop(name, None)
    view["audiences"] = list(profile.audiences.since)
    return view
