"""Fields of a record by their path, `("person", "name", "firstName")`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]


def at(record: Any, *path: str) -> Any:
    """What stands there; None where nothing does."""
    for step in path:
        record = record.get(step) if isinstance(record, dict) else None
    return record


def text_at(record: Any, *path: str) -> str | None:
    found = at(record, *path)
    return found if isinstance(found, str) and found else None


def number_at(record: Any, *path: str) -> float | None:
    found = at(record, *path)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def object_at(record: Any, *path: str) -> dict[str, Any]:
    found = at(record, *path)
    return found if isinstance(found, dict) else {}


def with_field(record: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """The record with `value` there, and objects on the way to it."""
    name, *rest = path
    if rest:
        value = with_field(object_at(record, name), tuple(rest), value)
    return {**record, name: value}


def without_field(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The record without what stands there, and without the objects that held nothing else."""
    name, *rest = path
    if rest and isinstance(record.get(name), dict):
        below = without_field(record[name], tuple(rest))
        if below:
            return {**record, name: below}
    return {key: value for key, value in record.items() if key != name}
