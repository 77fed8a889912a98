"""How commands name a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.app.cli.workspace import published
from engine.app.rulesets import check
from engine.app.settings import PUBLISHED, Settings
from engine.domain.offers.rules import Namespace
from engine.domain.people.identity import normal
from engine.domain.people.profiles import IdentityKey


def named(settings: Settings, dsn: str, namespace: str, value: str) -> IdentityKey:
    """The identity in the spelling that profiles have it in, as far as the workspace can be read."""
    return normal((namespace, value), namespaces(settings, dsn))


def namespaces(settings: Settings, dsn: str) -> Sequence[Namespace]:
    """The workspace's kinds of identity; none where it cannot be read."""
    try:
        checked = (
            published(dsn)
            if settings.rules == PUBLISHED
            else check(Path(settings.rules), Path(settings.models))
        )
    except OSError:
        return ()
    return checked.ruling.rules.workspace.namespaces if checked.ruling is not None else ()
