"""Which accounts the events of a tick may turn out to be of, for rules that look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.app.components import Asked
from engine.domain.people import accounts
from engine.domain.people.profiles import ACCOUNT_NAMESPACE, IdentityKey, Profile, profile_id_of


def accounts_of(
    asked: Sequence[Asked], hints: Mapping[IdentityKey, str], profiles: Mapping[str, Profile]
) -> list[frozenset[str]]:
    """By event the accounts that it can be of, whoever else it turns out to be about in this tick."""
    found: list[frozenset[str]] = []
    met: dict[IdentityKey, set[str]] = {}
    for one in asked:
        named: set[str] = set()
        owners = {hints[key] for key in one.lookups if key in hints}
        for owner in owners or {""}:
            named |= accounts.may_concern(profiles.get(owner), one.pending.event)
        # What another event of the tick says of the same person, or of who turns out to be the same.
        for key in one.lookups:
            known = met.setdefault(key, named)
            if known is not named:
                known |= named
                named = known
                met[key] = named
        found.append(frozenset(named))
    return found


def together(
    asked: Sequence[Asked], named: Sequence[frozenset[str]], hints: dict[IdentityKey, str], secret: bytes
) -> list[Asked]:
    """The events, each of which names its accounts as well: whoever counts against the cap of one account
    is decided one after the other."""
    found: list[Asked] = []
    for one, accounts_named in zip(asked, named, strict=True):
        keys = tuple((ACCOUNT_NAMESPACE, account) for account in sorted(accounts_named))
        for key in keys:
            hints.setdefault(key, profile_id_of(key, secret))
        found.append(Asked(one.pending, (*one.lookups, *keys)) if keys else one)
    return found
