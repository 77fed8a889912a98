"""Single values of the rule language: durations, times of day, dates, money, names.

Each function returns the value, or None with a problem added. A caller that gets None leaves the
thing out and goes on, so that all problems of a workspace are found in one reading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from engine.domain.offers.cel_problems import nearest
from engine.domain.offers.rules import CalendarUnit, Window
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Node, Scalar
from engine.formats.problems import Problem, did_you_mean

Problems = list[Problem]

LONGEST_NAME: Final = 200
LONGEST_DURATION: Final = timedelta(days=3660)
MONTH: Final = timedelta(days=30.44)
"""`mo` in durations: the average month."""

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|d|mo)")
_SPOKEN_DURATION = re.compile(r"([0-9]{1,6})[ _-]*([A-Za-zµ]+)\.?")
_SPOKEN_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), (1, "s")),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), (1, "m")),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), (1, "h")),
    **dict.fromkeys(("d", "day", "days"), (1, "d")),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), (7, "d")),
    **dict.fromkeys(("mo", "mon", "month", "months"), (30, "d")),
    **dict.fromkeys(("y", "yr", "year", "years"), (365, "d")),
}
_CALENDAR: dict[str, CalendarUnit] = {"day": "day", "week": "week", "month": "month"}
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_SPOKEN_TIME = re.compile(r"([0-9]{1,2})(?:[:.h]([0-9]{2}))? *(am|pm|AM|PM)?")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_CURRENCY = re.compile(r"[A-Z]{3}")


def shown(node: AnyNode) -> str:
    """The node in a message: scalars as they stand, others by what they are."""
    if isinstance(node, Scalar):
        if node.value is None and not node.style:
            return "nothing"
        return f'"{node.text}"' if len(node.text) <= 40 else f'"{node.text[:37]}…"'
    return "a list" if isinstance(node, ListNode) else "fields"


def fields(
    node: AnyNode,
    problems: Problems,
    known: Iterable[str],
    *,
    expected: str = "fields (name: value)",
) -> dict[str, AnyNode] | None:
    """The entries of a mapping by name; None where it is none.

    A name that is nowhere is a mistake: it is reported at the name and left out.
    """
    if not isinstance(node, MapNode):
        problems.append(node.problem(f"expected {expected}, found {shown(node)}"))
        return None
    known = frozenset(known)
    entries = {}
    for name, entry in node.entries.items():
        if name in known:
            entries[name] = entry.node
        else:
            suggestion = did_you_mean(name, known)
            if suggestion is None and any(bracket in name for bracket in "()[]"):
                suggestion = "an expression with a comma or a bracket needs quotes"
            problems.append(entry.key.problem(f'unknown field "{name}"', suggestion))
    return entries


def is_misspelt(node: MapNode, words: Sequence[str]) -> bool:
    """Whether one of the words is there, misspelt: what lacks it is told of once, at that place."""
    return any(word not in words and nearest(word, words) is not None for word in node.entries)


def text(node: AnyNode, problems: Problems, what: str = "text") -> str | None:
    """A text that is not empty. Numbers and words count as the text that stands there."""
    if isinstance(node, Scalar) and (node.style or node.value is not None) and node.text.strip():
        return node.text
    problems.append(node.problem(f"expected {what}, found {shown(node)}"))
    return None


def name(node: AnyNode, problems: Problems, what: str = "a name") -> str | None:
    """A text that is short enough to be a name."""
    found = text(node, problems, what)
    if found is not None and len(found) > LONGEST_NAME:
        problems.append(node.problem(f"{what} of more than {LONGEST_NAME} characters"))
        return None
    return found


def identifier(node: Scalar, problems: Problems, what: str) -> str | None:
    """A name that expressions can say: letters, digits and underscores."""
    if _IDENTIFIER.fullmatch(node.text) and len(node.text) <= LONGEST_NAME:
        return node.text
    close = re.sub(r"\W+", "_", node.text, flags=re.ASCII).strip("_")
    suggestion = f'did you mean "{close}"?' if _IDENTIFIER.fullmatch(close) else None
    message = f"{what} is written with letters, digits and underscores: {shown(node)}"
    problems.append(node.problem(message, suggestion))
    return None


def names(node: AnyNode, problems: Problems, what: str = "names") -> tuple[str, ...]:
    """A list of names, without those that are wrong."""
    if not isinstance(node, ListNode):
        hint = f"write [{node.text}]" if isinstance(node, Scalar) and node.text else None
        problems.append(node.problem(f"expected a list of {what}, found {shown(node)}", hint))
        return ()
    found = (name(item, problems, f"one of the {what}") for item in node.items)
    return tuple(item for item in found if item is not None)


def choice(node: AnyNode, problems: Problems, options: Iterable[str]) -> str | None:
    """One of some words."""
    options = tuple(options)
    if isinstance(node, Scalar) and node.text in options:
        return node.text
    listed = ", ".join(options)
    suggestion = did_you_mean(node.text, frozenset(options)) if isinstance(node, Scalar) else None
    problems.append(node.problem(f"expected one of {listed}, found {shown(node)}", suggestion))
    return None


def number(
    node: AnyNode,
    problems: Problems,
    what: str = "a number",
    *,
    low: float | None = None,
    high: float | None = None,
) -> float | None:
    """A finite number between two bounds, both included."""
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        wanted = what if " " in what else f"a number for {what}"
        problems.append(node.problem(f"expected {wanted}, found {shown(node)}", _plain_number(node)))
        return None
    if not _is_finite(value) or (low is not None and value < low) or (high is not None and value > high):
        problems.append(node.problem(f"{what} must be {_bounds(low, high)}, found {shown(node)}"))
        return None
    return float(value)


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"between {low:,.15g} and {high:,.15g}"
    return "finite" if low is None else f"at least {low:,.15g}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _plain_number(node: AnyNode) -> str | None:
    """What a number in quotes, with a percent sign or with a currency probably means."""
    if not isinstance(node, Scalar):
        return None
    found = re.fullmatch(r"[€$£]? *([0-9]{1,12}(?:\.[0-9]{1,12})?) *(%|[€$£]|[A-Z]{3})?", node.text)
    if not found:
        return None
    value = float(found[1]) / 100 if found[2] == "%" else float(found[1])
    return f"did you mean {value:g}?"


def share(node: AnyNode, problems: Problems) -> float | None:
    """`5%`: more than nothing, at most all. As a number in (0, 1]."""
    raw = node.text if isinstance(node, Scalar) else ""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", raw)
    if found and 0.0 < float(found[1]) <= 100.0:
        return float(found[1]) / 100.0
    hint = None
    if not found and isinstance(node, Scalar) and isinstance(node.value, int | float) and node.value:
        percent = node.value * 100 if node.value <= 1 else node.value
        hint = f"did you mean {percent:g}%?" if 0 < percent <= 100 else None
    message = "a share must be more than 0% and at most 100%" if found else "expected a share such as 5%"
    problems.append(node.problem(f"{message}, found {shown(node)}", hint))
    return None


def whole(node: AnyNode, problems: Problems, what: str, *, low: int = 1) -> int | None:
    """A whole number, at least `low`."""
    value = number(node, problems, what, low=low, high=1_000_000_000)
    if value is not None and not value.is_integer():
        problems.append(node.problem(f"{what} must be a whole number, found {shown(node)}"))
        return None
    return None if value is None else int(value)


def flag(node: AnyNode, problems: Problems) -> bool | None:
    """true or false; `yes` and `on` are text in YAML 1.2."""
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    word = node.text.lower() if isinstance(node, Scalar) else ""
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(word)
    suggestion = f"did you mean {meant}?" if meant else None
    problems.append(node.problem(f"expected true or false, found {shown(node)}", suggestion))
    return None


def duration(node: AnyNode, problems: Problems, *, months: bool = False) -> timedelta | None:
    """`90s`, `5m`, `2h`, `7d`, and `13mo` where `months` are allowed."""
    raw = node.text if isinstance(node, Scalar) else ""
    found = _DURATION.fullmatch(raw)
    if found and (months or found[2] != "mo"):
        amount = float(found[1])
        span = amount * (MONTH if found[2] == "mo" else _UNITS[found[2]])
        if timedelta(0) < span <= LONGEST_DURATION:
            return span
        bound = "longer than nothing" if amount == 0 else f"at most {LONGEST_DURATION.days}d"
        problems.append(node.problem(f"a duration must be {bound}, found {shown(node)}"))
        return None
    examples = "90s, 5m, 2h or 7d" + (" or 13mo" if months else "")
    message = f"expected a duration such as {examples}, found {shown(node)}"
    problems.append(node.problem(message, _meant_duration(raw)))
    return None


def duration_of(text: str) -> timedelta | None:
    """`90s`, `5m`, `2h`, `7d` as a command takes it; None for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None or found[2] == "mo":
        return None
    span = float(found[1]) * _UNITS[found[2]]
    return span if timedelta(0) < span <= LONGEST_DURATION else None


def _meant_duration(raw: str) -> str | None:
    spoken = _SPOKEN_DURATION.fullmatch(raw.strip())
    known = _SPOKEN_UNITS.get(spoken[2].lower()) if spoken else None
    if spoken and known:
        factor, unit = known
        return f"did you mean {int(spoken[1]) * factor}{unit}?"
    if raw.isdigit() and len(raw) <= 6:
        return f"add a unit: {raw}s, {raw}m, {raw}h or {raw}d"
    return None


def window(node: AnyNode, problems: Problems) -> Window | None:
    """A rolling duration, or `day`, `week`, `month` of the person's local time."""
    raw = node.text if isinstance(node, Scalar) else ""
    if raw in _CALENDAR:
        return Window(calendar=_CALENDAR[raw], text=raw)
    if not _DURATION.fullmatch(raw):
        suggestion = _meant_duration(raw) or did_you_mean(raw, frozenset(_CALENDAR))
        message = f"expected day, week, month or a duration such as 7d, found {shown(node)}"
        problems.append(node.problem(message, suggestion))
        return None
    span = duration(node, problems)
    return None if span is None else Window(rolling=span, text=raw)


def time_of_day(node: AnyNode, problems: Problems) -> time | None:
    """`"21:00"`, 24 hours."""
    raw = node.text if isinstance(node, Scalar) else ""
    found = _TIME.fullmatch(raw)
    if found:
        return time(int(found[1]), int(found[2]))
    problems.append(
        node.problem(f'expected a time of day such as "21:00", found {shown(node)}', _meant_time(raw))
    )
    return None


def _meant_time(raw: str) -> str | None:
    if raw == "24:00":
        return 'midnight is "00:00"'
    spoken = _SPOKEN_TIME.fullmatch(raw.strip())
    if not spoken:
        return None
    hour, minute = int(spoken[1]), int(spoken[2] or 0)
    if spoken[3]:
        hour = hour % 12 + (12 if spoken[3].lower() == "pm" else 0)
    return f'did you mean "{hour:02}:{minute:02}"?' if hour < 24 and minute < 60 else None


def moment(node: AnyNode, problems: Problems, zone: tzinfo, *, end: bool = False) -> datetime | None:
    """A date, or a timestamp with its offset, as UTC. A date is the day in `zone`: its beginning,
    or with `end` the end of it, so that an offer that ends on a day still holds on that day."""
    raw = node.text if isinstance(node, Scalar) else ""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", raw):
            day = date.fromisoformat(raw) + timedelta(days=1 if end else 0)
            return datetime.combine(day, time(0), zone).astimezone(UTC)
        found = datetime.fromisoformat(raw) if len(raw) > 10 else None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        found = None
    hint = f"add the time zone: {raw}Z" if found is not None else None
    message = (
        f"expected a date such as 2026-11-01 or a time such as 2026-11-01T09:00:00Z, found {shown(node)}"
    )
    problems.append(node.problem(message, hint))
    return None


def time_zone(node: AnyNode, problems: Problems) -> str | None:
    """The name of a time zone, such as Europe/Dublin."""
    found = text(node, problems, "a time zone such as Europe/Dublin")
    if found is None:
        return None
    try:
        ZoneInfo(found)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        suggestion = did_you_mean(found, frozenset(available_timezones()))
        problems.append(node.problem(f'unknown time zone "{found}"', suggestion))
        return None
    return found


def currency(node: Scalar | AnyNode, problems: Problems) -> str | None:
    """Three capital letters, such as EUR."""
    raw = node.text if isinstance(node, Scalar) else ""
    if _CURRENCY.fullmatch(raw):
        return raw
    close = {"€": "EUR", "$": "USD", "£": "GBP"}.get(raw, raw.upper())
    suggestion = f"did you mean {close}?" if _CURRENCY.fullmatch(close) else None
    problems.append(node.problem(f"expected a currency such as EUR, found {shown(node)}", suggestion))
    return None


def is_language(tag: str) -> bool:
    """Whether it looks like a language tag: `en`, `pt-BR`."""
    return _LANGUAGE.fullmatch(tag) is not None


def unresolved(node: Node, kind: str, word: str, candidates: Iterable[str]) -> Problem:
    """A name that stands for nothing."""
    return node.problem(f'there is no {kind} "{word}"', did_you_mean(word, frozenset(candidates)))
