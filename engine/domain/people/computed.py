"""Computed traits: what is counted with every event, and how it reads at a given moment.

State is kept in the profile by trait name: a number for `count` and `sum`, `[at, value]` for
`last`, the time for `days_since`; `steps` keep nothing, they read another trait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

import msgspec

from engine.domain.offers.expressions import Type
from engine.domain.offers.rules import Computed, ComputedKind, TraitDeclaration, Workspace
from engine.domain.offers.scope import UNKNOWN, Scope, is_number
from engine.domain.people.profiles import Profile

_SECONDS_PER_DAY = 86400.0
_MONEY_DECIMALS = 6
"""Sums are rounded to this after every addition: the double nearest to the exact decimal sum, so
that a million cents are ten thousand euros to the cent."""
_encode = msgspec.msgpack.Encoder().encode


def count_in(
    state: dict[str, Any], traits: Iterable[Computed], scope: Scope, at: datetime, workspace: Workspace
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The state after one occurrence of what `traits` count, and notes on what was left out."""
    changed = dict(state)
    notes: list[str] = []
    for trait in traits:
        condition = trait.pattern.condition if trait.pattern else None
        if condition is not None and condition.evaluate(scope) is not True:
            continue
        if trait.kind is ComputedKind.COUNT:
            changed[trait.name] = changed.get(trait.name, 0) + 1
        elif trait.kind is ComputedKind.DAYS_SINCE:
            known = changed.get(trait.name)
            changed[trait.name] = at if known is None or at > known else known
        elif trait.kind is ComputedKind.LAST:
            value = trait.value.evaluate(scope) if trait.value else UNKNOWN
            known = changed.get(trait.name)
            if value is not UNKNOWN and value is not None and (known is None or at >= known[0]):
                changed[trait.name] = [at, value]
        elif trait.kind is ComputedKind.SUM:
            value = trait.value.evaluate(scope) if trait.value else UNKNOWN
            if not is_number(value):
                notes.append(f"{trait.name}: not a number")
                continue
            rate = _rate(scope.event, workspace)
            if rate is None:
                notes.append(f"{trait.name}: currency without a rate")
                continue
            total = round(changed.get(trait.name, 0) + value * rate, _MONEY_DECIMALS)
            if is_number(total):
                changed[trait.name] = total
            else:
                notes.append(f"{trait.name}: beyond all numbers")
    return changed, tuple(notes)


def merged(one: Mapping[str, Any], other: Mapping[str, Any], computed: Iterable[Computed]) -> dict[str, Any]:
    """The state over the events of both, of which none is in both. The order does not matter. What is
    not declared any more is let go."""
    together: dict[str, Any] = {}
    for trait in computed:
        a, b = one.get(trait.name), other.get(trait.name)
        if a is None or b is None:
            if (known := b if a is None else a) is not None:
                together[trait.name] = known
            continue
        match trait.kind:
            case ComputedKind.COUNT:
                together[trait.name] = a + b
            case ComputedKind.SUM:
                together[trait.name] = round(a + b, _MONEY_DECIMALS)
            case ComputedKind.LAST:
                together[trait.name] = max(a, b, key=lambda known: (known[0], _encode(known[1])))
            case ComputedKind.DAYS_SINCE:
                together[trait.name] = max(a, b)
            case ComputedKind.STEPS:
                pass
            case _:
                assert_never(trait.kind)
    return together


def count_out(
    state: dict[str, Any], traits: Iterable[Computed], scope: Scope, at: datetime, workspace: Workspace
) -> dict[str, Any]:
    """The state without one of two occurrences of the same event: what `count_in` added is taken off
    again. What an event cannot change a second time stays."""
    once, _ = count_in({}, traits, scope, at, workspace)
    changed = dict(state)
    for trait in traits:
        added = once.get(trait.name)
        if added is None or trait.name not in changed:
            continue
        match trait.kind:
            case ComputedKind.COUNT:
                changed[trait.name] -= added
            case ComputedKind.SUM:
                changed[trait.name] = round(changed[trait.name] - added, _MONEY_DECIMALS)
            case ComputedKind.LAST | ComputedKind.DAYS_SINCE | ComputedKind.STEPS:
                pass
            case _:
                assert_never(trait.kind)
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
    for trait in computed:
        known = state.get(trait.name)
        if trait.kind is ComputedKind.COUNT or trait.kind is ComputedKind.SUM:
            values[trait.name] = 0 if known is None else known
        elif trait.kind is ComputedKind.STEPS or known is None:
            continue
        elif trait.kind is ComputedKind.LAST:
            values[trait.name] = known[1]
            if trait.value is not None and trait.value.type is Type.DURATION and isinstance(known[1], str):
                values[trait.name] = msgspec.convert(known[1], timedelta)  # documents hold it as text
        else:
            values[trait.name] = max(0.0, (now - known).total_seconds() / _SECONDS_PER_DAY)
    for trait in computed:
        if trait.kind is ComputedKind.STEPS:
            values[trait.name] = _step(values.get(trait.of), trait.steps)
    return values


def next_change(trait: Computed, state: Mapping[str, Any], now: datetime) -> datetime | None:
    """When the trait's value changes next if nothing happens, other than by growing steadily."""
    known = state.get(trait.name)
    if trait.kind is ComputedKind.DAYS_SINCE and known is not None and known > now:
        return known  # type: ignore[no-any-return]  # a device's clock ran ahead: it stands at 0 till then
    return None


def _step(value: Any, steps: tuple[tuple[float, str], ...]) -> str:
    reached = steps[0][1]
    if isinstance(value, int | float):
        for threshold, label in steps:
            if value >= threshold:
                reached = label
    return reached


def typed(value: Any, declaration: TraitDeclaration) -> Any:
    """A stated value as its declared type, or UNKNOWN where it is of another."""
    match declaration.type:
        case "string":
            return value if isinstance(value, str) else UNKNOWN
        case "boolean":
            return value if isinstance(value, bool) else UNKNOWN
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else UNKNOWN
        case "list":
            return value if isinstance(value, list) else UNKNOWN
        case "timestamp":
            return _timestamp(value)


def _timestamp(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return UNKNOWN
    if not isinstance(value, datetime):
        return UNKNOWN
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # at the edge of the calendar
        return UNKNOWN


def profile_view(profile: Profile, workspace: Workspace, now: datetime) -> dict[str, Any]:
    """What expressions and messages see as `profile`: declared traits, computed traits and the
    built-in ones. Unknown ones are left out."""
    view: dict[str, Any] = {"last_seen": profile.last_seen}
    for name, trait in profile.traits.items():
        declaration = workspace.traits.get(name)
        if declaration is not None:
            value = typed(trait.value, declaration)
            if value is not UNKNOWN:
                view[name] = value
    view.update(read(profile.computed, workspace.computed, now))
    view["audiences"] = list(profile.audiences.since)
    return view
