"""workspace.yaml: time, money, caps, consent, identities, traits, retention."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from engine.domain.offers.rules import (
    Cap,
    Computed,
    LocationPrecision,
    Namespace,
    Purpose,
    QuietHours,
    TraitDeclaration,
    Workspace,
)
from engine.domain.people.counting import stamp_of
from engine.formats.located_yaml import AnyNode, Entry, ListNode, MapNode
from engine.formats.workspace_caps import caps
from engine.formats.workspace_computed import computed
from engine.formats.workspace_consent import DEFAULT_PURPOSES, EXACT, consent
from engine.formats.workspace_identities import DEFAULT_NAMESPACES, identities, traits
from engine.formats.workspace_labels import Labels, check_declared
from engine.formats.workspace_names import ACCOUNT, Declared
from engine.formats.workspace_values import (
    MONTH,
    Problems,
    choice,
    currency,
    duration,
    fields,
    number,
    share,
    shown,
    time_of_day,
    time_zone,
)

FIELDS: Final = frozenset(
    (
        "timezone",
        "currency",
        "rates",
        "quiet_hours",
        "caps",
        "holdout",
        "consent",
        "retention",
        "after_erasure",
        "identities",
        "events",
        "traits",
        "computed",
        "accounts",
    )
)

DEFAULT_RETENTION: Final[Mapping[str, timedelta]] = {
    "events": 13 * MONTH,
    "positions": timedelta(days=30),
    "offered": 13 * MONTH,
    "suppressed": timedelta(days=7),
}


def settings(entries: Mapping[str, Entry], problems: Problems) -> Workspace:
    """Everything of workspace.yaml but the computed traits, which need the geofences."""
    nodes = {key: entry.node for key, entry in entries.items()}
    purposes, precision, stated = _consent(nodes, problems)
    zone = time_zone(nodes["timezone"], problems) if "timezone" in nodes else None
    money = currency(nodes["currency"], problems) if "currency" in nodes else None
    declared: Mapping[str, TraitDeclaration] = {}
    namespaces: tuple[Namespace, ...] = DEFAULT_NAMESPACES
    if "identities" in nodes:
        namespaces = identities(nodes["identities"], problems, zone or "UTC")
    if "traits" in nodes:
        declared = traits(nodes["traits"], problems)
        check_declared(entries["traits"], declared, stated, problems)
    dropped = False
    if "after_erasure" in nodes:
        dropped = choice(nodes["after_erasure"], problems, ("unlinked", "drop")) == "drop"
    return Workspace(
        timezone=zone or "UTC",
        currency=money or "EUR",
        rates=_rates(nodes["rates"], problems) if "rates" in nodes else {},
        quiet_hours=_quiet_hours(nodes["quiet_hours"], problems) if "quiet_hours" in nodes else None,
        caps=_caps(nodes["caps"], problems, purposes) if "caps" in nodes else (),
        holdout=(share(nodes["holdout"], problems) if "holdout" in nodes else None) or 0.0,
        purposes=purposes,
        location_precision=precision,
        labels=stated,
        namespaces=namespaces,
        server_only=_server_only(nodes["events"], problems) if "events" in nodes else frozenset(),
        traits=declared,
        drops_erased=dropped,
        retention=_retention(nodes["retention"], problems) if "retention" in nodes else DEFAULT_RETENTION,
    )


def with_computed(
    workspace: Workspace,
    entries: Mapping[str, Entry],
    problems: Problems,
    declared: Declared,
    own: tuple[Computed, ...],
) -> Workspace:
    """The workspace with its computed traits, of people and of accounts. `own` are built in."""
    stated = entries.get("traits")
    listed = stated.node.entries if stated is not None and isinstance(stated.node, MapNode) else None
    taken = workspace.traits if listed is None else listed
    people: tuple[Computed, ...] = ()
    accounts: tuple[Computed, ...] = ()
    if (entry := entries.get("computed")) is not None:
        people = computed(entry.node, problems, declared, frozenset(taken))
    if (entry := entries.get("accounts")) is not None:
        found = fields(entry.node, problems, ("computed",), expected="fields such as {computed: {…}}") or {}
        if "computed" in found:
            accounts = computed(found["computed"], problems, declared, frozenset())
            _check_free(found["computed"], problems)
    people += own
    return msgspec.structs.replace(
        workspace, computed=people, counted_stamp=stamp_of(people), account_computed=accounts
    )


def _check_free(node: AnyNode, problems: Problems) -> None:
    """No roll-up may have the name of something that every account has."""
    for word, entry in node.entries.items() if isinstance(node, MapNode) else ():
        if word in ACCOUNT:
            problems.append(entry.key.problem(f'every account has "{word}" already'))


def _consent(
    nodes: Mapping[str, AnyNode], problems: Problems
) -> tuple[Mapping[str, Purpose], LocationPrecision, Labels]:
    if "consent" not in nodes:
        return DEFAULT_PURPOSES, EXACT, {}
    return consent(nodes["consent"], problems)


def _caps(node: AnyNode, problems: Problems, purposes: Mapping[str, Purpose]) -> tuple[Cap, ...]:
    if not isinstance(node, ListNode):
        problems.append(node.problem(f"expected a list of caps, found {shown(node)}"))
        return ()
    return caps(node, problems, ("channel", "purpose"), purposes)


def _rates(node: AnyNode, problems: Problems) -> Mapping[str, float]:
    if not isinstance(node, MapNode):
        fields(node, problems, (), expected="rates such as {USD: 0.92}")
        return {}
    rates = {}
    for entry in node.entries.values():
        code = currency(entry.key, problems)
        rate = number(entry.node, problems, "a rate", low=0)
        if rate == 0:
            problems.append(entry.node.problem("a rate must be more than 0"))
        if code is not None and rate:
            rates[code] = rate
    return rates


def _quiet_hours(node: AnyNode, problems: Problems) -> QuietHours | None:
    found = fields(node, problems, ("from", "to", "then"))
    if found is None:
        return None
    missing = [word for word in ("from", "to") if word not in found]
    problems.extend(node.problem(f'"{word}" is missing') for word in missing)
    then = choice(found["then"], problems, ("defer", "drop")) if "then" in found else None
    start = time_of_day(found["from"], problems) if "from" in found else None
    end = time_of_day(found["to"], problems) if "to" in found else None
    if start is None or end is None:
        return None
    if start == end:
        problems.append(found["to"].problem("quiet hours that end when they begin"))
    return QuietHours(start, end, then == "defer")


def _server_only(node: AnyNode, problems: Problems) -> frozenset[str]:
    if not isinstance(node, MapNode):
        fields(node, problems, (), expected="events such as Order Completed: {from: server}")
        return frozenset()
    found = set()
    for event_name, entry in node.entries.items():
        stated = fields(entry.node, problems, ("from",), expected="{from: server}") or {}
        if "from" in stated and choice(stated["from"], problems, ("server",)) is not None:
            found.add(event_name)
    return frozenset(found)


def _retention(node: AnyNode, problems: Problems) -> Mapping[str, timedelta]:
    found = fields(node, problems, DEFAULT_RETENTION) or {}
    stated = {
        what: span
        for what, value in found.items()
        if (span := duration(value, problems, months=True)) is not None
    }
    return {**DEFAULT_RETENTION, **stated}
