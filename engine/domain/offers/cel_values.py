"""What the operators of an expression do with any values at all: total functions, three-valued.

Inside a compiled expression None is the unknown and NULL the word `null`, so that a plain
`mapping.get(name)` is already a null-safe read. Inside lists and maps None stays what it is in
JSON, and is unknown once it is read out. Every function here accepts every value and never raises:
an operand of the wrong type, a result out of range, a missing key all give None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from engine.domain.offers.scope import UNKNOWN

MAX_TEXT_RESULT: Final = 65_536
MAX_LIST_RESULT: Final = 10_000
MAX_ELEMENTS: Final = 1_000
INT64: Final = range(-(2**63), 2**63)
MAX_FLOAT: Final = 1.7976931348623157e308
NUMBERS: Final = (int, float)
LISTS: Final = (list, tuple)
SCALARS: Final = (str, int, float, bool)
MAX_DURATION: Final = timedelta(seconds=315_576_000_000)


class Null(Enum):
    """The value of the word `null`, apart from None, which is unknown."""

    NULL = "null"


NULL: Final = Null.NULL


def is_number(value: Any) -> bool:
    """A truth value is not a number."""
    return isinstance(value, NUMBERS) and not isinstance(value, bool)


def whole(value: Any) -> int | None:
    """A whole number, however it is stored: phones send 3 as 3.0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def member(container: Any, name: str) -> Any:
    """The slow way to `container.name`: anything but a map has no members."""
    # Nearly all are plain ones: to ask the abstract class takes as long as all the rest.
    is_map = type(container) is dict or isinstance(container, Mapping)
    return container.get(name) if is_map else None


def index(container: Any, key: Any) -> Any:
    """`container[key]`: by name in a map, by position from 0 in a list."""
    if isinstance(container, Mapping):
        return container.get(key) if isinstance(key, str) else None
    at = whole(key)
    if at is not None and isinstance(container, LISTS) and 0 <= at < len(container):
        return container[at]
    return None


def same(left: Any, right: Any) -> bool | None:
    """`==`: numbers by value, all else only within its type."""
    if left is None or right is None:
        return None
    if type(left) is type(right) and type(left) in SCALARS:
        return bool(left == right)
    if left is NULL or right is NULL:
        return left is right
    try:
        return _equal(left, right)
    except RecursionError:
        return None


def different(left: Any, right: Any) -> bool | None:
    """`!=`"""
    equal = same(left, right)
    return None if equal is None else not equal


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str):
        return isinstance(right, str) and left == right
    if isinstance(left, NUMBERS):
        return isinstance(right, NUMBERS) and left == right
    if left is None or right is None:
        return left is right
    if isinstance(left, Mapping):
        return (
            isinstance(right, Mapping)
            and len(left) == len(right)
            and all(key in right and _equal(value, right[key]) for key, value in left.items())
        )
    if isinstance(left, LISTS):
        return isinstance(right, LISTS) and len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, datetime):
        return isinstance(right, datetime) and left == right
    if isinstance(left, timedelta):
        return isinstance(right, timedelta) and left == right
    if isinstance(left, Set):
        return isinstance(right, Set) and left == right
    return False


def _ordered(left: Any, right: Any) -> bool:
    """Whether the two have an order: numbers, texts, truth values, aware times, durations."""
    if isinstance(left, bool):
        return isinstance(right, bool)
    if isinstance(left, NUMBERS):
        return is_number(right)
    if isinstance(left, str):
        return isinstance(right, str)
    if isinstance(left, datetime):
        return isinstance(right, datetime) and left.tzinfo is not None and right.tzinfo is not None
    return isinstance(left, timedelta) and isinstance(right, timedelta)


def less(left: Any, right: Any) -> bool | None:
    """`<`"""
    return bool(left < right) if _ordered(left, right) else None


def less_equal(left: Any, right: Any) -> bool | None:
    """`<=`"""
    return bool(left <= right) if _ordered(left, right) else None


def greater(left: Any, right: Any) -> bool | None:
    """`>`"""
    return bool(left > right) if _ordered(left, right) else None


def greater_equal(left: Any, right: Any) -> bool | None:
    """`>=`"""
    return bool(left >= right) if _ordered(left, right) else None


def is_in(value: Any, container: Any) -> bool | None:
    """`in`: an element of a list or set, a key of a map."""
    if value is None:
        return None
    if isinstance(container, Mapping):
        return isinstance(value, str) and value in container
    if not isinstance(container, (list, tuple, Set)):
        return None
    # 0 and 1 are looked for by hand, since Python takes False and True for them.
    if isinstance(value, str) or (is_number(value) and value not in (0, 1) and value == value):
        return value in container
    inner = None if value is NULL else value
    try:
        return any(_equal(inner, element) for element in container)
    except RecursionError:
        return None


def add(left: Any, right: Any) -> Any:
    """`+`: numbers, texts, lists, a time and a duration, two durations."""
    if is_number(left):
        if not is_number(right):
            return None
        try:
            return _in_range(left + right)
        except OverflowError:
            return None
    if isinstance(left, str):
        if isinstance(right, str) and len(left) + len(right) <= MAX_TEXT_RESULT:
            return left + right
        return None
    if isinstance(left, LISTS):
        if isinstance(right, LISTS) and len(left) + len(right) <= MAX_LIST_RESULT:
            return [*left, *right]
        return None
    if isinstance(left, datetime) and isinstance(right, timedelta):
        return _moved(left, right)
    if isinstance(left, timedelta) and isinstance(right, datetime):
        return _moved(right, left)
    if isinstance(left, timedelta) and isinstance(right, timedelta):
        return _span(left, right)
    return None


def subtract(left: Any, right: Any) -> Any:
    """`-`: numbers, two times, a time and a duration, two durations."""
    if is_number(left):
        if not is_number(right):
            return None
        try:
            return _in_range(left - right)
        except OverflowError:
            return None
    if isinstance(left, datetime):
        if isinstance(right, datetime):
            return left - right if left.tzinfo is not None and right.tzinfo is not None else None
        return _moved(left, -right) if isinstance(right, timedelta) and _short(right) else None
    if isinstance(left, timedelta) and isinstance(right, timedelta) and _short(right):
        return _span(left, -right)
    return None


def multiply(left: Any, right: Any) -> Any:
    """`*`"""
    if type(left) is float and type(right) is float:
        return _in_range(left * right)
    if not (is_number(left) and is_number(right)):
        return None
    try:
        return _in_range(left * right)
    except OverflowError:
        return None


def divide(left: Any, right: Any) -> Any:
    """`/`: two whole numbers give a whole one, cut towards zero."""
    if not (is_number(left) and is_number(right)) or right == 0:
        return None
    try:
        if isinstance(left, int) and isinstance(right, int):
            quotient = abs(left) // abs(right)
            return _in_range(quotient if (left < 0) == (right < 0) else -quotient)
        return _in_range(left / right)
    except OverflowError:
        return None


def modulo(left: Any, right: Any) -> Any:
    """`%`: the rest, with the sign of the left."""
    if not (is_number(left) and is_number(right)) or right == 0:
        return None
    try:
        if isinstance(left, int) and isinstance(right, int):
            rest = abs(left) % abs(right)
            return _in_range(-rest if left < 0 else rest)
        return _in_range(math.fmod(left, right))
    except (OverflowError, ValueError):
        return None


def negative(value: Any) -> Any:
    """`-x`"""
    return _in_range(-value) if is_number(value) else None


def opposite(value: Any) -> bool | None:
    """`!x`"""
    return not value if isinstance(value, bool) else None


def _in_range(number: Any) -> Any:
    if isinstance(number, float):
        return number if -MAX_FLOAT <= number <= MAX_FLOAT else None
    return number if number in INT64 else None


def _short(span: timedelta) -> bool:
    return -MAX_DURATION <= span <= MAX_DURATION


def _span(left: timedelta, right: timedelta) -> timedelta | None:
    if not (_short(left) and _short(right)):
        return None
    total = left + right
    return total if _short(total) else None


def _moved(time: datetime, span: timedelta) -> datetime | None:
    try:
        return time + span if time.tzinfo is not None else None
    except OverflowError:
        return None


def elements(source: Any) -> Sequence[Any] | None:
    """What a macro goes over: a list, the keys of a map; None beyond MAX_ELEMENTS."""
    if isinstance(source, LISTS):
        return source if len(source) <= MAX_ELEMENTS else None
    if isinstance(source, Mapping):
        return list(source) if len(source) <= MAX_ELEMENTS else None
    if isinstance(source, Set) and len(source) <= MAX_ELEMENTS:
        try:
            return sorted(source)
        except TypeError:
            return None
    return None


def cost(value: Any) -> int:
    """What going through a value counts in a macro's work: one a list element, one in 64 characters."""
    if isinstance(value, str):
        return len(value) >> 6
    return len(value) if isinstance(value, (list, tuple, Mapping, Set)) else 0


def distinct_map(*entries: tuple[Any, Any]) -> dict[str, Any] | None:
    """A map with text keys, none of them twice."""
    built: dict[str, Any] = {}
    for key, value in entries:
        if not isinstance(key, str) or key in built or value is None:
            return None
        built[key] = stored(value)
    return built


def stored(value: Any) -> Any:
    """A value as it stands in a list or map, and outside of expressions."""
    return None if value is NULL else value


OUTWARD: Final[Mapping[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "number": (int, float),
    "string": (str,),
    "timestamp": (datetime,),
    "duration": (timedelta,),
    "list": (list, tuple, frozenset, set),
    "map": (Mapping,),
}


def outward(value: Any, wanted: str) -> Any:
    """The result of a whole expression: UNKNOWN where it is not of the type that was asked for."""
    if value is None:
        return UNKNOWN
    if value is NULL:
        return None if wanted in ("any", "null") else UNKNOWN
    if wanted == "any":
        return value
    if isinstance(value, bool) and wanted != "bool":
        return UNKNOWN
    return value if isinstance(value, OUTWARD.get(wanted, ())) else UNKNOWN
