"""`identityMap` and the workspace's identities.

A namespace of the map is one of the workspace by its name, whatever the case, or by what Adobe calls
it: ECID is `anonymous_id`, Email and Phone are `email` and `phone`, CRMID is `user_id`. Others are kept
and name nobody. Who is logged out is not who acts: such an identity counts only where there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from engine.domain.offers.rules import Namespace
from engine.domain.people.identity import normal
from engine.domain.people.profiles import IdentityKey
from engine.formats.segment_event import identifier

_BY_ID: Final = "https://data.adobe.io/entities/namespace/"
_MEANT: Final = {
    "ecid": "anonymous_id",
    "mcid": "anonymous_id",
    "anonymousid": "anonymous_id",
    _BY_ID + "4": "anonymous_id",
    "email": "email",
    _BY_ID + "6": "email",
    "phone": "phone",
    "phone_e.164": "phone",
    _BY_ID + "7": "phone",
    "crmid": "user_id",
    "crm_id": "user_id",
    "crm": "user_id",
    "userid": "user_id",
}
_CODES: Final = {"user_id": "CRMID", "anonymous_id": "ECID", "email": "Email", "phone": "Phone"}


class Named(msgspec.Struct, frozen=True):
    """Whom a record is about."""

    user_id: str | None = None
    anonymous_id: str | None = None
    others: tuple[IdentityKey, ...] = ()

    @property
    def keys(self) -> tuple[IdentityKey, ...]:
        own = (("user_id", self.user_id), ("anonymous_id", self.anonymous_id))
        return (*((name, value) for name, value in own if value is not None), *self.others)

    def __repr__(self) -> str:
        return "Named(…)"


def named(identity_map: Any, namespaces: Sequence[Namespace]) -> Named:
    """Whom an identityMap names. Of what a person has one only, the primary counts, else the first."""
    spelling = {namespace.name: namespace.normal for namespace in namespaces}
    stated = [
        (name, value, item)
        for code, items in _entries(identity_map)
        if (name := namespace_of(code, namespaces)) is not None
        for item in items
        if isinstance(item, Mapping) and (value := _value(item, spelling[name])) is not None
    ]
    present = [one for one in stated if one[2].get("authenticatedState") != "loggedOut"]
    stated = sorted(present or stated, key=lambda one: one[2].get("primary") is not True)
    values: dict[str, list[str]] = {}
    for name, value, _ in stated:
        if value not in values.setdefault(name, []):
            values[name].append(value)
    for namespace in namespaces:
        if namespace.one and namespace.name in values:
            del values[namespace.name][1:]
    users, anonymous = values.pop("user_id", []), values.pop("anonymous_id", [])
    others = [("user_id", value) for value in users[1:]]
    others += [("anonymous_id", value) for value in anonymous[1:]]
    others += [(name, value) for name, each in values.items() for value in each]
    return Named(users[0] if users else None, anonymous[0] if anonymous else None, tuple(others))


def namespace_of(code: str, namespaces: Sequence[Namespace]) -> str | None:
    """The workspace's namespace that a namespace of an identityMap means; None where it has none."""
    names = {namespace.name for namespace in namespaces}
    if code in names:
        return code
    folded = code.casefold()
    same = next((name for name in names if name.casefold() == folded), None)
    meant = same or _MEANT.get(folded)
    return meant if meant in names else None


def written(
    identities: Sequence[IdentityKey], sent: Any, namespaces: Sequence[Namespace]
) -> dict[str, list[Any]]:
    """The identityMap of somebody with `identities`, in the words of the one that was `sent` last.
    What it says of others' namespaces stays; what has moved to somebody else since does not."""
    keys = set(identities)
    counted = {normal(key, namespaces) for key in named(sent, namespaces).keys}
    codes: dict[str, str] = {}
    found: dict[str, list[Any]] = {}
    told: set[IdentityKey] = set()
    for code, items in _entries(sent):
        name = namespace_of(code, namespaces)
        if name is not None:
            codes.setdefault(name, code)
        for item in items:
            value = identifier(item.get("id")) if isinstance(item, Mapping) else None
            key = normal((name, value), namespaces) if name is not None and value is not None else None
            if key is None or key in keys or key not in counted:
                found.setdefault(code, []).append(item)
                told.update([key] if key is not None else [])
        if not items:
            found[code] = []
    more = [key for key in identities if key not in told]
    order = [namespace.name for namespace in namespaces]
    more.sort(key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    for name, value in more:
        item = {"id": value} if found else {"id": value, "primary": True}
        found.setdefault(codes.get(name) or _CODES.get(name, name), []).append(item)
    return found


def _value(item: Mapping[str, Any], spelt: Callable[[str], str | None] | None) -> str | None:
    """The id of an item as it was sent; None where it is none, as an address without an @."""
    value = identifier(item.get("id"))
    return value if value is not None and (spelt is None or spelt(value)) else None


def _entries(identity_map: Any) -> list[tuple[str, list[Any]]]:
    if not isinstance(identity_map, Mapping):
        return []
    return [(code, items) for code, items in identity_map.items() if isinstance(items, list)]
