"""The arithmetic of what is counted: cells that take occurrences in, and windows made of cells.

A cell holds what some occurrences come to: a number for `count`, `sum`, `min` and `max`; `[total,
number]` for `average`; `[at, value]` for `first` and `last`; a sorted list of values for `distinct`;
the number by value for `most_often`. Cells of the same kind unite, in any order.

A window is a cell for every bucket of time in which something happened, as `[oldest, whole,
{bucket: cell}]`: `whole` is what all of them together read as, and holds until the oldest is past.
An occurrence counts for as long as any moment of its bucket is within the window: for the window
itself at least, for one bucket longer at most. Buckets are minutes in windows of up to 6 hours,
quarters of an hour up to 2 days, hours up to 14 days, and days (of UTC) beyond.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from math import fsum
from typing import Any, Final

import msgspec

from engine.domain.offers.rules import Computed, ComputedKind
from engine.domain.offers.scope import is_number

SHORTEST_WINDOW: Final = timedelta(hours=1)
LONGEST_WINDOW: Final = timedelta(days=400)
MOST_VALUES: Final = 500
"""Different values of a `distinct` or `most_often` without a window; further ones are left out."""
MOST_PAIRS: Final = 1_000
"""Values by bucket of one with a window; beyond, the oldest bucket goes first."""
LONGEST_VALUE: Final = 200
MONEY_DECIMALS: Final = 6
"""Sums are rounded to this after every addition: the double nearest to the exact decimal sum, so
that a million cents are ten thousand euros to the cent."""

_WIDTHS: Final = (
    (timedelta(hours=6), 60),
    (timedelta(days=2), 900),
    (timedelta(days=14), 3_600),
    (LONGEST_WINDOW, 86_400),
)
_TRUTHS: Final = {"\0true": True, "\0false": False}
"""How truth values are kept as keys, which Python would take for 1 and 0."""

_LARGEST_KEY: Final = 2**53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.msgpack.Encoder().encode


@cache
def _seconds(within: timedelta) -> tuple[float, int]:
    """How long a window is, and how wide its buckets are."""
    return within.total_seconds(), next(width for longest, width in _WIDTHS if within <= longest)


def key_of(value: Any) -> Any:
    """A value as it is kept among others, None for one that cannot be: a text of reasonable length,
    a number (3.0 is 3), a truth value."""
    if isinstance(value, bool):
        return "\0true" if value else "\0false"
    if isinstance(value, str):
        return value if len(value) <= LONGEST_VALUE and value not in _TRUTHS else None
    if not is_number(value) or abs(value) > _LARGEST_KEY:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def value_of(key: Any) -> Any:
    return _TRUTHS.get(key, key) if isinstance(key, str) else key


def order(key: Any) -> tuple[bool, Any]:
    """Numbers, then texts."""
    return (isinstance(key, str), key)


# Cells


def unite(kind: ComputedKind, one: Any, other: Any) -> Any:
    """What the occurrences of both cells come to."""
    match kind:
        case ComputedKind.COUNT:
            return one + other
        case ComputedKind.SUM:
            return round(one + other, MONEY_DECIMALS)
        case ComputedKind.AVERAGE:
            return [round(one[0] + other[0], MONEY_DECIMALS), one[1] + other[1]]
        case ComputedKind.MIN:
            return min(one, other)
        case ComputedKind.MAX | ComputedKind.DAYS_SINCE:
            return max(one, other)
        case ComputedKind.FIRST:
            return one if _is_earlier(one, other) else other
        case ComputedKind.LAST:
            return other if _is_earlier(one, other) else one
        case ComputedKind.DISTINCT:
            return sorted({*one, *other}, key=order)
        case ComputedKind.MOST_OFTEN:
            return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    raise ValueError(kind)


def take_out(kind: ComputedKind, cell: Any, copy: Any) -> Any:
    """The cell without the second of two copies of the same occurrences, None where nothing is left.
    What an occurrence cannot change a second time stays."""
    match kind:
        case ComputedKind.COUNT:
            return cell - copy or None
        case ComputedKind.SUM:
            return round(cell - copy, MONEY_DECIMALS)
        case ComputedKind.AVERAGE:
            left = cell[1] - copy[1]
            return [round(cell[0] - copy[0], MONEY_DECIMALS), left] if left else None
        case ComputedKind.MOST_OFTEN:
            left_of = {key: number - copy.get(key, 0) for key, number in cell.items()}
            return {key: number for key, number in left_of.items() if number > 0} or None
    return cell


def _is_earlier(one: Any, other: Any) -> bool:
    """Of two at the same time the value says which, so that the order of arrival does not."""
    if one[0] != other[0]:
        return bool(one[0] < other[0])
    return _encode(one[1]) < _encode(other[1])


def _whole(trait: Computed, cells: Mapping[int, Any]) -> Any:
    """What the cells of some buckets, in their order, read as together."""
    kind = trait.kind
    if kind is ComputedKind.COUNT:
        return sum(cells.values())
    if kind is ComputedKind.SUM:
        return round(fsum(cells.values()), MONEY_DECIMALS)
    if kind is ComputedKind.MIN:
        return min(cells.values())
    if kind is ComputedKind.MAX:
        return max(cells.values())
    if kind is ComputedKind.FIRST:
        return next(iter(cells.values()))
    if kind is ComputedKind.AVERAGE:
        total = round(fsum(cell[0] for cell in cells.values()), MONEY_DECIMALS)
        return [total, sum(cell[1] for cell in cells.values())]
    if kind is ComputedKind.DISTINCT:
        return sorted({key for cell in cells.values() for key in cell}, key=order)
    numbers: dict[Any, int] = {}
    latest: dict[Any, int] = {}
    for bucket, cell in cells.items():
        for key, number in cell.items():
            numbers[key] = numbers.get(key, 0) + number
            latest[key] = bucket
    return most_often(trait, numbers, latest)


def most_often(trait: Computed, numbers: Mapping[Any, int], latest: Mapping[Any, int] | None = None) -> Any:
    """The values seen most often, at least `at_least` times, at most `top`; of those seen equally often
    the one seen last, to the bucket, then the first in order."""
    seen = [key for key, number in numbers.items() if number >= trait.at_least]
    seen.sort(key=order)
    seen.sort(key=lambda key: (numbers[key], latest[key] if latest else 0), reverse=True)
    return seen[: trait.top or 1]


# Windows


def _first_live(now: float, within: timedelta) -> int:
    """The oldest bucket that still counts, `now` in seconds since 1970."""
    length, width = _seconds(within)
    return int((now - length) // width)


def _bucket(at: datetime, within: timedelta) -> int:
    return int(at.timestamp() // _seconds(within)[1])


def put(trait: Computed, state: Any, cell: Any, at: datetime, now: datetime) -> tuple[Any, bool]:
    """A window with one occurrence more, None where nothing is in it, and whether there was room for
    all of it."""
    assert trait.within is not None
    bucket, live = _bucket(at, trait.within), _first_live(now.timestamp(), trait.within)
    if bucket < live:
        return state, True
    if state is None:
        cells, whole = {bucket: cell}, None
    else:
        oldest, whole, known = state
        cells = dict(known)
        if oldest < live:
            cells, whole = {b: c for b, c in known.items() if b >= live}, None
        before = cells.get(bucket)
        is_last = not cells or bucket > next(reversed(cells))
        cells[bucket] = cell if before is None else unite(trait.kind, before, cell)
        if before is None and not is_last:
            cells = dict(sorted(cells.items()))
    fits = True
    if trait.kind in (ComputedKind.DISTINCT, ComputedKind.MOST_OFTEN):
        while sum(map(len, cells.values())) > MOST_PAIRS and len(cells) > 1:
            del cells[next(iter(cells))]
            fits, whole = False, None
    return _window(trait, cells, whole, cell), fits


def _window(trait: Computed, cells: dict[int, Any], whole: Any, cell: Any) -> Any:
    """The state of a window; `whole` is what it read as before `cell` came, None where that is past."""
    if not cells:
        return None
    if whole is not None and trait.kind in _ADDED:
        whole = unite(trait.kind, whole, cell)
    else:
        whole = _whole(trait, cells)
    return [next(iter(cells)), whole, cells]


_ADDED: Final = frozenset(
    (ComputedKind.COUNT, ComputedKind.SUM, ComputedKind.AVERAGE, ComputedKind.MIN, ComputedKind.MAX)
)
"""Kinds whose whole takes one more in without looking at all the others."""


def united(trait: Computed, one: Any, other: Any) -> Any:
    """A window over the occurrences of both."""
    cells = dict(one[2])
    for bucket, cell in other[2].items():
        cells[bucket] = unite(trait.kind, cells[bucket], cell) if bucket in cells else cell
    return _window(trait, dict(sorted(cells.items())), None, None)


def taken_in(trait: Computed, state: Any, other: Any, now: datetime) -> Any:
    """A window with the occurrences of another one that are still in it and for which there is room,
    None where nothing is in it."""
    assert trait.within is not None
    live = _first_live(now.timestamp(), trait.within)
    known = state[2] if state is not None else {}
    cells = {bucket: cell for bucket, cell in known.items() if bucket >= live}
    for bucket, cell in other[2].items():
        if bucket >= live:
            cells[bucket] = unite(trait.kind, cells[bucket], cell) if bucket in cells else cell
    cells = dict(sorted(cells.items()))
    if trait.kind in (ComputedKind.DISTINCT, ComputedKind.MOST_OFTEN):
        while sum(map(len, cells.values())) > MOST_PAIRS and len(cells) > 1:
            del cells[next(iter(cells))]
    return _window(trait, cells, None, None)


def taken_out(trait: Computed, state: Any, copy: Any) -> Any:
    """A window without the second of two copies of the same occurrences."""
    cells = dict(state[2])
    for bucket, cell in copy[2].items():
        if bucket in cells:
            left = take_out(trait.kind, cells[bucket], cell)
            cells[bucket] = left
            if left is None:
                del cells[bucket]
    return _window(trait, cells, None, None)


def live(trait: Computed, state: Any, now: float) -> Any:
    """What a window reads as `now` (seconds since 1970), None where all of it is past."""
    assert trait.within is not None
    first = _first_live(now, trait.within)
    oldest, whole, cells = state
    if oldest >= first:
        return whole
    left = {bucket: cell for bucket, cell in cells.items() if bucket >= first}
    return _whole(trait, left) if left else None


def is_live(within: timedelta, at: datetime, now: float) -> bool:
    """Whether what happened then still counts `now` (seconds since 1970)."""
    return _bucket(at, within) >= _first_live(now, within)


def next_slide(trait: Computed, state: Any, now: datetime) -> datetime | None:
    """When something leaves a window next."""
    assert trait.within is not None
    first = _first_live(now.timestamp(), trait.within)
    buckets = [_bucket(state[0], trait.within)] if trait.kind is ComputedKind.LAST else state[2]
    oldest = next((bucket for bucket in buckets if bucket >= first), None)
    if oldest is None:
        return None
    return _EPOCH + timedelta(seconds=(oldest + 1) * _seconds(trait.within)[1]) + trait.within


def stated(trait: Computed, value: Any, at: datetime) -> Any:
    """The state of a trait that reads as `value` at that moment, None where it does not follow from
    the value: for the people of scenario tests."""
    cell: Any
    match trait.kind:
        case ComputedKind.DAYS_SINCE:
            return at - timedelta(days=value)
        case ComputedKind.FIRST | ComputedKind.LAST:
            cell = [at, value]
        case ComputedKind.AVERAGE:
            cell = [value, 1]
        case ComputedKind.DISTINCT:
            cell = sorted({key for each in value if (key := key_of(each)) is not None}, key=order)
        case ComputedKind.MOST_OFTEN:
            listed = value if isinstance(value, list) else [value]
            number = trait.at_least + len(listed)
            keys = [key for each in listed if (key := key_of(each)) is not None]
            cell = {key: number - place for place, key in enumerate(keys)}
        case ComputedKind.STEPS | ComputedKind.RATIO:
            return None
        case _:
            cell = value
    if trait.within is None or trait.kind is ComputedKind.LAST:
        return cell
    return put(trait, None, cell, at, at)[0]
