"""One person as everything that is known to be theirs, and by what their traces elsewhere are told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from engine.domain.offers.rules import Namespace
from engine.domain.people.profiles import DEVICE_NAMESPACE, IdentityKey, Profile, decode_profile

_json = msgspec.json.Encoder().encode
_SHORT = 3
"""Words up to that length stand within many others."""
_TAIL = 6
_ASCII_END = re.compile("[0-9a-z]*$")


class Person(msgspec.Struct, frozen=True):
    """One person's profiles: the one that stands, first, and those that became one with it; and what
    the index points to them with."""

    profiles: tuple[Profile, ...]
    indexed: tuple[IdentityKey, ...]
    namespaces: Sequence[Namespace] = ()

    def __repr__(self) -> str:
        return f"Person({len(self.profiles)} profiles)"

    @property
    def ids(self) -> list[str]:
        return [profile.id for profile in self.profiles]

    @property
    def keys(self) -> list[IdentityKey]:
        """All identities, also those that were replaced, and devices."""
        earlier = (decode_profile(p.ended.itself) for p in self.profiles if p.ended and p.ended.itself)
        listed = (key for p in (*self.profiles, *earlier) for key in p.keys)
        return list(dict.fromkeys((*listed, *self.indexed)))

    @property
    def texts(self) -> list[bytes]:
        """What a refused event of theirs would hold: identities, as they are kept and as they were
        spelt, devices, tokens. Short ones as whole texts only."""
        words = {value for _, value in self.keys}
        plain = {_plain(word) for word in words}
        for profile in self.profiles:
            words |= {a.token for a in profile.devices.values() if a.token}
            stated = (trait.value for trait in profile.traits.values())
            words |= {word for word in stated if isinstance(word, str) and _plain(word) in plain}
        found = set()
        for word in words:
            spelt = {word.encode(), _json(word)[1:-1], _ascii(word)}
            found |= spelt if len(word) > _SHORT else {b'"' + text + b'"' for text in spelt}
        return sorted(found)

    def names(self, item: bytes) -> bool:
        """Whether a refused event that holds one of the texts is theirs for sure: a text may stand in
        somebody else's name, and a phone may have been somebody else's."""
        try:
            said = _naming(item)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = _Naming()
        if said.userId is not None:
            return ("user_id", str(said.userId)) in self.keys
        if said.anonymousId is not None:
            return ("anonymous_id", str(said.anonymousId)) in self.keys
        words = (value for namespace, value in self.keys if namespace != DEVICE_NAMESPACE)
        if any(b'"' + text + b'"' in item for word in words for text in (_json(word)[1:-1], _ascii(word))):
            return True
        return self.is_spelt_in(item)

    @property
    def spelt(self) -> dict[str, tuple[Namespace, frozenset[str]]]:
        """By namespace the values that people write in several ways, as profiles have them."""
        found: dict[str, tuple[Namespace, frozenset[str]]] = {}
        for namespace in self.namespaces:
            values = frozenset(value for name, value in self.keys if name == namespace.name)
            if namespace.normal is not None and values:
                found[namespace.name] = (namespace, values)
        return found

    @property
    def tails(self) -> list[str]:
        """How such values end, in any spelling, without blanks and signs."""
        values = {value for _, values in self.spelt.values() for value in values}
        return sorted({_ASCII_END.search(_plain(value))[0][-_TAIL:] for value in values})  # type: ignore[index]

    def is_spelt_in(self, item: bytes) -> bool:
        """Whether a refused event holds such a value, however written."""
        try:
            words = list(_words(msgspec.json.decode(item)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        tails = self.tails
        likely = [word for word in words if any(tail in _plain(word) for tail in tails)]
        return any(
            namespace.normal is not None and namespace.normal(word) in values
            for namespace, values in self.spelt.values()
            for word in likely
        )


class _Naming(msgspec.Struct):
    """As much of a refused event as says whose it is."""

    userId: str | int | float | None = None  # noqa: N815 - the wire's name
    anonymousId: str | int | float | None = None  # noqa: N815


_naming = msgspec.json.Decoder(_Naming).decode


def _words(node: Any) -> Iterator[str]:
    """All texts and numbers of a JSON value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield str(node)
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _words(value)
    elif isinstance(node, list):
        for value in node:
            yield from _words(value)


def _plain(word: str) -> str:
    """A word without what people spell differently: case, spaces, signs."""
    return "".join(c for c in word.casefold() if c.isalnum())


def _ascii(word: str) -> bytes:
    return "".join(c if c.isascii() else f"\\u{ord(c):04x}" for c in word).encode()
