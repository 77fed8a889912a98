"""Scenario files: who walks where, what the app reports on the way, and what must be decided.

This version reads as much as `viewfinder demo` plays: a profile, a track, events at offsets from
the track's start, and the expected decisions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from engine.formats.located_yaml import AnyNode, ListNode, MapNode, Scalar, read
from engine.formats.problems import Problem

_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision that must be made. What is left out may be anything."""

    outcome: str
    rule: str | None = None
    offer: str | None = None
    reason: str | None = None
    geofence: str | None = None

    def agrees(self, decision: Mapping[str, Any]) -> bool:
        stated = msgspec.structs.asdict(self)
        return all(decision.get(name) == value for name, value in stated.items() if value is not None)


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One story. `events` are calls of the Segment protocol with `at`, the offset from the start,
    beside their fields; `strict` lists suppressed decisions too."""

    name: str
    profile: dict[str, Any]
    track: str
    events: list[dict[str, Any]] = []
    expect: list[Expected] = []
    strict: bool = False


class _Scenarios(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tests: list[Scenario]


def read_scenarios(file: str, data: bytes) -> tuple[tuple[Scenario, ...], tuple[Problem, ...]]:
    """The scenarios of a file, or what is wrong with it."""
    problems: list[Problem] = []
    root = read(file, data, problems)
    if root is None or problems:
        return (), tuple(problems)
    try:
        scenarios = msgspec.convert(plain(root), _Scenarios)
    except msgspec.ValidationError as fault:
        return (), (root.problem(str(fault)),)
    return tuple(scenarios.tests), ()


def plain(node: AnyNode) -> Any:
    """The values of a YAML node without their places."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    assert isinstance(node, MapNode)
    return {key: plain(entry.node) for key, entry in node.entries.items()}


def offset(text: str) -> timedelta:
    """`+12m`, `+1h30m`, `+45s` from the start.

    Raises:
        ValueError: it is none of these.
    """
    parts = _PART.findall(text)
    if not text.startswith("+") or "+" + "".join(n + unit for n, unit in parts) != text:
        raise ValueError(f"{text!r} is no offset such as +12m")
    return timedelta(seconds=sum(float(n) * _SECONDS[unit] for n, unit in parts))
