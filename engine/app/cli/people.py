"""How commands name a person."""

from __future__ import annotations

from pathlib import Path

from engine.app.rulesets import check
from engine.app.settings import Settings
from engine.domain.people.identity import normal
from engine.domain.people.profiles import IdentityKey


def named(settings: Settings, namespace: str, value: str) -> IdentityKey:
    """The identity in the spelling that profiles have it in, as far as the workspace can be read."""
    try:
        checked = check(Path(settings.rules), Path(settings.models))
    except OSError:
        return (namespace, value)
    if checked.ruling is None:
        return (namespace, value)
    return normal((namespace, value), checked.ruling.rules.workspace.namespaces)
