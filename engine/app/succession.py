"""What is due for a profile that has ended, or told to it by its id, reaches the one in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from engine.app.unit import Asked
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
            pending.keys = (key,)
            one = Asked(pending, (key,))
        found.append(one)
    return found
