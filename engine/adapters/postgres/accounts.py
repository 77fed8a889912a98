"""Accounts beside their documents: telling members, reading who they are; SQL stands in accounts.sql."""

from __future__ import annotations

from importlib import resources

import msgspec

from engine.adapters.postgres.store import Store, named_queries
from engine.domain.companies import telling
from engine.domain.people.events import Event
from engine.domain.people.profiles import bucket_of, members_of

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
