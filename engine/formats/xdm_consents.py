"""`consents` and the workspace's purposes.

Each choice is a statement under its place, `marketing.push`, and by the last part of that, `push`;
`personalize.content` also by `personalize`. A purpose listens to those that are its name or stand in
its `from`. `marketing` alone is what somebody allowed of what the engine does: `any` and, unless a
purpose of its own listens to it, `push`; one no is a no. `y` grants; `n` and `dn` deny; all else says
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from engine.domain.offers.rules import Purpose
from engine.domain.people.profiles import Consent
from engine.formats.segment_time import parse_time
from engine.formats.xdm_fields import Path, at, object_at, with_field

DO_NOT_SELL: Final = "do_not_sell"
"""The trait that says whether what is known may be given to others: `consents.share`, the other way."""
SHARE: Final = ("share",)
_ANY: Final = ("marketing", "any")
_PUSH: Final = ("marketing", "push")
_PLACES: Final = (("collect",), SHARE, ("adID",), ("personalize", "content"), _ANY, _PUSH)
_GRANTED: Final = {"y": True, "n": False, "dn": False}


def statements(consents: Any, purposes: Mapping[str, Purpose]) -> tuple[dict[str, bool], dict[str, datetime]]:
    """What was said by name, and when, where it was said when."""
    said: dict[str, bool] = {}
    when: dict[str, datetime] = {}
    whole = parse_time(at(consents, "metadata", "time"))
    for path, choice in _choices(consents):
        granted = _granted(choice)
        if granted is None:
            continue
        time = parse_time(choice.get("time")) or whole
        for name in names_of(path, purposes):
            said[name] = granted and said.get(name, True)
            if time is not None:
                when[name] = max(time, when.get(name, time))
    return said, when


def own_statements(consents: Mapping[str, Any]) -> tuple[dict[str, bool], dict[str, datetime]]:
    """The same of purposes that XDM has no place for, as `written` puts them aside."""
    said = {name: granted for name, choice in consents.items() if (granted := _granted(choice)) is not None}
    times = {name: parse_time(at(consents, name, "time")) for name in said}
    return said, {name: time for name, time in times.items() if time is not None}


def names_of(path: Path, purposes: Mapping[str, Purpose]) -> tuple[str, ...]:
    """The names that the choice at a place is heard under."""
    dotted = ".".join(path)
    if path == _ANY:
        return (dotted, "marketing")
    if path == _PUSH and not any({"push", dotted} & {p.name, *p.names} for p in purposes.values()):
        return (dotted, "push", "marketing")
    if path[0] == "marketing":
        return (dotted, path[1])
    return (dotted, "personalize") if path[0] == "personalize" else (dotted,)


def share_denied(consents: Any) -> bool | None:
    """Whether what is known must not be given to others; None where nothing is said of it."""
    granted = _granted(at(consents, *SHARE))
    return None if granted is None else not granted


def written(
    sent: Any, consent: Mapping[str, Consent], purposes: Mapping[str, Purpose], do_not_sell: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The consents that were `sent` with what was said otherwise since, and the purposes that XDM has no
    place for, by name."""
    found: dict[str, Any] = dict(sent) if isinstance(sent, Mapping) else {}
    rest: dict[str, Any] = {}
    said, _ = statements(sent, purposes)
    for name, statement in consent.items():
        purpose = purposes.get(name) or Purpose(name=name)
        heard = {purpose.name, *purpose.names}
        told = [granted for word, granted in said.items() if word in heard]
        if told and all(told) == statement.granted:
            continue
        places = [path for path in _places(found) if heard & set(names_of(path, purposes))]
        choice = {"val": "y" if statement.granted else "n", "time": statement.at.isoformat()}
        if not places:
            rest[name] = choice
        stated = [path for path in places if isinstance(at(found, *path), Mapping)]
        for path in stated or places[:1]:
            found = with_field(found, path, {**object_at(found, *path), **choice})
    if isinstance(do_not_sell, bool) and share_denied(found) is not do_not_sell:
        found = with_field(found, SHARE, {**object_at(found, *SHARE), "val": "n" if do_not_sell else "y"})
    return found, rest


def _places(consents: Any) -> list[Path]:
    """Where choices can stand: those that are made, and the others."""
    stated = [path for path, _ in _choices(consents)]
    return [*stated, *(path for path in _PLACES if path not in stated)]


def _choices(consents: Any) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    if not isinstance(consents, Mapping):
        return
    for path in (("collect",), SHARE, ("adID",), ("personalize", "content")):
        if isinstance(choice := at(consents, *path), Mapping):
            yield path, choice
    marketing = consents.get("marketing")
    for channel, choice in marketing.items() if isinstance(marketing, Mapping) else ():
        if isinstance(choice, Mapping):
            yield ("marketing", channel), choice


def _granted(choice: Any) -> bool | None:
    value = at(choice, "val")
    return _GRANTED.get(value) if isinstance(value, str) else None
