"""`open:` of geofences: hours on every day, or by weekday, on the clock of the place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tzfpy import get_tz

from engine.domain.places.opening import DAY_MINUTES, WEEKDAYS, Span
from engine.domain.places.outline import outline
from engine.domain.places.shapes import Circle, Extended
from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar
from engine.formats.workspace_values import Problems, fields, shown

Hours = tuple[tuple[Span, ...], ...]
"""The spans of each weekday, Monday first."""

_SPAN: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)")
_CLOSED: Final = "closed"


def opening(node: AnyNode, problems: Problems) -> Hours | None:
    """`{daily: "06:00-22:00", sun: closed, sat: ["08:00-12:00", "14:00-18:00"]}`. A weekday stands
    before `daily`; without `daily` the days not named are closed. Past midnight belongs to the day
    on which it began."""
    expected = 'hours such as {daily: "06:00-22:00", sun: closed}'
    found = fields(node, problems, ("daily", *WEEKDAYS), expected=expected)
    if found is None:
        return None
    if isinstance(node, MapNode) and not node.entries:
        problems.append(node.problem(f"expected {expected}, found nothing"))
        return None
    before = len(problems)
    spans: Mapping[str, tuple[Span, ...]] = {word: _spans(of, problems) for word, of in found.items()}
    if len(problems) > before:
        return None
    daily = spans.get("daily", ())
    return tuple(spans.get(day, daily) for day in WEEKDAYS)


def zone_of(shape: Extended) -> str:
    """The time zone in which the middle of a shape lies."""
    middle = shape if isinstance(shape, Circle) else outline(shape)
    return get_tz(middle.longitude, middle.latitude)


def _spans(node: AnyNode, problems: Problems) -> tuple[Span, ...]:
    if isinstance(node, ListNode):
        return tuple(span for item in node.items for span in _span(item, problems))
    return () if isinstance(node, Scalar) and node.text == _CLOSED else _span(node, problems)


def _span(node: AnyNode, problems: Problems) -> tuple[Span, ...]:
    said = _SPAN.fullmatch(node.text) if isinstance(node, Scalar) else None
    if said is None:
        message = f'expected hours such as "06:00-22:00", or closed, found {shown(node)}'
        problems.append(node.problem(message, _meant(node)))
        return ()
    start = int(said[1]) * 60 + int(said[2])
    end = DAY_MINUTES if said[3] is None else int(said[3]) * 60 + int(said[4])
    if end == start:
        problems.append(node.problem('these hours begin where they end: all day is "00:00-24:00"'))
    return ((start, end if end > start else end + DAY_MINUTES),)


def _meant(node: AnyNode) -> str | None:
    """What hours written in another way probably mean."""
    word = r" *([0-9]{1,2})(?:[:.h]?([0-9]{2}))? *"
    said = re.fullmatch(f"{word}(?:-|–|to|until){word}", node.text) if isinstance(node, Scalar) else None
    if said is None:
        return None
    start, end = (f"{int(said[k]):02}:{said[k + 1] or '00'}" for k in (1, 3))
    close = f"{start}-{end}"
    return f'did you mean "{close}"?' if _SPAN.fullmatch(close) else None
