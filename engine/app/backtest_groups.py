"""Who must be replayed together: profiles that some identity, device or account has ever connected.

People are independent but for that, so that groups can be shared out. Keys are compared by their hash:
two that happen to have the same one only make a group greater.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from engine.app.backtest_order import Brought
from engine.domain.offers.rules import Namespace
from engine.domain.people import identity
from engine.domain.people.accounts import account_in
from engine.domain.people.events import Event
from engine.domain.people.profiles import ACCOUNT_NAMESPACE

_event = msgspec.json.Decoder(Event).decode
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
Namespaces = tuple[Sequence[Namespace], ...]
"""How each of the rule sets concerned names people."""


class Mentions(msgspec.Struct):
    """Whom each key was seen with first, by the key's hash, and who was seen with the same one; when the
    last event came."""

    events: int = 0
    latest: datetime = _LONG_AGO
    owners: dict[int, str] = msgspec.field(default_factory=dict)
    pairs: set[tuple[str, str]] = msgspec.field(default_factory=set)

    def __repr__(self) -> str:
        return f"Mentions({self.events} events)"

    def read(
        self, rows: Sequence[tuple[str, str]], namespaces: Namespaces, *, joins_accounts: bool = False
    ) -> None:
        """Takes in rows of the log: profile and event (JSON). `joins_accounts` where what is decided on one
        member of an account may hang on another."""
        owners = self.owners
        self.events += len(rows)
        for profile_id, body in rows:
            event = _event(body)
            if event.received_at > self.latest:
                self.latest = event.received_at
            for declared in namespaces:
                for key in identity.lookups(event, identity.keys_of(event, declared)):
                    other = owners.setdefault(hash(key), profile_id)
                    if other != profile_id:
                        self.pairs.add((other, profile_id))
            if joins_accounts:
                for account in (event.group_id, account_in(event.context)):
                    if account is not None:
                        other = owners.setdefault(hash((ACCOUNT_NAMESPACE, account)), profile_id)
                        if other != profile_id:
                            self.pairs.add((other, profile_id))

    def add(self, other: Mentions) -> None:
        """What another worker has read."""
        self.events += other.events
        self.latest = max(self.latest, other.latest)
        self.pairs |= other.pairs
        for key, profile_id in other.owners.items():
            known = self.owners.setdefault(key, profile_id)
            if known != profile_id:
                self.pairs.add((known, profile_id))


def groups(mentions: Mentions, merges: Mapping[str, Sequence[Brought]]) -> list[frozenset[str]]:
    """All groups of more than one profile."""
    ended = {(into, one.profile_id) for into, those in merges.items() for one in those}
    return connected((*mentions.pairs, *ended))


def connected(pairs: Iterable[tuple[str, str]]) -> list[frozenset[str]]:
    """The connected components."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        top = node
        while (above := parent.setdefault(top, top)) != top:
            top = above
        while parent[node] != top:
            parent[node], node = top, parent[node]
        return top

    for one, other in pairs:
        parent[root(one)] = root(other)
    found: dict[str, set[str]] = {}
    for node in parent:
        found.setdefault(root(node), set()).add(node)
    return [frozenset(members) for members in found.values()]
