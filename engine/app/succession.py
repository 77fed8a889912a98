"""Events of profiles that have ended: what names one by its id reaches the one in its place, what is about
somebody erased reaches nobody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from engine.adapters.postgres.rights import hash_of
from engine.adapters.postgres.store import Session
from engine.app.components import Asked
from engine.app.replies import Pending
from engine.domain.offers.rules import Namespace
from engine.domain.people import identity
from engine.domain.people.profiles import PROFILE_NAMESPACE, IdentityKey, Profile

Read = Callable[[Mapping[IdentityKey, str]], Awaitable[dict[str, Profile]]]


async def succeeded(
    asked: list[Asked], hints: dict[IdentityKey, str], profiles: dict[str, Profile], read: Read
) -> list[Asked]:
    """The events, those that name their profile by its id under the key of whoever stands for it now.
    What had to be read for it is added to `hints` and `profiles`."""
    found: list[Asked] = []
    for one in asked:
        pending, key = one.pending, one.lookups[0]
        profile = profiles.get(key[1]) if key[0] == PROFILE_NAMESPACE else None
        followed: set[str] = set()
        while profile is not None and profile.succeeded_by and profile.succeeded_by not in followed:
            followed.add(profile.succeeded_by)
            key = (PROFILE_NAMESPACE, profile.succeeded_by)
            hints[key] = key[1]
            if key[1] not in profiles:
                profiles |= await read({key: key[1]})
            profile = profiles.get(key[1])
        if followed:
            pending.name((key,))
            one = Asked(pending, (key,))
        found.append(one)
    return found


async def drop_erased(
    batch: Sequence[Pending],
    nobodys: Sequence[IdentityKey],
    session: Session,
    secret: bytes,
    namespaces: Sequence[Namespace],
) -> None:
    """Marks what is about somebody who was erased. What is about somebody else goes on, and no
    longer says the erased identity."""
    hashes = {hash_of(secret, key): key for key in nobodys}
    erased = {hashes[found] for found in await session.erased(list(hashes))}
    if not erased:
        return
    for pending in batch:
        gone = erased.intersection(pending.lookups)
        if pending.keys[0] in gone:
            pending.dropped = True
        elif gone:
            pending.event = identity.without(pending.event, gone, namespaces)
            pending.name(tuple([key for key in pending.keys if key not in gone]))
