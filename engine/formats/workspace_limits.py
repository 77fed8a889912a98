"""What an offer is limited by: its budget, its voucher codes, and those who took it up already."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.offers.rules import Budget, Converts
from engine.formats.located_yaml import AnyNode, MapNode
from engine.formats.workspace_names import OFFER, Declared, event_names
from engine.formats.workspace_patterns import pattern
from engine.formats.workspace_values import Problems, duration, fields, name, whole, window

UNCOUNTED: Final = "is not counted across people by this version: the offer is never made"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    converts: Converts | None = None
    again_after: timedelta | None = None
    budget: Budget | None = None
    hold: timedelta | None = None
    pool: str | None = None


def limits(node: MapNode, found: Mapping[str, AnyNode], problems: Problems, declared: Declared) -> Limits:
    """What an offer says of its limits. What cannot be counted exactly is said to be so."""
    converts = _converts(found["converts"], problems, declared) if "converts" in found else None
    again_after = duration(found["again_after"], problems) if "again_after" in found else None
    if "again_after" in found and "converts" not in found:
        hint = "add converts: {event: NAME, within: 2h}"
        problems.append(node.entries["again_after"].key.problem('"again_after" needs "converts"', hint))
    budget = _budget(found["budget"], problems) if "budget" in found else None
    pool = _pool(found["code"], problems) if "code" in found else None
    hold = duration(found["hold"], problems) if "hold" in found else None
    if "hold" in found and "budget" not in found and "code" not in found:
        problems.append(node.entries["hold"].key.problem('"hold" needs a "budget" or a "code" to hold'))
    for word in ("budget", "code"):
        if word in found:
            warning = node.entries[word].key.problem(f'"{word}" {UNCOUNTED}')
            problems.append(msgspec.structs.replace(warning, severity="warning"))
    return Limits(converts=converts, again_after=again_after, budget=budget, hold=hold, pool=pool)


def _converts(node: AnyNode, problems: Problems, declared: Declared) -> Converts | None:
    found = pattern(
        node, problems, declared, lambda below: {**event_names(below), "offer": OFFER}, ("within",)
    )
    within = None
    if isinstance(node, MapNode) and "within" in node.entries:
        within = duration(node.entries["within"].node, problems)
    else:
        hint = "how long after the offer it still counts: within: 2h"
        problems.append(node.problem('"within" is missing', hint))
    return None if found is None or within is None else Converts(pattern=found, within=within)


def _budget(node: AnyNode, problems: Problems) -> Budget | None:
    found = fields(node, problems, ("times", "per"), expected="a budget such as {times: 500, per: day}")
    if found is None:
        return None
    missing = [word for word in ("times", "per") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    times = whole(found["times"], problems, "times") if "times" in found else None
    per = window(found["per"], problems) if "per" in found else None
    return None if times is None or per is None else Budget(times=times, per=per)


def _pool(node: AnyNode, problems: Problems) -> str | None:
    found = fields(node, problems, ("pool",), expected="{pool: NAME}")
    if found is None:
        return None
    if "pool" not in found:
        problems.append(node.problem('"pool" is missing'))
        return None
    return name(found["pool"], problems, "the name of a pool of codes")
