"""What a receiver did not take: messages of people and calls of actions, shown and tried again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from engine.adapters.postgres.changes import Changes
from engine.adapters.postgres.outbox import Outbox
from engine.domain.sharing.receivers import Receiver

ACTION_KEPT = timedelta(days=1)
"""How long an action's call that is revived may wait to be taken."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One of them. `code` is why it failed last."""

    id: str
    profile_id: str
    type: str
    code: str | None
    since: datetime | None
    settled_at: datetime


async def dead_letters(
    changes: Changes, outbox: Outbox, receiver: Receiver, limit: int, before: datetime | None = None
) -> list[DeadLetter]:
    """The newest first, of both kinds."""
    found = [
        DeadLetter(
            id=one.id,
            profile_id=one.profile_id,
            type=one.type,
            code=one.code,
            since=one.since,
            settled_at=one.settled_at,
        )
        for one in await changes.dead(receiver.name, limit, before)
    ]
    found += [
        DeadLetter(
            id=one.id,
            profile_id=one.profile_id,
            type="action",
            code=one.code,
            since=None,
            settled_at=one.settled_at,
        )
        for one in await outbox.dead(limit, before, receiver.provider)
    ]
    return sorted(found, key=lambda one: one.settled_at, reverse=True)[:limit]


async def revive(
    changes: Changes, outbox: Outbox, receiver: Receiver, message: str | None, now: datetime
) -> int:
    """Has one tried again, by its id, or all. Answers how many.

    Raises:
        ValueError: `message` is no id.
    """
    expires_at = now + ACTION_KEPT
    if message is not None:
        revived = await changes.requeue(receiver.name, UUID(message))
        return revived or int(await outbox.requeue(message, expires_at, receiver.provider))
    revived = await changes.requeue(receiver.name)
    calls: Sequence[str] = await outbox.dead_ids(receiver.provider)
    return revived + sum([await outbox.requeue(one, expires_at, receiver.provider) for one in calls])
