"""Stated traits: what a value means under its declaration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from engine.domain.offers.rules import TraitDeclaration
from engine.domain.offers.scope import UNKNOWN


def typed(value: Any, declaration: TraitDeclaration) -> Any:
    """A stated value as its declared type, or UNKNOWN where it is of another."""
    match declaration.type:
        case "string":
            return value if isinstance(value, str) else UNKNOWN
        case "boolean":
            return value if isinstance(value, bool) else UNKNOWN
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else UNKNOWN
        case "list":
            return value if isinstance(value, list) else UNKNOWN
        case "timestamp":
            return _timestamp(value)


def _timestamp(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return UNKNOWN
    if not isinstance(value, datetime):
        return UNKNOWN
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # at the edge of the calendar
        return UNKNOWN
