"""`consent:` of workspace.yaml: purposes, and how exactly a position may be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, cast

from engine.domain.offers.rules import LocationPrecision, Precision, Purpose
from engine.formats.located_yaml import AnyNode, MapNode, Scalar
from engine.formats.workspace_labels import Labels, labels
from engine.formats.workspace_values import Problems, choice, fields, name, names

DEFAULT_PURPOSES: Final[Mapping[str, Purpose]] = {
    "marketing": Purpose(name="marketing"),
    "service": Purpose(name="service", basis="contract"),
}
"""Where a workspace says nothing of consent."""

EXACT: Final = LocationPrecision(granted="exact", denied="exact", unknown="exact")
"""Where location is no purpose that anyone is asked about."""

_PRECISIONS: Final = ("exact", "neighbourhood", "city", "none")


def consent(node: AnyNode, problems: Problems) -> tuple[Mapping[str, Purpose], LocationPrecision, Labels]:
    """The purposes by name, the precision of positions by the state of `location`, and the purposes
    that may read what carries a label."""
    found = fields(node, problems, ("purposes", "location_precision", "labels"))
    if found is None:
        return DEFAULT_PURPOSES, EXACT, {}
    purposes = DEFAULT_PURPOSES
    if "purposes" in found:
        purposes = _purposes(found["purposes"], problems)
    stated = labels(found["labels"], problems, purposes) if "labels" in found else {}
    precision = LocationPrecision() if "location" in purposes else EXACT
    if "location_precision" in found and isinstance(node, MapNode):
        if "location" not in purposes:
            key = node.entries["location_precision"].key
            problems.append(key.problem('location_precision needs a purpose "location" above'))
        precision = _precision(found["location_precision"], problems)
    return purposes, precision, stated


def _purposes(node: AnyNode, problems: Problems) -> Mapping[str, Purpose]:
    if not isinstance(node, MapNode):
        fields(node, problems, ())
        return DEFAULT_PURPOSES
    purposes = {}
    for purpose_name, entry in node.entries.items():
        name(entry.key, problems, "the name of a purpose")
        purposes[purpose_name] = _purpose(purpose_name, entry.node, problems)
    return purposes


def _purpose(purpose_name: str, node: AnyNode, problems: Problems) -> Purpose:
    if isinstance(node, Scalar) and node.value is None:
        return Purpose(name=purpose_name)
    found = fields(node, problems, ("basis", "unknown", "from")) or {}
    basis = choice(found["basis"], problems, ("consent", "contract")) if "basis" in found else None
    unknown = choice(found["unknown"], problems, ("deny", "allow")) if "unknown" in found else None
    return Purpose(
        name=purpose_name,
        basis=cast(Literal["consent", "contract"], basis or "consent"),
        unknown=cast(Literal["deny", "allow"], unknown or "deny"),
        names=frozenset(names(found["from"], problems)) if "from" in found else frozenset(),
    )


def _precision(node: AnyNode, problems: Problems) -> LocationPrecision:
    found = fields(node, problems, ("granted", "denied", "unknown")) or {}
    stated = {
        state: cast(Precision, chosen)
        for state, value in found.items()
        if (chosen := choice(value, problems, _PRECISIONS)) is not None
    }
    return LocationPrecision(**stated)
