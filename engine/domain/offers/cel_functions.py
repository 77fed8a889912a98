"""The functions and methods of expressions, by their names in CEL: total, None is unknown.

A method gets its receiver as the first argument. Texts longer than MAX_TEXT_RESULT characters, on
the way in or out, are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

from engine.domain.offers.cel_times import (
    GETTERS,
    duration_from,
    duration_text,
    seconds_since_epoch,
    timestamp_at,
    timestamp_from,
    timestamp_text,
)
from engine.domain.offers.cel_values import (
    INT64,
    MAX_FLOAT,
    MAX_LIST_RESULT,
    MAX_TEXT_RESULT,
    is_number,
    whole,
)

WHOLE = re.compile(r"\s*[+-]?[0-9]{1,30}\s*", re.ASCII)
DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)
BOOLS: Final = dict.fromkeys(("true", "True", "TRUE", "t", "1"), True) | dict.fromkeys(
    ("false", "False", "FALSE", "f", "0"), False
)
ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
ASCII_UPPER: Final = {lower: lower - 32 for lower in range(ord("a"), ord("z") + 1)}


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) and len(value) <= MAX_TEXT_RESULT for value in values)


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_TEXT_RESULT


def size(value: Any) -> int | None:
    """Characters of a text, elements of a list, entries of a map."""
    return len(value) if isinstance(value, str | list | tuple | Mapping | Set) else None


def contains(text: Any, part: Any) -> bool | None:
    return part in text if _texts(text, part) else None


def starts_with(text: Any, part: Any) -> bool | None:
    return text.startswith(part) if _texts(text, part) else None


def ends_with(text: Any, part: Any) -> bool | None:
    return text.endswith(part) if _texts(text, part) else None


def lower_ascii(text: Any) -> str | None:
    return text.translate(ASCII_LOWER) if _is_text(text) else None


def upper_ascii(text: Any) -> str | None:
    return text.translate(ASCII_UPPER) if _is_text(text) else None


def trim(text: Any) -> str | None:
    return text.strip() if _is_text(text) else None


def split(text: Any, separator: Any, limit: Any = -1) -> list[str] | None:
    """At most `limit` pieces, the last with all the rest; a negative limit means all."""
    pieces = whole(limit)
    if not _texts(text, separator) or pieces is None:
        return None
    if pieces == 0:
        return []
    if separator == "":
        parts = list(text) or [""]
        if 0 < pieces < len(parts):
            parts[pieces - 1 :] = ["".join(parts[pieces - 1 :])]
    else:
        parts = text.split(separator, pieces - 1 if pieces > 0 else -1)
    return parts if len(parts) <= MAX_LIST_RESULT else None


def substring(text: Any, start: Any, *end: Any) -> str | None:
    """From `start` to before `end` (or the end of the text), counted in characters from 0."""
    if not _is_text(text):
        return None
    first, last = whole(start), whole(end[0]) if end else len(text)
    if first is None or last is None or not 0 <= first <= last <= len(text):
        return None
    return text[first:last]


def index_of(text: Any, part: Any, start: Any = 0) -> int | None:
    """Where `part` is first found from `start` on, or -1."""
    first = whole(start)
    if not _texts(text, part) or first is None or not 0 <= first <= len(text):
        return None
    found: int = text.find(part, first)
    return found


def last_index_of(text: Any, part: Any, *start: Any) -> int | None:
    """Where `part` is found last, no later than at `start`, or -1."""
    if not _texts(text, part):
        return None
    last = whole(start[0]) if start else len(text)
    if last is None or not 0 <= last <= len(text):
        return None
    found: int = text.rfind(part, 0, last + len(part))
    return found


def char_at(text: Any, at: Any) -> str | None:
    """The character there; at the very end of the text none."""
    place = whole(at)
    if not _is_text(text) or place is None or not 0 <= place <= len(text):
        return None
    return text[place : place + 1]


def reverse(text: Any) -> str | None:
    return text[::-1] if _is_text(text) else None


def join(parts: Any, separator: Any = "") -> str | None:
    """The texts of a list as one, with `separator` between them."""
    if not isinstance(parts, list | tuple) or not _texts(separator, *parts):
        return None
    if sum(map(len, parts)) + len(separator) * len(parts) > MAX_TEXT_RESULT:
        return None
    joined: str = separator.join(parts)
    return joined


def replace(text: Any, old: Any, new: Any, limit: Any = -1) -> str | None:
    """The first `limit` occurrences replaced; a negative limit means all."""
    times = whole(limit)
    if not _texts(text, old, new) or times is None:
        return None
    found = text.count(old)
    changed = found if times < 0 else min(times, found)
    if len(text) + changed * (len(new) - len(old)) > MAX_TEXT_RESULT:
        return None
    replaced: str = text.replace(old, new, changed)
    return replaced


def to_int(value: Any) -> int | None:
    """A number cut towards zero, the number that a text spells, a time's seconds since 1970."""
    number: int | None = None
    if isinstance(value, datetime):
        number = seconds_since_epoch(value)
    elif isinstance(value, str):
        number = int(value) if WHOLE.fullmatch(value) else None
    elif isinstance(value, float):
        number = int(value) if -(2.0**63) < value < 2.0**63 else None
    elif is_number(value):
        number = value
    return number if number is not None and number in INT64 else None


def to_double(value: Any) -> float | None:
    """A number with a fraction, from a number or from the text of one."""
    try:
        if isinstance(value, str):
            number = float(value) if len(value) <= 400 and DECIMAL.fullmatch(value) else None
        else:
            number = float(value) if is_number(value) else None
    except OverflowError:
        return None
    return number if number is not None and -MAX_FLOAT <= number <= MAX_FLOAT else None


def to_string(value: Any) -> str | None:
    """Numbers in the shortest form without a needless `.0`, times in RFC 3339, durations in seconds."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT_RESULT else None
    if isinstance(value, int):
        return str(value) if value in INT64 else None
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, datetime):
        return timestamp_text(value)
    return duration_text(value) if isinstance(value, timedelta) else None


def to_bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return BOOLS.get(value) if isinstance(value, str) else None


def to_duration(value: Any) -> timedelta | None:
    if isinstance(value, timedelta):
        return value
    return duration_from(value) if isinstance(value, str) else None


def to_timestamp(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else None
    if isinstance(value, str):
        return timestamp_from(value)
    seconds = whole(value)
    return timestamp_at(seconds) if seconds is not None else None


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "size": size,
    "contains": contains,
    "startsWith": starts_with,
    "endsWith": ends_with,
    "lowerAscii": lower_ascii,
    "upperAscii": upper_ascii,
    "trim": trim,
    "split": split,
    "substring": substring,
    "charAt": char_at,
    "indexOf": index_of,
    "lastIndexOf": last_index_of,
    "reverse": reverse,
    "join": join,
    "replace": replace,
    "int": to_int,
    "double": to_double,
    "string": to_string,
    "bool": to_bool,
    "duration": to_duration,
    "timestamp": to_timestamp,
    **GETTERS,
}
