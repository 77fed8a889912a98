"""Frequency caps, of the workspace and of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from engine.domain.offers.expressions import Names
from engine.domain.offers.rules import Cap, Channel, Counted, Purpose
from engine.formats.located_yaml import AnyNode, ListNode, Scalar
from engine.formats.workspace_patterns import by_path
from engine.formats.workspace_values import Problems, choice, fields, unresolved, whole, window


def caps(
    node: AnyNode,
    problems: Problems,
    extra: tuple[str, ...] = ("by",),
    purposes: Mapping[str, Purpose] | None = None,
    below: Names | None = None,
) -> tuple[Cap, ...]:
    """One cap or a list of them. `extra` are further fields that may stand here: those of a rule's
    cap, unless given. `below` are the names below `geofence`, for a rule that has one."""
    items = node.items if isinstance(node, ListNode) else (node,)
    found = (_cap(item, problems, extra, purposes or {}, below) for item in items)
    return tuple(cap for cap in found if cap is not None)


def _cap(
    node: AnyNode,
    problems: Problems,
    extra: tuple[str, ...],
    purposes: Mapping[str, Purpose],
    below: Names | None,
) -> Cap | None:
    known = ("times", "per", "count", *extra)
    found = fields(node, problems, known, expected="a cap such as {times: 1, per: 7d}")
    if found is None:
        return None
    missing = [word for word in ("times", "per") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    times = whole(found["times"], problems, "times") if "times" in found else None
    per = window(found["per"], problems) if "per" in found else None
    channel = purpose = count = by = None
    of_account = False
    if "count" in found:
        count = choice(found["count"], problems, ("offered", "delivered", "shown"))
    if "channel" in found:
        channel = choice(found["channel"], problems, ("push", "in_app"))
    if "by" in found:
        of_account = isinstance(found["by"], Scalar) and found["by"].text == "account"
        by = by_path(found["by"], problems, below) if not of_account else None
    if "purpose" in found:
        purpose = _purpose(found["purpose"], problems, purposes)
    if times is None or per is None:
        return None
    return Cap(
        times=times,
        per=per,
        channel=cast(Channel | None, channel),
        purpose=purpose,
        by=by,
        of_account=of_account,
        count=cast(Counted | None, count) or "offered",
    )


def _purpose(node: AnyNode, problems: Problems, purposes: Mapping[str, Purpose]) -> str | None:
    word = node.text if isinstance(node, Scalar) else ""
    if word in purposes:
        return word
    problems.append(unresolved(node, "purpose", word, purposes))
    return None
