"""How commands name a person."""

from __future__ import annotations

from pathlib import Path

from engine.app.cli.workspace import published
from engine.app.rulesets import check
from engine.app.settings import PUBLISHED, Settings
from engine.domain.people.identity import normal
from engine.domain.people.profiles import IdentityKey


def named(settings: Settings, dsn: str, namespace: str, value: str) -> IdentityKey:
    """The identity in the spelling that profiles have it in, as far as the workspace can be read."""
    try:
        checked = (
            published(dsn)
            if settings.rules == PUBLISHED
            else check(Path(settings.rules), Path(settings.models))
        )
    except OSError:
        return (namespace, value)
    if checked.ruling is None:
        return (namespace, value)
    return normal((namespace, value), checked.ruling.rules.workspace.namespaces)
