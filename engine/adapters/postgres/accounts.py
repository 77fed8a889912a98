"""Accounts beside their documents: telling members, reading who they are; SQL stands in accounts.sql."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

import msgspec

from engine.adapters.postgres.store import Store, named_queries
from engine.domain.companies import telling
from engine.domain.people.events import Event
from engine.domain.people.profiles import (
    ACCOUNT_NAMESPACE,
    Profile,
    Seat,
    bucket_of,
    decode_profile,
    members_of,
)

TOLD_AT_ONCE = 1000
_QUERIES = named_queries(resources.files(__package__).joinpath("accounts.sql").read_text("utf-8"))


async def tell_members(store: Store, profile_id: str, told: Event) -> None:
    """Sets a timer for each member of an account, which has that profile, to hear what `told` says. What
    fails in between is done again: nobody hears it twice."""
    assert told.group_id is not None
    timer = telling(profile_id, told)
    event = msgspec.json.encode(timer.event).decode()
    after: str | None = None
    while True:
        ((last, members),) = await store.pool.fetch(
            _QUERIES["tell_members"],
            members_of(told.group_id),
            after,
            0 if after is None else bucket_of(after),
            TOLD_AT_ONCE,
            timer.id,
            timer.due_at,
            event,
        )
        if members < TOLD_AT_ONCE:
            return
        after = str(last)


class AccountMember(msgspec.Struct, frozen=True):
    """A person, as the member of one account."""

    profile: Profile
    seat: Seat

    def __repr__(self) -> str:
        return f"AccountMember({self.profile!r})"


async def accounts(store: Store, ids: Iterable[str]) -> dict[str, Profile]:
    """The documents of some accounts, by id."""
    keys = [(ACCOUNT_NAMESPACE, one) for one in dict.fromkeys(ids)]
    if not keys:
        return {}
    async with store.session() as session:
        owners = await session.owners(keys)
        found = await session.profiles(list(owners.values()))
    return {profile.account: profile for profile, _ in found if profile.account}


async def account(store: Store, account_id: str) -> Profile | None:
    """The document of an account."""
    key = (ACCOUNT_NAMESPACE, account_id)
    if "\0" in account_id:
        return None
    async with store.session() as session:
        owners = await session.owners([key])
        found = await session.profiles([owners[key]]) if key in owners else []
    return found[0][0] if found and found[0][0].lists(key) else None


async def members(
    store: Store, account_id: str, after: str | None, limit: int
) -> tuple[list[AccountMember], str | None]:
    """The members of an account in the order of their ids, from behind `after` on; and behind whom there
    are more."""
    start = 0 if after is None else bucket_of(after)
    rows = await store.pool.fetch(_QUERIES["members"], members_of(account_id), after, start, limit)
    people = [msgspec.structs.replace(decode_profile(row[1]), version=row[0]) for row in rows]
    # The index follows the documents, which may be of a moment later.
    found = [AccountMember(one, one.accounts[account_id]) for one in people if account_id in one.accounts]
    return found, people[-1].id if len(people) == limit else None
