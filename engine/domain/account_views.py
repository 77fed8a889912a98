"""What conditions, messages and caps see of the account that an event is of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.domain.offers.rules import RuleSet
from engine.domain.people import accounts, computed
from engine.domain.people.profiles import Contact, Profile


class Company(msgspec.Struct, frozen=True, kw_only=True):
    """The account that an event is of, as conditions and caps see it. `audiences` are None where nothing
    is known of the account."""

    id: str
    view: Mapping[str, Any]
    member: Mapping[str, Any] = {}
    audiences: frozenset[str] | None = None
    contacts: tuple[Contact, ...] = ()
    told: Mapping[str, Any] | None = None
    """What was known of the account, to be told with the event so that it can be decided again."""

    def __repr__(self) -> str:
        return f"Company({self.id!r})"


def view_of(rules: RuleSet, account: Profile | None, now: datetime) -> dict[str, Any] | None:
    """As much of an account as anything reads, unknown things as None; None where there is no account."""
    inner = rules.of_accounts
    if account is None or inner is None or not rules.account_reads:
        return None
    view = computed.profile_view(account, inner.workspace, now)
    return {name: view.get(name) for name in sorted(rules.account_reads)}


def recalled(rules: RuleSet, view: Mapping[str, Any]) -> dict[str, Any]:
    """Such a view as it comes back from JSON."""
    inner = rules.of_accounts
    found = dict(view)
    if inner is not None:
        for name in inner.timestamps & found.keys():
            if isinstance(found[name], str):
                found[name] = datetime.fromisoformat(found[name])
    return found


def company(
    person: Profile, account: str, document: Profile | None, view: Mapping[str, Any] | None
) -> Company:
    """The account of an event. `view` is what `view_of` gave, now or then."""
    known = view.get("audiences") if view is not None else None
    return Company(
        id=account,
        view={**(view or {}), "id": account},
        member=accounts.member_view(person.accounts.get(account)),
        audiences=frozenset(known) if known is not None else None,
        contacts=document.contacts if document is not None else (),
        told=view,
    )
