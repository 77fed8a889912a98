"""What rules may ask of somebody's app without declaring it: computed traits that are always the same.

They follow the events that SDKs send by themselves (Segment's mobile lifecycle and `Install Attributed`),
and are counted in workspaces that name them only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final

from engine.domain.offers.expressions import Names, Type, compile_expression
from engine.domain.offers.patterns import Pattern, TriggerKind
from engine.domain.offers.rules import Computed, ComputedKind
from engine.domain.people.counting import DIGEST_BYTES
from engine.formats.workspace_names import counted_names

_OPENED: Final = "$app.opened_at"
_LEFT: Final = "$app.left_at"
_LONGEST_HOURS: Final = 24
"""Of one stay in the app; what seems longer had its end lost."""

_STATE: Final[Names] = {"profile": {"since": Type.TIMESTAMP, "until": Type.TIMESTAMP}}
_STAY: Final = (
    "event.timestamp > profile.since"
    f' && event.timestamp - profile.since < duration("{_LONGEST_HOURS}h")'
    " && (!has(profile.until) || profile.until < profile.since)"
)


def built_in(texts: Iterable[bytes]) -> tuple[Computed, ...]:
    """The built-in traits that a workspace of these files may ask for."""
    texts = tuple(texts)
    return tuple(
        trait
        for word, traits in _TRAITS.items()
        if any(word.encode() in text for text in texts)
        for trait in traits
    )


def _trait(
    name: str,
    kind: ComputedKind,
    event: str,
    value: str = "",
    condition: str = "",
    of: str = "",
    over: str = "",
) -> Computed:
    names = {**counted_names(None), **(_STATE if of else {})}
    written = "\0".join((name, kind, event, value, condition))
    return Computed(
        name=name,
        kind=kind,
        pattern=Pattern(
            kind=TriggerKind.EVENT,
            name=event,
            condition=compile_expression(condition, names, expect=Type.BOOL) if condition else None,
        ),
        value=compile_expression(value, names) if value else None,
        of=of,
        over=over,
        digest=blake2b(written.encode(), digest_size=DIGEST_BYTES).digest(),
    )


def _attributed(member: str, names: Iterable[str]) -> Computed:
    """Of an installation: what the attribution provider says, else the campaign that the SDK does."""
    said = [f"event.{place}.campaign.{name}" for place in ("properties", "context") for name in names]
    value = said[-1]
    for path in reversed(said[:-1]):
        value = f"has({path}) ? {path} : ({value})"
    return _trait(f"attribution.{member}", ComputedKind.LAST, "Install Attributed", value)


_TRAITS: Final[Mapping[str, tuple[Computed, ...]]] = {
    "sessions": (_trait("sessions", ComputedKind.COUNT, "Application Opened"),),
    "installed_at": (_trait("installed_at", ComputedKind.FIRST, "Application Installed", "event.timestamp"),),
    "seconds_in_app": (
        _trait(_OPENED, ComputedKind.LAST, "Application Opened", "event.timestamp"),
        _trait(_LEFT, ComputedKind.LAST, "Application Backgrounded", "event.timestamp"),
        _trait(
            "seconds_in_app",
            ComputedKind.SUM,
            "Application Backgrounded",
            "(event.timestamp - profile.since).getSeconds()",
            _STAY,
            of=_OPENED,
            over=_LEFT,
        ),
    ),
    "attribution": (
        _attributed("source", ("source",)),
        _attributed("medium", ("medium",)),
        _attributed("campaign", ("name", "campaign")),
    ),
}
